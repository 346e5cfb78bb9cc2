"""The disks of a stack's data and its backups: the free space, and whether a single failure destroys both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from compose_chap import units
from compose_chap.backups.catalogue import Backup
from compose_chap.engine.world import World
from compose_chap.errors import ChapError
from compose_chap.model import Stack
from compose_chap.schedule.folders import all_folders
from compose_chap.stack.databases import server_of

_LEAST = 1 << 30  # bytes that are free for the database
_NIGHTS = 3  # for which there is room


@dataclass(frozen=True)
class Disks:
    """The free bytes for the database and for backups, None where unknown.

    `shared` says that every backup is on the database's own disk: if that disk fails, both are gone. `low` says for
    people where there is too little room.
    """

    database_free: int | None = None
    backups_free: int | None = None
    shared: bool = False
    low: tuple[str, ...] = ()


def look(world: World, stack: Stack, backups: Sequence[Backup]) -> Disks:
    """Return the state of the disks. An unknown value is no error: other parts of the status say what is wrong."""
    free, room, shared = None, None, False
    with suppress(ChapError):
        free = server_of(world.engine, stack).free_space()
    if stack.project.local and not world.engine.remote:
        with suppress(ChapError, OSError):
            *_, folder = all_folders(stack, None, world.environment)
            room = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
            shared = _shared(world, stack, backups)
    return Disks(free, room, shared, tuple(shortages(free, room, backups[-1].size if backups else 0)))


def shortages(database_free: int | None, backups_free: int | None, newest: int) -> Iterator[str]:
    """Yield where there is too little room; `newest` is the size of the newest backup. All are bytes, None unknown."""
    if database_free is not None and database_free < _LEAST:
        yield f"Only {units.size(database_free)} are free for the database. PostgreSQL stops when its disk is full."
    if backups_free is not None and backups_free < newest * _NIGHTS:
        yield f"Only {units.size(backups_free)} are free for backups, and the newest takes {units.size(newest)}."


def _shared(world: World, stack: Stack, backups: Sequence[Backup]) -> bool:
    created, _ = world.engine.creation(stack.database.containers[0].id)
    mounts = created.get("Mounts") or ()
    data = [Path(mount["Source"]) for mount in mounts if "postgres" in mount["Destination"] and mount.get("Source")]
    if not data or not backups:
        return False
    disk = _device(data[0])
    return all(_device(backup.folder) == disk for backup in backups)


def _device(path: Path) -> int:
    """Return the device of a path. Most users cannot read Docker's own folders: the nearest readable parent counts."""
    for folder in (path, *path.parents):
        with suppress(OSError):
            return os.stat(folder).st_dev
    raise AssertionError("the root folder can always be looked at")
