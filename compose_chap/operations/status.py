"""What runs: one look at a stack, asked as little as possible and changing nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from compose_chap.backups import catalogue
from compose_chap.backups.catalogue import Backup
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, EngineError, StackError
from compose_chap.model import Origin, Role, Service, Stack
from compose_chap.project import checkout
from compose_chap.records import durable, engine_lock, run_records
from compose_chap.stack import schema
from compose_chap.stack.chap import Active, Chap, Health, Jobs, Overview, version_in
from compose_chap.stack.databases import server_of
from compose_chap.stack.schema import Schema
from compose_chap.transaction import kept

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """The Git checkout that the Compose files lie in: its folder, where it stands, and what Git calls that."""

    folder: str
    commit: str
    branch: str
    name: str


@dataclass(frozen=True)
class Disks:
    """The bytes that are free where the database lies and where backups go, None where that cannot be seen.

    `shared` says that every backup lies on the database's own disk: if that disk fails, both are gone.
    """

    database_free: int | None = None
    backups_free: int | None = None
    shared: bool = False


@dataclass(frozen=True)
class Status:
    """What was seen of a stack. None where something could not be asked; `problems` says why.

    `working` is who works on it now, `open_run` the run that has not ended, empty for none: it goes on, or was cut off.
    `last_run` is the record of the last one that ended.
    """

    stack: Stack
    digests: Mapping[str, str]
    versions: Mapping[str, str]
    health: Health | None
    schema: Schema | None
    jobs: Jobs | None
    database_size: int | None
    kept: Mapping[str, int]
    kept_images: tuple[str, ...]
    last_backup: Backup | None  # the last sound one
    backups_known: bool
    source: Source | None
    open_run: Mapping[str, Any] | None
    working: Mapping[str, str] | None
    problems: tuple[str, ...]
    disks: Disks = Disks()
    last_run: Mapping[str, Any] | None = None


def look(world: World, stack: Stack) -> Status:
    """Return what there is to see of a stack. A part that is down is named, and is no error."""
    problems: list[str] = []

    def attempt(ask: Any) -> Any:
        try:
            return ask()
        except ChapError as error:
            problems.append(error.message)
            return None

    api = stack.api.containers[0]
    chap = Chap(world.engine, api.id)
    if not api.running:
        problems.append(f"The API container {api.name} does not run (it is {api.state}).")

    # Each question waits for a program in a container: asked side by side, they take as long as the slowest.
    with ThreadPoolExecutor() as pool:
        overview = pool.submit(attempt, chap.overview) if api.running else None
        working = pool.submit(attempt, lambda: chap.active(stack.workers)) if api.running else None
        judged = pool.submit(attempt, lambda: schema.of_stack(world, stack))
        asked = pool.submit(attempt, lambda: server_of(world.engine, stack).databases())
        free = pool.submit(_quietly, lambda: server_of(world.engine, stack).free_space())
        versions = {
            worker.name: pool.submit(attempt, lambda item=worker: version_in(world.engine, item.containers[0].id))
            for worker in stack.of(Role.WORKER)
            if worker.running
        }
        images = pool.submit(attempt, lambda: kept.kept_images(world, stack.project.name))
        whose = pool.submit(world.engine.origin, stack.project.name)
        holder = pool.submit(attempt, lambda: engine_lock.holder(world.engine, stack.project.name))
        digests = {service.name: _digest(world, service) for service in stack.services}

    origin = whose.result()
    said: Overview | None = overview.result() if overview else None
    active: Active | None = working.result() if working else None
    judgement: Schema | None = judged.result()
    listed = said.listed if said else None
    problems += [listed.message] if isinstance(listed, EngineError) else []
    if judgement and judgement.status != "ok":
        problems.append(judgement.words)
    databases = asked.result() or {}
    name, seen = attempt(lambda: stack.access.name) or "", attempt(lambda: _backups(world, stack, origin))
    backups: list[Backup] = seen.backups if seen else []
    problems += seen.unusable if seen else []
    sound = [backup for backup in backups if not backup.fault]
    newer = backups[backups.index(sound[-1]) + 1 :] if sound else backups
    problems += [f"Backup {one.id} is not to be relied on. {one.fault}" for one in newer]

    return Status(
        stack=stack,
        digests=digests,
        versions={
            **({stack.api.name: said.version} if said else {}),
            **{worker: version.result() or "" for worker, version in versions.items()},
        },
        health=said.health if said else None,
        schema=judgement,
        jobs=Jobs.of(listed, active) if active and isinstance(listed, Mapping) else None,
        database_size=databases[name].size if name in databases else None,
        kept={other: databases[other].size for other in kept.databases_of_runs(databases, name)},
        kept_images=tuple(images.result() or ()),
        last_backup=sound[-1] if sound else None,
        backups_known=stack.project.here and seen is not None,
        source=attempt(lambda: _source(stack)),
        open_run=attempt(lambda: _open_run(world, stack, origin)),
        working=holder.result(),
        problems=tuple(dict.fromkeys(problems)),
        disks=_disks(world, stack, free.result(), backups),
        last_run=_quietly(lambda: _last_run(stack, origin)),
    )


def _quietly(ask: Callable[[], T]) -> T | None:
    """Return an answer, None where there is none: what makes it impossible is named by another question."""
    with suppress(ChapError):
        return ask()
    return None


def _last_run(stack: Stack, origin: Origin) -> Mapping[str, Any] | None:
    runs = run_records.history(stack.project.directory, origin) if stack.project.here else []
    return runs[-1] if runs else None


def _disks(world: World, stack: Stack, free: int | None, backups: Sequence[Backup]) -> Disks:
    if world.engine.remote or not stack.project.here:
        return Disks(free)
    with suppress(ChapError, OSError):
        folder = catalogue.folder_for(stack, None, world.environment)
        there = next(path for path in (folder, *folder.parents) if path.exists())
        room = shutil.disk_usage(there).free
        mounts = world.engine.mounts(stack.database.containers[0].id)
        data = [source for inside, source in mounts.items() if "postgres" in inside]
        disk = _device(Path(data[0])) if data else None
        shared = bool(backups) and disk is not None and all(_device(backup.folder) == disk for backup in backups)
        return Disks(free, room, shared)
    return Disks(free)


def _device(path: Path) -> int:
    """Return the device that a path lies on. Docker's own folders are closed to most users: the nearest one counts."""
    for place in (path, *path.parents):
        with suppress(OSError):
            return os.stat(place).st_dev
    return -1


def _digest(world: World, service: Service) -> str:
    with suppress(ChapError):
        image = world.engine.image(service.containers[0].image_id)
        if image:
            return next((digest.partition("@")[2] for digest in image.digests), image.id)
    return service.containers[0].image_id


def _source(stack: Stack) -> Source | None:
    found = None if stack.project.absent else checkout.find(stack.project.directory)
    if found is None or not found.holds(stack.project.files[:1]):
        return None
    return Source(str(found.folder), found.head.commit, found.head.branch, found.name)


def _backups(world: World, stack: Stack, origin: Origin) -> catalogue.Listing:
    for file in () if world.engine.remote else stack.project.absent:
        durable.check_readable(file)
    with suppress(StackError):  # beside files that are not here nobody can look
        return catalogue.look(catalogue.folder_for(stack, None, world.environment), origin)
    return catalogue.Listing([], [])


def _open_run(world: World, stack: Stack, origin: Origin) -> Mapping[str, Any] | None:
    if not stack.project.here:
        return None
    journal = run_records.open_run(stack.project.directory, world.clock)
    record = journal.record if journal and origin.owns(Origin.of(journal.record)) else {}
    return {key: value for key, value in record.items() if key != "facts"}
