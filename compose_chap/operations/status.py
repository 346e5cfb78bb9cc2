"""The status of a stack, read with few queries and without changing anything."""

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
class CheckoutFacts:
    """The Git checkout with the Compose files: its folder, its HEAD, and Git's name for the commit."""

    folder: str
    commit: str
    branch: str
    name: str


@dataclass(frozen=True)
class Status:
    """The status of a stack. None where something could not be read; `problems` says why.

    `working` is the run that works on it now, `open_run` the run that has not ended, empty for none: it goes on, or
    was interrupted. `last_run` is the record of the last run that ended.
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
    checkout: CheckoutFacts | None
    open_run: Mapping[str, Any] | None
    working: Mapping[str, str] | None
    detached: Detached | None  # the last detached run
    problems: tuple[str, ...]
    disks: Disks = Disks()
    last_run: Mapping[str, Any] | None = None


def look(world: World, stack: Stack) -> Status:
    """Return the status of a stack. A part that is down is reported, and is no error."""
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

    # Each query starts a program in a container: in parallel, they take as long as the slowest. That is whether CHAP is
    # ready, so it comes first.
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        overview = pool.submit(attempt, chap.overview) if api.running else None
        working = pool.submit(attempt, lambda: chap.active(stack.workers)) if api.running else None
        whose = pool.submit(world.engine.origin, stack.project.name)
        databases_future = pool.submit(attempt, lambda: server_of(world.engine, stack).databases())
        judged = pool.submit(attempt, lambda: schema.of_stack(world, stack))
        versions = {
            worker.name: pool.submit(attempt, lambda item=worker: version_in(world.engine, item.containers[0].id))
            for worker in stack.of(Role.WORKER)
            if worker.running
        }
        images = pool.submit(attempt, lambda: kept.kept_images(world, stack.project.name))
        holder = pool.submit(attempt, lambda: engine_lock.holder(world.engine, stack.project.name))
        checkout_future = pool.submit(attempt, lambda: _checkout(stack))
        digests = {service.name: _digest(world, service) for service in stack.services}
        origin = whose.result()
        listing = attempt(lambda: _backups(world, stack, origin))
        room = pool.submit(disks.look, world, stack, listing.backups if listing else ())
        open_run = attempt(lambda: _open_run(world, stack, origin))

    seen_overview: Overview | None = overview.result() if overview else None
    active: Active | None = working.result() if working else None
    judgement: Schema | None = judged.result()
    listed = seen_overview.listed if seen_overview else None
    problems += [listed.message] if isinstance(listed, EngineError) else []
    if judgement and judgement.status != "ok":
        problems.append(judgement.summary)
    databases = databases_future.result() or {}
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
            **({stack.api.name: seen_overview.version} if seen_overview else {}),
            **{worker: version.result() or "" for worker, version in versions.items()},
        },
        health=seen_overview.health if seen_overview else None,
        schema=judgement,
        jobs=Jobs.of(listed, active) if active and isinstance(listed, Mapping) else None,
        database_size=databases[name].size if name in databases else None,
        kept={other: databases[other].size for other in kept.databases_of_runs(databases, name)},
        kept_images=tuple(images.result() or ()),
        last_backup=sound,
        backups_known=stack.project.local and listing is not None,
        last_test_restore=attempt(lambda: _last_test_restore(stack, origin, listing.backups if listing else ())),
        checkout=checkout_future.result(),
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
    """Return the last backup without a fault, and the faults of newer backups, for people."""
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


def _checkout(stack: Stack) -> CheckoutFacts | None:
    local_checkout = None if stack.project.absent else checkout.find(stack.project.directory)
    if local_checkout is None or not local_checkout.holds(stack.project.files[:1]):
        return None
    return CheckoutFacts(
        str(local_checkout.folder), local_checkout.head.commit, local_checkout.head.branch, local_checkout.name
    )


def _backups(world: World, stack: Stack, origin: Origin) -> catalogue.Listing:
    for file in () if world.engine.remote else stack.project.absent:
        durable.check_readable(file)
    with suppress(StackError):  # the files, and so the backups, are not on this machine
        return catalogue.scan(catalogue.folder_for(stack, None, world.environment), origin)
    return catalogue.Listing([], [])


def _last_test_restore(stack: Stack, origin: Origin, backups: Sequence[Backup]) -> datetime | None:
    """Return when a backup was last restored as a test, even if it was removed since; None for never."""
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
