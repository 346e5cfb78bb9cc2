"""What runs: one look at a stack, asked as little as possible and changing nothing."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from compose_chap.backups import catalogue
from compose_chap.backups.catalogue import Backup
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, EngineError, StackError
from compose_chap.model import Origin, Role, Service, Stack
from compose_chap.project import checkout
from compose_chap.records import durable, engine_lock, order, run_records
from compose_chap.stack import schema
from compose_chap.stack.chap import Active, Chap, Health, Jobs, Overview, version_in
from compose_chap.stack.databases import server_of
from compose_chap.stack.schema import Schema
from compose_chap.transaction import kept


@dataclass(frozen=True)
class Source:
    """The Git checkout that the Compose files lie in: its folder, where it stands, and what Git calls that."""

    folder: str
    commit: str
    branch: str
    name: str


@dataclass(frozen=True)
class Status:
    """What was seen of a stack. None where something could not be asked; `problems` says why.

    `working` is who works on it now, `open_run` the run that has not ended, empty for none: it goes on, or was cut off.
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
        problems.append(judgement.summary)
    databases = asked.result() or {}
    name, seen = attempt(lambda: stack.access.name) or "", attempt(lambda: _backups(world, stack, origin))
    backups: list[Backup] = seen.backups if seen else []
    problems += seen.unusable if seen else []
    sound = [backup for backup in backups if not backup.fault]
    newer = backups[backups.index(sound[-1]) + 1 :] if sound else backups
    problems += [f"Backup {one.id} is not to be relied on. {one.fault}" for one in newer]
    problems += order.warnings("Backup", {one.id: one.created_at for one in backups}, world.clock())
    problems += kept.dated_ahead(databases, name, world.clock())

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
        backups_known=stack.project.local and seen is not None,
        source=attempt(lambda: _source(stack)),
        open_run=attempt(lambda: _open_run(world, stack, origin)),
        working=holder.result(),
        problems=tuple(dict.fromkeys(problems)),
    )


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
    if not stack.project.local:
        return None
    journal = run_records.open_run(stack.project.directory, world.clock)
    record = journal.record if journal and origin.owns(Origin.of(journal.record)) else {}
    return {key: value for key, value in record.items() if key != "facts"}
