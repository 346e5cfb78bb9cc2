"""What a release takes from `.env` and nobody has set: found in the containers that run. Pure.

From v1.1.5 on chap-core's files have the database's credentials from `.env`; before, they stood in the files. The
release's own example names others than those that the database of an older stack was made with, so only what runs
tells the truth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compose_chap.edit import Edit
from compose_chap.model import DatabaseUrl, Service
from compose_chap.project.compose_files import Model
from compose_chap.project.document import Tree, tree
from compose_chap.project.variables import Text, encode, required

URL = "CHAP_DATABASE_URL"

# No text of a file holds it, so the place of a variable can be told from what stands around it.
_MARK = "\0{}\0"
_MARKED = re.compile("\0(.*?)\0")

_PLAIN = re.compile(r"[\w.,:/@%+=-]+", re.ASCII)


@dataclass(frozen=True)
class Setting:
    """A variable as what runs has it; `service` is whose container told it."""

    name: str
    service: str
    value: str = field(repr=False)


def find(load: Callable[[Mapping[str, str]], Model], services: Sequence[Service]) -> tuple[Setting, ...]:
    """Return the variables without a value in the environments of these services, as their containers have them.

    `load` returns the project as its new files define it, with more variables. What no container tells is left out.
    The first service that tells of a variable wins.
    """
    model = load({})
    names = {
        name
        for service in services
        for value in _environment(model, service.name).values()
        if isinstance(value, Text) and value.origin
        for name in required(value.origin.text)
        if not model.variables.get(name)
    }
    if not names:
        return ()
    marked, found = load({name: _MARK.format(name) for name in names}), dict[str, Setting]()
    for service in services:
        runs = service.containers[0].environment
        for key, value in _environment(marked, service.name).items():
            told = re.fullmatch(_pattern(str(value or "")), runs.get(key, ""), re.DOTALL)
            for name, part in told.groupdict().items() if told else ():
                found.setdefault(name, Setting(name, service.name, part))
    return tuple(found.values())


def _environment(model: Model, service: str) -> Tree:
    return tree(tree(tree(model.data.get("services")).get(service)).get("environment"))


def _pattern(marked: str) -> str:
    """Return the expression that finds the value of each marked variable in the text that was made with it."""
    pattern, seen = "", set[str]()
    for index, part in enumerate(_MARKED.split(marked)):
        if index % 2 == 0:
            pattern += re.escape(part)
        else:
            pattern += f"(?P={part})" if part in seen else f"(?P<{part}>.+?)"
            seen.add(part)
    return pattern


def edit(path: Path, before: bytes | None, settings: Sequence[Setting], target: str) -> Edit:
    """Return the edit that writes settings at the end of an env file, which need not be there yet."""
    head = before or b""
    if head and not head.endswith(b"\n"):
        head += b"\n"
    lines = [f"# Written by the upgrade to {target}: as the running containers had it."]
    lines += [f"{setting.name}={_quoted(setting.value)}" for setting in settings]
    return Edit(path, before, head + encode("\n".join(lines) + "\n"))


def _quoted(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else "'" + value.replace("'", "\\'") + "'"


def diff(edit: Edit, settings: Sequence[Setting]) -> str:
    """Return what `edit` adds, as a diff for people: names and where they come from, never a value."""
    lines = [f"--- {edit.path if edit.before is not None else '/dev/null'}", f"+++ {edit.path}"]
    return "\n".join(lines + [f"+{setting.name}=*** (as {setting.service} has it now)" for setting in settings]) + "\n"


def other_access(after: Model, service: Service) -> list[str]:
    """Return what would be another in the way a service reaches its database: user, password, database or address."""
    definition = after.services.get(service.name)
    now = DatabaseUrl.of(service.containers[0].environment)
    if now == DatabaseUrl():
        return []
    then = DatabaseUrl.of(definition.environment if definition else {})
    return [name for name, part in _PARTS.items() if part(now) != part(then)]


_PARTS: dict[str, Callable[[DatabaseUrl], object]] = {
    "user": lambda url: url.user,
    "password": lambda url: url.password,
    "database": lambda url: url.database,
    "address": lambda url: (url.host, url.port),
}


def url_variables(after: Model, service: str) -> Iterator[str]:
    """Yield the variables that the address of the database is made of, where they have no default."""
    value = _environment(after, service).get(URL)
    if isinstance(value, Text) and value.origin:
        yield from dict.fromkeys(required(value.origin.text))
