"""What runs: one look at a stack, asked as little as possible and changing nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from compose_chap.backups import catalogue
from compose_chap.backups.catalogue import Backup
from compose_chap.backups.verdict import RESTORED
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, EngineError, StackError
from compose_chap.model import Origin, Role, Service, Stack
from compose_chap.operations import disks
from compose_chap.operations.disks import Disks
from compose_chap.project import checkout
from compose_chap.records import audit, detached, durable, engine_lock, order, run_records
from compose_chap.records.detached import Detached
from compose_chap.stack import schema
from compose_chap.stack.chap import Active, Chap, Health, Jobs, Overview, version_in
from compose_chap.stack.databases import server_of
from compose_chap.stack.schema import Schema
from compose_chap.transaction.run import kept

_SIDE_BY_SIDE = 16


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
    last_test_restore: datetime | None
    source: Source | None
    open_run: Mapping[str, Any] | None
    working: Mapping[str, str] | None
    detached: Detached | None  # the last run that was begun apart
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
        problems.append(f"The API container {api.name} is not running (it is {api.state}).")

    # Each question waits for a program in a container: asked side by side, they take as long as the slowest. That is
    # whether CHAP is ready, so it is asked first.
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        overview = pool.submit(attempt, chap.overview) if api.running else None
        working = pool.submit(attempt, lambda: chap.active(stack.workers)) if api.running else None
        whose = pool.submit(world.engine.origin, stack.project.name)
        asked = pool.submit(attempt, lambda: server_of(world.engine, stack).databases())
        judged = pool.submit(attempt, lambda: schema.of_stack(world, stack))
        versions = {
            worker.name: pool.submit(attempt, lambda item=worker: version_in(world.engine, item.containers[0].id))
            for worker in stack.of(Role.WORKER)
            if worker.running
        }
        images = pool.submit(attempt, lambda: kept.kept_images(world, stack.project.name))
        holder = pool.submit(attempt, lambda: engine_lock.holder(world.engine, stack.project.name))
        source = pool.submit(attempt, lambda: _source(stack))
        digests = {service.name: _digest(world, service) for service in stack.services}
        origin = whose.result()
        listing = attempt(lambda: _backups(world, stack, origin))
        room = pool.submit(disks.look, world, stack, listing.backups if listing else ())
        open_run = attempt(lambda: _open_run(world, stack, origin))

    said: Overview | None = overview.result() if overview else None
    active: Active | None = working.result() if working else None
    judgement: Schema | None = judged.result()
    listed = said.listed if said else None
    problems += [listed.message] if isinstance(listed, EngineError) else []
    if judgement and judgement.status != "ok":
        problems.append(judgement.summary)
    databases = asked.result() or {}
    name = attempt(lambda: stack.access.name) or ""
    sound, faults = _last_sound(listing)
    problems += faults
    made = {backup.id: backup.created_at for backup in listing.backups} if listing else {}
    problems += order.warnings("Backup", made, world.clock())
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
        last_backup=sound,
        backups_known=stack.project.local and listing is not None,
        last_test_restore=attempt(lambda: _last_test_restore(stack, origin, listing.backups if listing else ())),
        source=source.result(),
        open_run=open_run,
        working=holder.result(),
        detached=attempt(lambda: _detached(stack)),
        problems=tuple(dict.fromkeys(problems)),
        disks=room.result(),
        last_run=attempt(lambda: _last_run(stack, origin)),
    )


def _last_run(stack: Stack, origin: Origin) -> Mapping[str, Any] | None:
    runs = run_records.history(stack.project.directory, origin) if stack.project.local else []
    return runs[-1] if runs else None


def _last_sound(listing: catalogue.Listing | None) -> tuple[Backup | None, list[str]]:
    """Return the last backup without a fault, and what is wrong with those that are newer, in words."""
    if listing is None:
        return None, []
    sound = [backup for backup in listing.backups if not backup.fault]
    newer = listing.backups[listing.backups.index(sound[-1]) + 1 :] if sound else listing.backups
    faults = [f"Backup {backup.id} cannot be relied on. {backup.fault}" for backup in newer]
    return (sound[-1] if sound else None), [*listing.unusable, *faults]


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
        return catalogue.scan(catalogue.folder_for(stack, None, world.environment), origin)
    return catalogue.Listing([], [])


def _last_test_restore(stack: Stack, origin: Origin, backups: Sequence[Backup]) -> datetime | None:
    """Return when a backup of a stack was last restored as a test, also one that was removed since; None for never."""
    trail = audit.entries(stack.project.directory, origin) if stack.project.local else []
    proofs = [
        entry.ended_at
        for entry in trail
        if entry.operation == "verify" and entry.result == audit.DONE and entry.facts.get("proof") == RESTORED
    ]
    dates = [*proofs, *(backup.proof.restored_at for backup in backups)]
    return max(filter(None, dates), default=None)


def _detached(stack: Stack) -> Detached | None:
    return next(reversed(detached.runs(stack.project.directory)), None) if stack.project.local else None


def _open_run(world: World, stack: Stack, origin: Origin) -> Mapping[str, Any] | None:
    if not stack.project.local:
        return None
    journal = run_records.open_run(stack.project.directory, world.clock)
    record = journal.record if journal and origin.owns(Origin.of(journal.record)) else {}
    return {key: value for key, value in record.items() if key != "facts"}
