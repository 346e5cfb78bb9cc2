"""Every command that a person is shown can be typed as it stands: from any folder, by any user, with its arguments."""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest

import compose_chap
from compose_chap import ownership
from compose_chap.cli.app import chap
from compose_chap.cli.call import Call
from compose_chap.model import Project

PACKAGE = Path(compose_chap.__file__).parent

# What stands for a value in a sentence: the options of a repository, a run to undo, anything else.
VALUES = {
    r"named\('--from'\)|from_it": "--from REPOSITORY",
    r"named\('--to'\)|to_it": "--to REPOSITORY",
    r"_UNDONE_BY": "rollback",
    r"as_root\(|\bwhose\b": "sudo ",
    r"\boption\b": "-o FOLDER",
    r"\bkind\b": "nightly",
    r".": "v2.1.0",
}
# These need no folder of a stack, or are about another machine.
ANYWHERE = r"docker compose (-p |ls\b|exec -T \.\.\. |-f ADDRESS config |config\b|up`| answers|does not)"
# Only root may do this.
OF_ROOT = r"\b(chown|chmod -R|mount -o|mount LABEL|timedatectl|apt install|systemctl (start|stop)) "


def texts() -> Iterator[tuple[str, str]]:
    """Yield the module and the text of every string in the package, documentation aside."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        documentation = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inner = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        behind = {part for node in ast.walk(tree) if _is_as_root(node) for part in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, (ast.Constant, ast.JoinedStr)) and node not in documentation | inner:
                if text := _text(node):
                    yield str(path.relative_to(PACKAGE)), f"sudo {text}" if node in behind else text


def _is_as_root(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "as_root"


def _text(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        text = node.value if isinstance(node.value, str) else ""
        for name, value in {"from_it": "--from REPOSITORY", "to_it": "--to REPOSITORY", "sudo": "sudo "}.items():
            text = text.replace(f"{{{name}}}", value)
        return re.sub(r"\{[\w.\[\]]*\}", "v2.1.0", text)
    parts = []
    for part in node.values:
        source = ast.unparse(part)
        value = next(value for pattern, value in VALUES.items() if re.search(pattern, source))
        parts.append(str(part.value) if isinstance(part, ast.Constant) else value)
    return "".join(parts)


TEXTS = list(texts())
# A command ends with its line or sentence, and where the sentence goes on.
COMMAND = re.compile(
    r"docker chap ((?:(?!docker chap )[^`\n(])+?)(?=\. |\.?$|, | and |\)|`|\n| \(| skips | brings | removes )", re.M
)
COMMANDS = sorted({(module, words) for module, text in TEXTS for words in COMMAND.findall(text)})


def test_commands_are_seen() -> None:
    words = {words for _, words in COMMANDS}
    assert len(COMMANDS) > 80
    assert {"recover", "restore v2.1.0 --with-version", "copy --to REPOSITORY --init", "backups"} <= words


@pytest.mark.parametrize(("module", "words"), COMMANDS)
def test_a_command_of_this_tool_has_all_its_arguments(module: str, words: str) -> None:
    typed = shlex.split(words.replace("…", "status"))
    if typed[0] in ("COMMAND", "v2.1.0"):
        return  # whatever the operator typed
    with chap.make_context("docker chap", typed, obj=Call(("docker",), words=())) as context:
        _, command, rest = chap.resolve_command(context, [*context._protected_args, *context.args])
        assert command
        with suppress(click.exceptions.Exit):  # --help
            command.make_context(command.name, list(rest), parent=context)


@pytest.mark.parametrize(("module", "text"), [(module, text) for module, text in TEXTS if "docker compose " in text])
def test_a_command_of_compose_works_in_any_folder(module: str, text: str) -> None:
    named = re.sub(ANYWHERE, "", text)
    assert "docker compose " not in named, "Project.by_hand names the project and its files"


def test_by_hand_a_project_is_named_with_its_files() -> None:
    project = Project("p", Path("/srv/a b"), (Path("/srv/a b/compose.yml"),), (Path("/srv/.env"),))
    words = "-p p --project-directory '/srv/a b' -f '/srv/a b/compose.yml' --env-file /srv/.env"
    assert project.by_hand("up", "-d", "chap") == f"docker compose {words} up -d chap"


ROOTS = [(module, text) for module, text in TEXTS if re.search(OF_ROOT, text) and not module.startswith("schedule/")]


@pytest.mark.parametrize(("module", "text"), ROOTS)
def test_what_only_root_may_do_is_done_with_sudo(module: str, text: str) -> None:
    assert all(text[: match.start()].endswith("sudo ") for match in re.finditer(OF_ROOT, text)), "ownership.as_root"


def test_root_needs_no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert ownership.as_root("mount /mnt") == "mount /mnt"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert ownership.as_root("mount /mnt") == "sudo mount /mnt"
