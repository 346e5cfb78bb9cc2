"""The volumes of a stack, packed: logs, runs, and the model services' own data."""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from compose_chap.backups import model_data
from compose_chap.backups.dump_file import disk_errors, file_name, write_hashed
from compose_chap.backups.manifest import KeptVolume
from compose_chap.engine.engine import Engine
from compose_chap.errors import DumpError
from compose_chap.model import Container, Role, Service, Stack

# Volumes that are slow to fill again, but fill themselves.
_CACHES = re.compile(r"renv|pytensor|(^|[/_-])uv$|cache|(^|[/_-])tmp$")
_LONGEST_NAME = 150
_GZIP = 16 + zlib.MAX_WBITS


def fills_itself(volume: str, place: str) -> bool:
    """Whether a volume that is mounted at a place holds nothing but what is made again when it is missing."""
    return bool(_CACHES.search(volume) or _CACHES.search(place))


def keep_volumes(engine: Engine, stack: Stack, folder: Path, notify: Callable[..., None]) -> tuple[KeptVolume, ...]:
    """Pack logs, runs and the model services' own data into `folder`/volumes, and return what a manifest says of them.

    Caches fill themselves again, and are left out.
    """
    (folder / "volumes").mkdir(mode=0o700)
    kept: dict[str, KeptVolume] = {}
    names: set[str] = set()

    for volume, (service, place) in _volumes(engine, stack).items():
        part = _pack(engine, service.containers[0], place, folder, (volume, unique_name(volume, names)), notify)
        kept[volume] = KeptVolume(**part, volume=volume, service=service.name, path=place)
    for service in stack.of(Role.MODEL):
        for place, pieces in model_data.databases(engine, service.containers[0], folder / "volumes"):
            target = folder / "volumes" / unique_name(service.name + place, names)
            facts = write_hashed(target, pieces, _telling(notify, f"{service.name}:{place}"))
            facts["file"] = f"volumes/{target.name}"
            kept[f"{service.name}:{place}"] = KeptVolume(**facts, service=service.name, path=place)
    return tuple(kept.values())


def volumes_size(engine: Engine, stack: Stack) -> int:
    """Return how many bytes `keep_volumes` would read, as far as it can be known: of containers that run."""
    found = 0
    for service, place in _volumes(engine, stack).values():
        if service.containers[0].running:
            said = engine.run(service.containers[0].id, ["du", "-sk", place]).stdout.split()
            found += int(said[0]) * 1024 if said and said[0].isdigit() else 0
    return found


def _volumes(engine: Engine, stack: Stack) -> dict[str, tuple[Service, str]]:
    """Return the volumes to keep, each with a service that has it and the place where it is mounted there."""
    found: dict[str, tuple[Service, str]] = {}
    for service in (*stack.writers, *stack.of(Role.MODEL)):
        for volume, place in engine.volumes(service.containers[0].id):
            if not fills_itself(volume, place):
                found.setdefault(volume, (service, place))
    return found


def _pack(
    engine: Engine, container: Container, place: str, folder: Path, called: tuple[str, str], notify: Callable[..., None]
) -> dict[str, Any]:
    name, file = called
    target = folder / "volumes" / f"{file}.tar.gz"
    with disk_errors(folder.parent):
        facts = write_hashed(
            target,
            gzipped(engine.archive(container.id, f"{place}/.")),
            _telling(notify, f"volume {name}"),
        )
    return {**facts, "file": f"volumes/{target.name}", "entries": read_tar(target)}


def unique_name(text: str, taken: set[str]) -> str:
    """Return a file's name, no longer than one may be, for what a container calls something; add it to `taken`."""
    name, number = file_name(text)[:_LONGEST_NAME], 1
    while name in taken:
        number += 1
        name = f"{file_name(text)[:_LONGEST_NAME]}-{number}"
    taken.add(name)
    return name


def read_tar(path: Path) -> int:
    """Read a packed volume from its first byte to its last and return how many entries it has.

    Raise DumpError when it is damaged.
    """
    try:
        with tarfile.open(path, "r|gz") as archive:
            return sum(1 for _ in archive)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DumpError(f"{path.name} cannot be read back: {error}.") from None


def _telling(notify: Callable[..., None], what: str) -> Callable[[int], None]:
    return lambda done: notify("backup", what, done, 0)


def gzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what comes in pieces as one gzip stream, packed quickly."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    for data in pieces:
        if packed := packer.compress(data):
            yield packed
    yield packer.flush()
