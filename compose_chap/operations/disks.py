"""The disks that a stack's data and its backups lie on: how much is free, and whether one failure takes both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from compose_chap.backups import catalogue
from compose_chap.backups.catalogue import Backup
from compose_chap.engine.world import World
from compose_chap.errors import ChapError
from compose_chap.model import Stack
from compose_chap.stack.databases import server_of


@dataclass(frozen=True)
class Disks:
    """The bytes that are free where the database lies and where backups go, None where that cannot be seen.

    `shared` says that every backup lies on the database's own disk: if that disk fails, both are gone.
    """

    database_free: int | None = None
    backups_free: int | None = None
    shared: bool = False


def look(world: World, stack: Stack, backups: Sequence[Backup]) -> Disks:
    """Return what there is to see. What cannot be seen is no error: other questions say what is wrong."""
    free, room, shared = None, None, False
    with suppress(ChapError):
        free = server_of(world.engine, stack).free_space()
    if stack.project.local and not world.engine.remote:
        with suppress(ChapError, OSError):
            folder = catalogue.folder_for(stack, None, world.environment)
            room = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
            shared = _shared(world, stack, backups)
    return Disks(free, room, shared)


def _shared(world: World, stack: Stack, backups: Sequence[Backup]) -> bool:
    created, _ = world.engine.creation(stack.database.containers[0].id)
    mounts = created.get("Mounts") or ()
    data = [Path(mount["Source"]) for mount in mounts if "postgres" in mount["Destination"] and mount.get("Source")]
    if not data or not backups:
        return False
    disk = _device(data[0])
    return all(_device(backup.folder) == disk for backup in backups)


def _device(path: Path) -> int:
    """Return the device that a path lies on. Docker's own folders are closed to most users: the nearest one counts."""
    for place in (path, *path.parents):
        with suppress(OSError):
            return os.stat(place).st_dev
    raise AssertionError("the root folder can always be looked at")
