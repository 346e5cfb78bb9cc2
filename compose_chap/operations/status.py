"""The status of a stack, read with few queries and without changing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from compose_chap.backups import catalogue
from compose_chap.backups.catalogue import Backup
from compose_chap.backups.verdict import RESTORED
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, EngineError, StackError
from compose_chap.model import Origin, Role, Service, Stack
from compose_chap.operations import disks
from compose_chap.operations.disks import Disks
from compose_chap.postgres.server import Database
from compose_chap.project import checkout
from compose_chap.records import audit, detached, engine_lock, order, run_records
from compose_chap.records.detached import Detached
from compose_chap.records.files import durable
from compose_chap.records.retention import Retention
from compose_chap.schedule import routine
from compose_chap.schedule.folders import all_folders
from compose_chap.schedule.routine import Routine
from compose_chap.stack import schema
from compose_chap.stack.chap import Active, Chap, Health, Jobs, Overview, version_in
from compose_chap.stack.databases import server_of
from compose_chap.stack.schema import Schema
from compose_chap.transaction.run import kept

T = TypeVar("T")

_SIDE_BY_SIDE = 16
_AGE = timedelta(days=Retention.databases_days)


@dataclass(frozen=True)
class CheckoutStatus:
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
    undecided: tuple[str, ...]  # of these, the old ones that only a person removes
    kept_images: tuple[str, ...]
    last_backup: Backup | None  # the last sound one
    backups_known: bool
    last_test_restore: datetime | None
    checkout: CheckoutStatus | None
    open_run: Mapping[str, Any] | None
    working: Mapping[str, str] | None
    detached: Detached | None  # the last detached run
    problems: tuple[str, ...]
    disks: Disks = Disks()
    last_run: Mapping[str, Any] | None = None
    routine: Routine = Routine()


@dataclass(frozen=True)
class _Running:
    """What the engine and the containers answer; None where they do not."""

    overview: Overview | None
    active: Active | None
    schema: Schema | None
    databases: Mapping[str, Database]
    worker_versions: Mapping[str, str]
    digests: Mapping[str, str]
    kept_images: tuple[str, ...]
    holder: Mapping[str, str] | None


@dataclass(frozen=True)
class _Recorded:
    """What the files beside the stack say; None where they cannot be read."""

    listing: catalogue.Listing | None
    last_test_restore: datetime | None
    checkout: CheckoutStatus | None
    open_run: Mapping[str, Any] | None
    history: tuple[dict[str, Any], ...]
    detached: Detached | None
    disks: Disks
    routine: Routine


class _Attempts:
    """Questions that are asked in parallel. An answer that is missing is None, and `problems` says why."""

    def __init__(self, pool: Executor) -> None:
        self.problems: list[str] = []
        self._pool = pool

    def ask(self, question: Callable[[], T]) -> T | None:
        """Return the answer."""
        try:
            return question()
        except ChapError as error:
            self.problems.append(error.message)
            return None

    def begin(self, question: Callable[[], T]) -> Future[T | None]:
        """Begin to ask, and return at once."""
        return self._pool.submit(self.ask, question)


def look(world: World, stack: Stack, overview: Future[Overview] | None = None) -> Status:
    """Return the status of a stack. A part that is down is reported, and is no error.

    `overview` is what CHAP's API is being asked already.
    """
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        attempts = _Attempts(pool)
        attempts.problems += _not_running(stack)
        answers = pool.submit(_look_at_containers, world, stack, attempts, overview)
        recorded = _look_at_records(world, stack, attempts)
        running = answers.result()
    name = attempts.ask(lambda: stack.access.name) or ""
    listing = recorded.listing or catalogue.Listing([], [])
    seen, databases = running.overview, running.databases
    listed = seen.listed if seen else None
    problems = [*attempts.problems, *_problems(world, running, recorded, name)]
    return Status(
        stack=stack,
        digests=running.digests,
        versions={**({stack.api.name: seen.version} if seen else {}), **running.worker_versions},
        health=seen.health if seen else None,
        schema=running.schema,
        jobs=Jobs.of(listed, running.active) if running.active and isinstance(listed, Mapping) else None,
        database_size=databases[name].size if name in databases else None,
        kept={other: databases[other].size for other in kept.databases_of_runs(databases, name)},
        undecided=tuple(
            kept.undecided(databases, name, recorded.history, _AGE, world.clock()) if stack.project.local else ()
        ),
        kept_images=running.kept_images,
        last_backup=listing.last_sound,
        backups_known=stack.project.local and recorded.listing is not None,
        last_test_restore=recorded.last_test_restore,
        checkout=recorded.checkout,
        open_run=recorded.open_run,
        working=running.holder,
        detached=recorded.detached,
        problems=tuple(dict.fromkeys(problems)),
        disks=recorded.disks,
        last_run=next(reversed(recorded.history), None),
        routine=recorded.routine,
    )


def _look_at_containers(world: World, stack: Stack, attempts: _Attempts, asked: Future[Overview] | None) -> _Running:
    api, engine = stack.api.containers[0], world.engine
    chap = Chap(engine, api.id)
    # Each question starts a program in a container: in parallel, they take as long as the slowest. That is whether CHAP
    # is ready, so it comes first.
    overview = attempts.begin(asked.result if asked else chap.overview) if api.running else None
    active = attempts.begin(lambda: chap.active(stack.workers)) if api.running else None
    databases = attempts.begin(lambda: server_of(engine, stack).databases())
    judged = attempts.begin(lambda: schema.of_stack(world, stack))
    versions = {
        worker.name: attempts.begin(partial(version_in, engine, worker.containers[0].id))
        for worker in stack.of(Role.WORKER)
        if worker.running
    }
    images = attempts.begin(lambda: kept.kept_images(world, stack.project.name))
    holder = attempts.begin(lambda: engine_lock.holder(engine, stack.project.name))
    return _Running(
        digests={service.name: _digest(world, service) for service in stack.services},
        overview=overview.result() if overview else None,
        active=active.result() if active else None,
        schema=judged.result(),
        databases=databases.result() or {},
        worker_versions={worker: version.result() or "" for worker, version in versions.items()},
        kept_images=tuple(images.result() or ()),
        holder=holder.result(),
    )


def _look_at_records(world: World, stack: Stack, attempts: _Attempts) -> _Recorded:
    checkout_status = attempts.begin(lambda: _checkout(stack))
    directory, origin = stack.project.directory, world.engine.origin(stack.project.name)
    listing = attempts.ask(lambda: _backups(world, stack, origin))
    backups = listing.backups if listing else []
    room = attempts.begin(lambda: disks.look(world, stack, backups))

    def read(question: Callable[[], T | None]) -> T | None:
        return attempts.ask(question) if stack.project.local else None

    return _Recorded(
        listing=listing,
        open_run=read(lambda: _open_run(world, directory, origin)),
        last_test_restore=read(lambda: _last_test_restore(directory, origin, backups)),
        history=tuple(read(lambda: run_records.history(directory, origin)) or ()),
        detached=read(lambda: next(reversed(detached.runs(directory)), None)),
        checkout=checkout_status.result(),
        disks=room.result() or Disks(),
        routine=read(lambda: routine.look(directory, origin, world.clock())) or Routine(),
    )


def _not_running(stack: Stack) -> Iterator[str]:
    # What asks the database says that of its container.
    for service in stack.services:
        if kind := {Role.API: "API", Role.WORKER: "worker", Role.BROKER: "broker"}.get(service.role):
            for container in service.containers:
                if not container.running:
                    yield f"The {kind} container {container.name} is not running (it is {container.state})."


def _problems(world: World, running: _Running, recorded: _Recorded, database: str) -> Iterator[str]:
    """Yield what is wrong, though every question was answered."""
    if running.overview and isinstance(running.overview.listed, EngineError):
        yield running.overview.listed.message
    yield from recorded.disks.low
    yield from recorded.routine.problems
    if running.schema and running.schema.status != "ok":
        yield running.schema.summary
    if recorded.listing:
        yield from recorded.listing.unusable
        yield from (backup.warning for backup in recorded.listing.newer_faulty)
        made = {backup.id: backup.created_at for backup in recorded.listing.backups}
        yield from order.warnings("Backup", made, world.clock())
    yield from kept.dated_ahead(running.databases, database, world.clock())


def _digest(world: World, service: Service) -> str:
    with suppress(ChapError):
        image = world.engine.image(service.containers[0].image_id)
        if image:
            return next((digest.partition("@")[2] for digest in image.digests), image.id)
    return service.containers[0].image_id


def _checkout(stack: Stack) -> CheckoutStatus | None:
    local_checkout = None if stack.project.absent else checkout.find(stack.project.directory)
    if local_checkout is None or not local_checkout.holds(stack.project.files[:1]):
        return None
    return CheckoutStatus(
        str(local_checkout.folder), local_checkout.head.commit, local_checkout.head.branch, local_checkout.name
    )


def _backups(world: World, stack: Stack, origin: Origin) -> catalogue.Listing:
    for file in () if world.engine.remote else stack.project.absent:
        durable.check_readable(file)
    if not stack.project.local:  # the files, and so the backups, are not on this machine
        with suppress(StackError):
            return catalogue.scan(all_folders(stack, None, world.environment), origin)
        return catalogue.Listing([], [])
    return catalogue.scan(all_folders(stack, None, world.environment), origin)


def _last_test_restore(directory: Path, origin: Origin, backups: Sequence[Backup]) -> datetime | None:
    """Return when a backup was last restored as a test, even if it was removed since; None for never."""
    proofs = [
        entry.ended_at
        for entry in audit.entries(directory, origin)
        if entry.operation == "verify" and entry.result == audit.DONE and entry.facts.get("proof") == RESTORED
    ]
    dates = [*proofs, *(backup.proof.restored_at for backup in backups)]
    return max(filter(None, dates), default=None)


def _open_run(world: World, directory: Path, origin: Origin) -> Mapping[str, Any] | None:
    journal = run_records.open_run(directory, world.clock)
    record = journal.record if journal and origin.owns(Origin.of(journal.record)) else {}
    return {key: value for key, value in record.items() if key != "facts"}
