"""What a shell offers behind `docker chap`, in the form that Docker's own completion reads."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import FrameType

import click
from click.shell_completion import CompletionItem, ShellComplete

from compose_chap import units
from compose_chap.backups import catalogue
from compose_chap.cli.call import Call, typed_call
from compose_chap.detection import detect
from compose_chap.engine.engine import Engine
from compose_chap.engine.registries.registry import Registry
from compose_chap.errors import ChapError
from compose_chap.image import Reference
from compose_chap.project import checkout, pin
from compose_chap.project.checkout import Checkout
from compose_chap.schedule.folders import all_folders
from compose_chap.stack import location, observe, releases
from compose_chap.stack.location import Where

# The last line of the answer: what else the shell may offer.
FILES, NOTHING, NOTHING_IN_ORDER = 0, 4, 36

LIMIT = 2.0  # seconds; nobody waits longer for a tab


def offer(group: click.Group, words: Sequence[str], docker: tuple[str, ...], *, described: bool = True) -> int:
    """Print completions of the last word. Errors are ignored: nobody would read them."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    items: list[CompletionItem] = []
    with suppress(Exception):
        completer = ShellComplete(group, {"obj": Call(docker)}, "docker chap", "")
        items = completer.get_completions(list(words[:-1]), words[-1] if words else "")
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("\n".join([*(_line(item, described) for item in items if item.type == "plain"), f":{_directive(items)}"]))
    return 0


def _line(item: CompletionItem, described: bool) -> str:
    about = " ".join((item.help or "").split())
    return f"{item.value}\t{about}" if about and described else str(item.value)


def _directive(items: Iterable[CompletionItem]) -> int:
    kinds = {item.type for item in items}
    if kinds & {"file", "dir"}:
        return FILES
    return NOTHING_IN_ORDER if "in order" in kinds else NOTHING


def values(kind: str, context: click.Context, last: str) -> list[CompletionItem]:
    """Return the values of this kind (`PROJECT`, `BACKUP`, `VERSION`) that begin with `last`."""
    call = typed_call(context)
    if kind == "PROJECT":
        return _matching(last, dict.fromkeys(_projects(call), ""))
    if kind == "VERSION":
        return [*_matching(last, _versions(call, last)), CompletionItem("", type="in order")]
    backups = _matching(last, {"latest": "the newest backup", **_backups(call)})
    return backups or [CompletionItem(last, type="file")]  # or a dump's file


def _matching(last: str, offers: dict[str, str]) -> list[CompletionItem]:
    return [CompletionItem(value, help=about) for value, about in offers.items() if value.startswith(last)]


def _projects(call: Call) -> list[str]:
    return sorted(stack.project.name for stack in detect(Engine(call.docker).containers()))


def _backups(call: Call) -> dict[str, str]:
    where = call.where()
    stack = observe.find_stack(Engine(call.docker), where)
    backups = catalogue.scan(all_folders(stack, None, where.environment)).backups
    descriptions = {
        backup.id: f"{units.age(backup.created_at, call.clock())}, {units.size(backup.size)}, {backup.manifest.reason}"
        + (", bad" if backup.fault else "")
        for backup in backups
    }
    return dict(reversed(descriptions.items()))


def _versions(call: Call, last: str) -> dict[str, str]:
    engine, where = Engine(call.docker), call.where()
    images = _images(engine, where)
    # What Compose built is in no registry, and its name is nobody's business there.
    built = not any("/" in image.repository for image in images.values())
    if built and (local_checkout := _checkout(engine, where)):
        return dict.fromkeys(reversed(checkout.local_releases(local_checkout)), "")
    registry = Registry(engine.insecure_registry, engine.credentials, timeout=LIMIT / 2)
    tags = releases.find(registry, images, where.environment, call.clock())
    running = {image.tag for image in images.values()}
    spell: Callable[[str], str] = (lambda item: item.removeprefix("v")) if last[:1].isdigit() else str
    return {spell(tag): "in the Compose file now" if tag in running else "" for tag in reversed(tags)}


def _checkout(engine: Engine, where: Where) -> Checkout | None:
    return checkout.find(observe.find_directory(engine, where))


def _images(engine: Engine, where: Where) -> dict[str, Reference]:
    with suppress(ChapError):
        return {service.name: service.image for service in observe.find_stack(engine, where).writers}
    model = location.read_project(where)
    return {name: Reference.parse(str(model.services[name].image or "")) for name in pin.chap_services(model)}
