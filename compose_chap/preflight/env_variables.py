"""Variables that a release needs in `.env` and that are not set: their values come from the running containers. Pure.

From v1.1.5 on chap-core's files take the database's credentials from `.env`; before, they were in the files. The
release's example has other values than the database of an older stack, so only the running containers have the
right ones.
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

# A NUL is in no file, so that a marked variable can be located in the text around it.
_MARK = "\0{}\0"
_MARKED = re.compile("\0(.*?)\0")

_PLAIN = re.compile(r"[\w.,:/@%+=-]+", re.ASCII)


@dataclass(frozen=True)
class Variable:
    """A variable and its value in a running container, that of `service`."""

    name: str
    service: str
    value: str = field(repr=False)


def find(load: Callable[[Mapping[str, str]], Model], services: Sequence[Service]) -> tuple[Variable, ...]:
    """Return the unset variables in the environments of these services, with their values in the containers.

    `load` returns the project as its new files define it, with more variables. A variable that no container shows is
    left out. The first service that shows a variable wins.
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
    marked_model, result = load({name: _MARK.format(name) for name in names}), dict[str, Variable]()
    for service in services:
        running = service.containers[0].environment
        for key, value in _environment(marked_model, service.name).items():
            match = re.fullmatch(_pattern(str(value or "")), running.get(key, ""), re.DOTALL)
            for name, part in match.groupdict().items() if match else ():
                result.setdefault(name, Variable(name, service.name, part))
    return tuple(result.values())


def _environment(model: Model, service: str) -> Tree:
    return tree(tree(tree(model.data.get("services")).get(service)).get("environment"))


def _pattern(marked: str) -> str:
    """Return the regular expression that extracts the value of each marked variable from the expanded text."""
    pattern, seen = "", set[str]()
    for index, part in enumerate(_MARKED.split(marked)):
        if index % 2 == 0:
            pattern += re.escape(part)
        else:
            pattern += f"(?P={part})" if part in seen else f"(?P<{part}>.+?)"
            seen.add(part)
    return pattern


def edit(path: Path, before: bytes | None, variables: Sequence[Variable], target: str) -> Edit:
    """Return the edit that appends variables to an env file, which may not exist yet."""
    head = before or b""
    if head and not head.endswith(b"\n"):
        head += b"\n"
    lines = [f"# Written by the upgrade to {target}: as the running containers had it."]
    lines += [f"{variable.name}={_quoted(variable.value)}" for variable in variables]
    return Edit(path, before, head + encode("\n".join(lines) + "\n"))


def _quoted(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else "'" + value.replace("'", "\\'") + "'"


def diff(edit: Edit, variables: Sequence[Variable]) -> str:
    """Return what `edit` adds, as a diff for people: names and their services, never a value."""
    lines = [f"--- {edit.path if edit.before is not None else '/dev/null'}", f"+++ {edit.path}"]
    return (
        "\n".join(lines + [f"+{variable.name}=*** (as {variable.service} has it now)" for variable in variables]) + "\n"
    )


def other_access(after: Model, service: Service) -> list[str]:
    """Return what would change in how a service reaches its database: user, password, database or address."""
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
    """Yield the variables without a default in the URL of the database."""
    value = _environment(after, service).get(URL)
    if isinstance(value, Text) and value.origin:
        yield from dict.fromkeys(required(value.origin.text))
