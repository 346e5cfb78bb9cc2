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
from compose_chap.backups.manifest import VolumePart
from compose_chap.engine.engine import Engine
from compose_chap.errors import DumpError
from compose_chap.model import Container, Role, Service, Stack

# Caches are slow to fill, but fill themselves.
_CACHES = re.compile(r"renv|pytensor|(^|[/_-])uv$|cache|(^|[/_-])tmp$")
_LONGEST_NAME = 150
_GZIP = 16 + zlib.MAX_WBITS


def is_cache(volume: str, path: str) -> bool:
    """Whether a volume that is mounted at a path holds only what is made again when it is missing."""
    return bool(_CACHES.search(volume) or _CACHES.search(path))


def pack_volumes(engine: Engine, stack: Stack, folder: Path, notify: Callable[..., None]) -> tuple[VolumePart, ...]:
    """Pack logs, runs and the model services' own data into `folder`/volumes, and return their facts for the manifest.

    Caches are left out.
    """
    (folder / "volumes").mkdir(mode=0o700)
    kept: dict[str, VolumePart] = {}
    names: set[str] = set()

    for volume, (service, path) in _volumes(engine, stack).items():
        part = _pack(engine, service.containers[0], path, folder, (volume, unique_name(volume, names)), notify)
        kept[volume] = VolumePart(**part, volume=volume, service=service.name, path=path)
    for service in stack.of(Role.MODEL):
        for path, pieces in model_data.databases(engine, service.containers[0], folder / "volumes"):
            target = folder / "volumes" / unique_name(service.name + path, names)
            facts = write_hashed(target, pieces, _progress(notify, f"{service.name}:{path}"))
            facts["file"] = f"volumes/{target.name}"
            kept[f"{service.name}:{path}"] = VolumePart(**facts, service=service.name, path=path)
    return tuple(kept.values())


def volumes_size(engine: Engine, stack: Stack) -> int:
    """Return how many bytes `pack_volumes` would read, as far as known: from running containers."""
    total = 0
    for service, path in _volumes(engine, stack).values():
        if service.containers[0].running:
            output = engine.run(service.containers[0].id, ["du", "-sk", path]).stdout.split()
            total += int(output[0]) * 1024 if output and output[0].isdigit() else 0
    return total


def _volumes(engine: Engine, stack: Stack) -> dict[str, tuple[Service, str]]:
    """Return the volumes to back up, each with a service that has it and its path there."""
    volumes: dict[str, tuple[Service, str]] = {}
    for service in (*stack.writers, *stack.of(Role.MODEL)):
        for volume, path in engine.volumes(service.containers[0].id):
            if not is_cache(volume, path):
                volumes.setdefault(volume, (service, path))
    return volumes


def _pack(
    engine: Engine, container: Container, path: str, folder: Path, names: tuple[str, str], notify: Callable[..., None]
) -> dict[str, Any]:
    name, file = names
    target = folder / "volumes" / f"{file}.tar.gz"
    with disk_errors(folder.parent):
        facts = write_hashed(
            target,
            gzipped(engine.archive(container.id, f"{path}/.")),
            _progress(notify, f"volume {name}"),
        )
    return {**facts, "file": f"volumes/{target.name}", "entries": read_tar(target)}


def unique_name(text: str, taken: set[str]) -> str:
    """Return a unique file name of limited length for a container's name of something; add it to `taken`."""
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


def _progress(notify: Callable[..., None], what: str) -> Callable[[int], None]:
    return lambda done: notify("backup", what, done, 0)


def gzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what comes in pieces as one gzip stream, packed quickly."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    for data in pieces:
        if packed := packer.compress(data):
            yield packed
    yield packer.flush()
