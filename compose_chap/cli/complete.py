"""What a shell offers behind `docker chap`, told in the form that Docker's own completion reads."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from compose_chap import units
from compose_chap.cli.call import Call
from compose_chap.cli.commands import COMMANDS

if TYPE_CHECKING:
    from compose_chap.engine.engine import Engine
    from compose_chap.image import Reference
    from compose_chap.project.checkout import Checkout
    from compose_chap.stack.location import Where

# The last line of the answer: what else the shell may offer.
FILES, NOTHING, NOTHING_IN_ORDER = 0, 4, 36

LIMIT = 2.0  # seconds; nobody waits longer for a tab

_Offer = tuple[Iterable[str], int]

_FILE_OPTIONS = {"files", "env_files", "project_directory", "output", "dump_only", "metrics_file"}


def offer(group: click.Group, words: Sequence[str], docker: tuple[str, ...]) -> int:
    """Print completions of the last word. What goes wrong is passed over in silence: there is nobody to read it."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    lines: list[str] = []
    directive = NOTHING
    with suppress(Exception):
        found, directive = _offers(group, list(words[:-1]), words[-1] if words else "", Call(docker))
        lines = list(found)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("\n".join([*lines, f":{directive}"]))
    return 0


def _offers(group: click.Group, before: list[str], last: str, call: Call) -> _Offer:
    context = click.Context(group, info_name="docker chap", obj=call)
    command, given, values = _read(group, context, before)
    options = _options(command or group)
    known = options.get(before[-1]) if before else None
    name, equals, value = last.partition("=")

    if known and known.nargs == 1 and not known.is_flag:
        return _values_of(known, last, given)
    if equals and name in options:
        return _values_of(options[name], value, given)
    if last.startswith("-"):
        return _matching(last, {spelled: option.help or "" for spelled, option in options.items()})
    if command is None:
        return _matching(last, {name: entry.summary for name, entry in COMMANDS.items()})
    return _arguments(command, given, values, last)


def _read(group: click.Group, context: click.Context, words: list[str]) -> tuple[click.Command | None, Call, list[str]]:
    """Return the command, the call that the common options make, and how many values came before."""
    from compose_chap.cli.call import told

    command: click.Command | None = None
    said: dict[str, list[str]] = {}
    values: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        option = _options(command or group).get(name)
        if option:
            text = "1" if option.is_flag else value if equals else next(rest, "")
            said.setdefault(option.name or "", []).append(text)
        elif command is None:
            command = group.get_command(context, word)
        else:
            values.append(word)
    last = {name: found[-1] for name, found in said.items()}
    directory = last.get("project_directory")
    common = {
        "files": tuple(map(Path, said.get("files", ()))),
        "project_name": last.get("project_name"),
        "project_directory": Path(directory) if directory else None,
        "env_files": tuple(map(Path, said.get("env_files", ()))),
        "json": None,
        "progress": "quiet",
    }
    return command, told(context.obj, common), values


def _options(command: click.Command) -> dict[str, click.Option]:
    found = (one for one in command.params if isinstance(one, click.Option) and not one.hidden)
    return {spelled: option for option in found for spelled in (*option.opts, *option.secondary_opts)}


def _values_of(option: click.Option, last: str, call: Call) -> _Offer:
    if isinstance(option.type, click.Choice):
        return _matching(last, dict.fromkeys(map(str, option.type.choices), ""))
    if option.name == "project_name":
        return _matching(last, dict.fromkeys(_projects(call), ""))
    if option.name in ("pin", "unpin", "source"):
        return _matching(last, _backups(call))
    return (), FILES if option.name in _FILE_OPTIONS else NOTHING


def _arguments(command: click.Command, call: Call, values: list[str], last: str) -> _Offer:
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    if len(values) >= len(arguments):
        return (), NOTHING
    wanted = arguments[len(values)].make_metavar(click.Context(command)).strip("[].")
    if wanted == "VERSION":
        return _matching(last, _versions(call, last))[0], NOTHING_IN_ORDER
    if wanted == "BACKUP":
        found = list(_matching(last, {"latest": "the newest backup", **_backups(call)})[0])
        return found, NOTHING if found else FILES  # or a dump's file
    return (), FILES


def _matching(last: str, offers: dict[str, str]) -> _Offer:
    fitting = ((value, " ".join(told.split())) for value, told in offers.items() if value.startswith(last))
    return [f"{value}\t{told}" if told else value for value, told in fitting], NOTHING


def _projects(call: Call) -> list[str]:
    from compose_chap.engine.engine import Engine
    from compose_chap.model import detect

    return sorted(stack.project.name for stack in detect(Engine(call.docker).containers()))


def _backups(call: Call) -> dict[str, str]:
    from compose_chap.backups import catalogue
    from compose_chap.engine.engine import Engine
    from compose_chap.stack import observe

    where = call.where()
    stack = observe.find_stack(Engine(call.docker), where)
    found = catalogue.list_backups(catalogue.folder_for(stack, None, where.environment))
    told = {
        one.id: f"{units.age(one.created_at, call.clock())}, {units.size(one.size)}, {one.manifest['reason']}"
        + (", bad" if one.fault else "")
        for one in found
    }
    return dict(reversed(told.items()))


def _versions(call: Call, last: str) -> dict[str, str]:
    from compose_chap.engine.engine import Engine
    from compose_chap.engine.registry import Registry
    from compose_chap.project import checkout
    from compose_chap.stack import releases

    engine, where = Engine(call.docker), call.where()
    images = _images(engine, where)
    # What Compose built is in no registry, and its name is nobody's business there.
    built = not any("/" in image.repository for image in images.values())
    if built and (source := _checkout(engine, where)):
        return dict.fromkeys(reversed(checkout.local_releases(source)), "")
    registry = Registry(engine.insecure_registry, engine.credentials, timeout=LIMIT / 2)
    found = releases.find(registry, images, where.environment, call.clock())
    running = {image.tag for image in images.values()}
    spell: Callable[[str], str] = (lambda one: one.removeprefix("v")) if last[:1].isdigit() else str
    return {spell(one): "in the Compose file now" if one in running else "" for one in reversed(found)}


def _checkout(engine: Engine, where: Where) -> Checkout | None:
    from compose_chap.project import checkout
    from compose_chap.stack import observe

    return checkout.find(observe.find_directory(engine, where))


def _images(engine: Engine, where: Where) -> dict[str, Reference]:
    from compose_chap.errors import ChapError
    from compose_chap.image import Reference
    from compose_chap.project import pin
    from compose_chap.stack import location, observe

    with suppress(ChapError):
        return {service.name: service.image for service in observe.find_stack(engine, where).writers}
    model = location.read_project(where)
    return {name: Reference.parse(str(model.services[name].image or "")) for name in pin.chap_services(model)}
