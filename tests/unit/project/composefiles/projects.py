"""Compose projects in random spellings: files, options and environment, for property tests and for the judge.

`project(random)` writes a project the way many hands would: its two CHAP services and a few others
spread over files, overrides, includes and extended services; images as anchors, merges, flow, JSON
or block scalars; tags literal or out of variables; comments, quotes and line ends of every kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

Anything = TypeVar("Anything")

REPOSITORIES = (
    "ghcr.io/dhis2-chap/chap-core",
    "ghcr.io/dhis2-chap/chap-worker",
    "chap",
    "library/chap_core",
    "harbor.moh.example:5000/ghcr/dhis2-chap/chap-core",
    "localhost:5000/chap",
)
TAGS = ("v2.0.0", "2.0.0", "v1.1.5", "latest", "master", "v2.1.0-rc.1", "chapkit2-8f17ee3", "v2")
COMMENTS = (
    "was :v2.0.0",
    "image: ghcr.io/dhis2-chap/chap-core:v1.9.9",
    "déploiement à Vientiane ວຽງຈັນ",
    "🦟 v2.0.0",
    "'",
    '"',
    "{",
)
PLAIN = re.compile(r"[A-Za-z$/][\w./@$-]*(?:[:{}?+-]+[\w./@$-]+)*\}*", re.ASCII)


@dataclass
class Project:
    """Files by their path below the project, and how Compose is called in `directory`."""

    files: dict[str, bytes] = field(default_factory=dict)
    directory: str = "."
    compose_files: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    wanted: tuple[str, ...] = ("chap", "worker")


@dataclass(frozen=True)
class Raw:
    """A scalar that is already spelled."""

    text: str


class Author:
    """Writes one project; every choice comes from `random`."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.project = Project()
        self.variables: dict[str, str] = {}
        self.names = 0

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick(self, *choices: Anything) -> Anything:
        return self.random.choice(choices)

    # --- images and variables

    def image(self) -> str:
        """Return an image as a template, and remember the variables it needs."""
        repository, tag = self.pick(*REPOSITORIES), self.pick(*TAGS)
        kind = self.random.randrange(16)
        if kind < 5:
            return f"{repository}:{tag}"
        if kind == 5:
            return repository
        if kind == 6:
            return f"{repository}:{tag}@sha256:" + "0123456789abcdef" * 4
        if kind == 7:
            return f"{self.variable(repository)}:{tag}"
        if kind == 8:
            return self.variable(f"{repository}:{tag}")
        if kind == 9:
            return f"{repository}:v{self.variable(self.pick('2.0.0', '1.4', '2'))}"
        if kind == 10:
            return f"{self.variable(repository)}:{self.variable(tag)}"
        return f"{repository}:{self.variable(tag)}"

    def variable(self, value: str) -> str:
        """Return a template that becomes `value`."""
        self.names += 1
        name = f"{self.pick('CHAP', 'TAG', 'img', '_V')}_{self.names}"
        kind = self.random.randrange(10)
        if kind == 0:
            return f"${{{name}:-{value}}}"
        if kind == 1:
            return f"${{{name}-{value}}}"
        if kind == 2:
            return f"${{{name}:-${{{name}B:-{value}}}}}"
        if kind == 3:
            self.variables[name] = ""
            return f"${{{name}:-{value}}}"
        self.variables[name] = value
        if kind == 4:
            return f"${{{name}:-v0.0.1}}"
        if kind == 5:
            return f"${{{name}:?set it}}"
        if kind == 6:
            return f"${{{name}:+{value}}}"
        if kind == 7:
            self.variables[name] = f"${{{name}_BASE}}"
            self.variables[f"{name}_BASE"] = value
        return f"${{{name}}}"

    def env_file(self, variables: dict[str, str]) -> bytes:
        """Spell an env file; the variables that others use come first."""
        lines = [f"# {self.pick(*COMMENTS)}"] if self.chance(0.5) else []
        for name, value in sorted(variables.items(), key=lambda item: "$" in item[1]):
            if self.chance(0.2):
                lines.append(f"{name}=v0.0.0")
            quote = self.pick("", "", '"', '"' if "$" in value else "'")
            equals = self.pick("=", "=", "=", " = ", ": ") if value else "="
            export = self.pick("", "", "export ")
            comment = self.pick("", "", "  # was v2.0.0", " # ©") if value else ""
            lines.append(f"{export}{name}{equals}{quote}{value}{quote}{comment}")
            if self.chance(0.2):
                lines += ["", f"#{name}=v9"]
        return self.finished(lines)

    # --- spelling of YAML

    def scalar(self, text: str, flow: bool) -> str:
        """Spell a string as YAML, on one line."""
        if PLAIN.fullmatch(text) and not (flow and set(text) & set("{}")) and self.chance(0.5):
            return self.properties() + text
        if self.chance(0.5) and "'" not in text:
            return f"{self.properties()}'{text}'"
        escaped = "".join(self.escaped(text, index) for index in range(len(text)))
        return f'{self.properties()}"{escaped}"'

    def escaped(self, text: str, index: int) -> str:
        """Escape a character now and then, but none behind the last colon, where the tag is."""
        character = text[index]
        if character in '"\\':
            return "\\" + character
        if index < text.rfind("/") and self.chance(0.02):
            return self.pick(f"\\x{ord(character):02x}", f"\\u{ord(character):04X}")
        return character

    def properties(self) -> str:
        self.names += 1
        anchor = f"&a{self.names} "
        return self.pick("", "", "", "", "!!str ", anchor, f"{anchor}!!str ", f"!!str  {anchor}")

    def flow(self, data: Any, json: bool) -> str:
        space = self.pick("", " ")
        if isinstance(data, Raw):
            return data.text
        if isinstance(data, dict):
            parts = [f"{self.key(key, json)}: {self.flow(value, json)}" for key, value in data.items()]
            return "{" + space + ", ".join(parts) + space + "}"
        if isinstance(data, list):
            return "[" + space + ", ".join(self.flow(item, json) for item in data) + space + "]"
        return '"' + data.replace('"', '\\"') + '"' if json else self.scalar(data, flow=True)

    def key(self, key: str, json: bool = False) -> str:
        return f'"{key}"' if json or (key != "<<" and self.chance(0.05)) else key

    def block(self, data: dict[str, Any], indent: str) -> list[str]:
        step = indent + self.pick("  ", "  ", "    ", " ")
        lines: list[str] = []
        for key, value in data.items():
            if self.chance(0.1):
                lines.append(self.pick("", f"{indent}# {self.pick(*COMMENTS)}", f"{indent}#image: chap-core:v1.0.0"))
            anchor = ""
            if isinstance(value, tuple):
                anchor, value = f" &{value[0]}", value[1]
            head = f"{indent}{self.key(key)}:"
            if isinstance(value, Raw):
                lines.append(f"{head} {value.text}{self.trailer()}")
            elif isinstance(value, str) and key == "image" and self.chance(0.1):
                lines += [head + self.pick(" >-", " |-", " >-  # tag"), step + value]
            elif isinstance(value, str):
                gap = self.pick(" ", " ", "  ", "\t", " \t") if self.chance(0.3) else " "
                lines.append(f"{head}{gap}{self.scalar(value, flow=False)}{self.trailer()}")
            elif isinstance(value, dict) and not value:
                lines.append(f"{head}{anchor} {{}}")
            elif self.chance(0.12):
                lines.append(f"{head}{anchor} {self.flow(value, json=False)}{self.trailer()}")
            elif isinstance(value, dict):
                lines += [head + anchor, *self.block(value, step)]
            else:
                lines.append(head + anchor)
                for item in value:
                    lines.append(f"{step}- {self.flow(item, json=False)}{self.trailer()}")
        return lines

    def trailer(self) -> str:
        if self.chance(0.8):
            return ""
        return self.pick(" ", "\t", f"  # {self.pick(*COMMENTS)}", f"\t# {self.pick(*COMMENTS)}")

    def finished(self, lines: list[str]) -> bytes:
        newline = self.pick("\n", "\n", "\n", "\r\n")
        text = newline.join(lines) + ("" if self.chance(0.2) else newline)
        return (b"\xef\xbb\xbf" if self.chance(0.1) else b"") + text.encode()

    def yaml(self, *documents: dict[str, Any]) -> bytes:
        has_anchors = any(isinstance(value, (tuple, Raw)) for document in documents for value in document.values())
        if len(documents) == 1 and not has_anchors and "<<" not in repr(documents) and self.chance(0.1):
            return self.finished([self.flow(documents[0], json=True)])
        lines = ["---"] if self.chance(0.2) else []
        lines += [f"# {self.pick(*COMMENTS)}"] if self.chance(0.3) else []
        for number, document in enumerate(documents):
            lines += ["---"] if number else []
            lines += self.block(document, "")
        return self.finished(lines)

    # --- services and files

    def services(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the top of a document: shared parts, and services."""
        top: dict[str, Any] = {}
        chap: dict[str, Any] = {"command": ["uvicorn", "chap:app"]}
        worker: dict[str, Any] = {"command": "celery -A chap_core worker"}
        kind = self.random.randrange(6)
        if kind == 0:
            top["x-chap"] = ("base", {"image": self.image(), "init": Raw("true")})
            chap = {"<<": Raw("*base"), **chap}
            worker = {**worker, "<<": Raw(self.pick("*base", "[*base]"))}
        elif kind == 1:
            top["x-image"] = Raw(f"&img {self.image_spelled()}")
            chap["image"] = worker["image"] = Raw("*img")
        elif kind == 2:
            top["x-old"] = ("old", {"image": "chap:v0", "init": Raw("true")})
            chap = {"image": self.image(), "<<": Raw("*old"), **chap}
            worker = {"<<": Raw("*old"), "image": self.image(), **worker}
        else:
            chap["image"], worker["image"] = self.image(), self.image()
        if self.chance(0.2):
            chap["build"] = self.pick(".", {"context": ".", "dockerfile": "Dockerfile"})
        if self.chance(0.2):
            worker["environment"] = self.pick(["A=$$B", "C=${HOME_DIR:-x}"], {"A": "b", "C": "${NOWHERE}"})
        if self.chance(0.2):
            worker["profiles"] = ["chap"]
        return top, {"chap": chap, "worker": worker}

    def image_spelled(self) -> str:
        text = self.image()
        return f"'{text}'" if "{" in text else text

    def others(self) -> dict[str, Any]:
        names = self.random.sample(["postgres", "redis", "web", "db.prep"], self.random.randrange(4))
        images = ("postgres:17", "valkey/valkey:8", "alpine", "ghcr.io/dhis2-chap/chap-core:v2.0.0")
        return {name: {"image": self.pick(*images)} for name in names}

    def write(self) -> Project:
        top, services = self.services()
        shape = self.random.randrange(9)
        main = self.pick("compose.yml", "compose.yaml", "docker-compose.yml")
        plain = {**top, "services": {**services, **self.others()}}
        old_chap = {"image": "chap:v0"}
        files = self.project.files
        entry: Any
        if shape <= 1:
            files[main] = self.yaml(plain)
        elif shape == 2:
            first = {"services": {**self.others(), "chap": old_chap, "worker": {"init": Raw("true")}}}
            files[main] = self.yaml(first, plain)
        elif shape == 3:
            override = self.pick("compose.override.yml", "docker-compose.override.yaml")
            files[main] = self.yaml({"services": {"chap": old_chap, **self.others()}})
            files[override] = self.yaml(plain)
        elif shape == 4:
            files["a/base.yml"] = self.yaml(plain)
            more = {"chap": {"init": Raw("false")}, "more": {"image": "more:v2.0.0"}}
            files["a/more.yml"] = self.yaml({"services": more})
            self.project.compose_files = ("a/base.yml", "a/more.yml")
        elif shape == 5:
            separator = self.pick(":", ";")
            files["one.yml"] = self.yaml({"services": {"chap": old_chap}})
            files["two.yml"] = self.yaml(plain)
            self.variables["COMPOSE_FILE"] = separator.join(["one.yml", "two.yml"])
            if separator == ";":
                self.variables["COMPOSE_PATH_SEPARATOR"] = ";"
        elif shape == 6:
            entry = self.pick("sub/chap.yml", {"path": "sub/chap.yml"}, {"path": ["./sub/chap.yml"]})
            files[main] = self.yaml({"include": [entry], "services": {"front": {"image": "nginx:1"}}})
            if self.chance(0.5):
                files["sub/chap.yml"] = self.yaml({"include": ["deep/chap.yml"]})
                files["sub/deep/chap.yml"] = self.yaml(plain)
            else:
                files["sub/chap.yml"] = self.yaml(plain)
        elif shape == 7:
            env_name = self.pick("sub/.env", "versions.env")
            entry = {"path": ["sub/base.yml", "sub/over.yml"], "project_directory": "sub"}
            if env_name != "sub/.env":
                entry |= {"env_file": env_name, "project_directory": self.pick("sub", ".")}
            files[main] = self.yaml({"include": [entry]})
            files["sub/base.yml"] = self.yaml({"services": {"chap": old_chap, **self.others()}})
            files["sub/over.yml"] = self.yaml({**top, "services": services})
            if self.chance(0.6):
                files[env_name] = self.env_file(self.variables)
                self.variables = {}
            else:
                files[env_name] = self.env_file({"UNUSED": "1"})
        else:
            bases = {f"{name}-base": service for name, service in services.items()}
            files["common/base.yml"] = self.yaml({**top, "services": {**bases, **self.others()}})
            files[main] = self.yaml(
                {
                    "services": {
                        name: {"extends": {"file": "common/base.yml", "service": f"{name}-base"}} for name in services
                    }
                }
            )
        self.add_variables()
        return self.project

    def add_variables(self) -> None:
        """Put the variables where Compose finds them: .env, an env file of its own, now and then the process."""
        if self.variables and self.chance(0.08) and "COMPOSE_FILE" not in self.variables:
            name = self.pick(*sorted(self.variables))
            self.project.environ[name] = self.variables[name] if "$" not in self.variables[name] else "v0.5.0"
        directory = "a/" if self.project.compose_files else ""
        if self.variables and self.chance(0.25):
            self.project.env_files = ("conf/prod.env",)
            self.project.files["conf/prod.env"] = self.env_file(self.variables)
            if self.chance(0.5):
                self.project.files[f"{directory}.env"] = self.env_file(dict.fromkeys(self.variables, "v0.0.9"))
        elif self.variables or self.chance(0.2):
            self.project.files[f"{directory}.env"] = self.env_file(self.variables)
        if not self.project.compose_files and "COMPOSE_FILE" not in self.variables and self.chance(0.1):
            self.project.directory = "down/here"


def project(random: Random) -> Project:
    """Return a random project that Compose accepts."""
    return Author(random).write()
