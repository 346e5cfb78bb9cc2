"""What runs: one look at a stack, asked as little as possible and changing nothing."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from compose_chap import backup, catalogue, checkout, durable, engine_lock, prune, screen, state, units
from compose_chap.catalogue import Backup
from compose_chap.change import KEPT_IMAGES, kept_images
from compose_chap.chap import Active, Chap, Health, Jobs, Overview, Schema, version_in
from compose_chap.errors import ChapError, EngineError, StackError
from compose_chap.stack import Origin, Role, Service, Stack
from compose_chap.world import World


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
    """Return what there is to see of a stack. A part that is down is told of, and is no error."""
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
        inspection = pool.submit(attempt, lambda: chap.inspection(stack.workers)) if api.running else None
        asked = pool.submit(attempt, lambda: backup.server_of(world.engine, stack).databases())
        versions = {
            worker.name: pool.submit(attempt, lambda one=worker: version_in(world.engine, one.containers[0].id))
            for worker in stack.of(Role.WORKER) if worker.running
        }
        images = pool.submit(attempt, lambda: kept_images(world, stack.project.name))
        whose = pool.submit(world.engine.origin, stack.project.name)
        holder = pool.submit(attempt, lambda: engine_lock.holder(world.engine, stack.project.name))
        digests = {service.name: _digest(world, service) for service in stack.services}

    origin = whose.result()
    said: Overview | None = overview.result() if overview else None
    schema, active = (inspection.result() if inspection else None) or (None, None)
    problems += [one.message for one in (schema, active) if isinstance(one, EngineError)]
    databases = asked.result() or {}
    name, seen = attempt(lambda: stack.access.name) or "", attempt(lambda: _backups(world, stack, origin))
    backups: list[Backup] = seen or []
    sound = [one for one in backups if not one.fault]
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
        schema=schema if isinstance(schema, Schema) else None,
        jobs=Jobs.of(said.listed, active) if said and isinstance(active, Active) else None,
        database_size=databases[name].size if name in databases else None,
        kept={
            other: database.size
            for other, database in databases.items()
            if other.startswith(name[:20]) and other != name
            and ("_before_" in other or "_after_" in other or "_incoming_" in other)
        },
        kept_images=tuple(images.result() or ()),
        last_backup=sound[-1] if sound else None,
        backups_known=stack.project.here and seen is not None,
        source=attempt(lambda: _source(stack)),
        open_run=attempt(lambda: _open_run(stack, origin)),
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
    return Source(str(found.folder), found.place.commit, found.place.branch, found.name)


def _backups(world: World, stack: Stack, origin: Origin) -> list[Backup]:
    for file in () if world.engine.elsewhere else stack.project.absent:
        durable.check_readable(file)
    with suppress(StackError):  # beside files that are not here nobody can look
        return catalogue.list_backups(catalogue.folder_for(stack, None, world.environment), origin)
    return []


def _open_run(stack: Stack, origin: Origin) -> Mapping[str, Any] | None:
    if not stack.project.here:
        return None
    journal = state.open_run(stack.project.directory, screen.now)
    record = journal.record if journal and origin.owns(Origin.of(journal.record)) else {}
    return {key: value for key, value in record.items() if key != "facts"}


def to_json(seen: Status) -> dict[str, Any]:
    """Return a status for scripts."""
    stack = seen.stack
    return {
        "project": {
            "name": stack.project.name,
            "directory": str(stack.project.directory),
            "files": [str(file) for file in stack.project.files],
            "absent": [str(file) for file in stack.project.absent],
        },
        "services": [
            {
                "name": service.name,
                "role": service.role.value,
                "image": str(service.image),
                "digest": seen.digests[service.name],
                "version": seen.versions.get(service.name, ""),
                "containers": [
                    {fact: getattr(one, fact) for fact in ("name", "id", "state", "health", "exit_status")}
                    for one in service.containers
                ],
            }
            for service in stack.services
        ],
        "health": {"level": seen.health.level, "checks": dict(seen.health.checks)} if seen.health else None,
        "schema": {**asdict(seen.schema), "verdict": seen.schema.verdict} if seen.schema else None,
        "jobs": asdict(seen.jobs) if seen.jobs else None,
        "database": {"name": _access_name(stack), "size": seen.database_size, "kept": dict(seen.kept)},
        "kept_images": list(seen.kept_images),
        "last_backup": _backup(seen.last_backup),
        "backups_known": seen.backups_known,
        "checkout": asdict(seen.source) if seen.source else None,
        "open_run": seen.open_run or None,
        "working": seen.working,
        "problems": list(seen.problems),
    }


def _access_name(stack: Stack) -> str:
    with suppress(ChapError):
        return stack.access.name
    return ""


def _backup(last: Backup | None) -> dict[str, Any] | None:
    if last is None:
        return None
    return {
        "id": last.id,
        "folder": str(last.folder),
        "size": last.size,
        "created_at": last.manifest["created_at"],
        "proven_at": last.proof.at.isoformat(),
        "proven_by": last.proof.how,
        "age_seconds": int((screen.now() - last.created_at).total_seconds()),
        "chap_version": last.manifest["chap"]["version"],
    }


def text(seen: Status, now: datetime) -> str:
    """Return a status for people."""
    stack = seen.stack
    facts = [
        ("Project", stack.project.name),
        ("Files", ", ".join(map(str, stack.project.files)) + _not_here(stack)),
        *([("Checkout", _said_of(seen.source))] if seen.source else []),
        ("Health", _health(seen)),
        ("Schema", seen.schema.verdict if seen.schema else "not known"),
        ("Jobs", _jobs(seen.jobs)),
        ("Database", _database(seen)),
        ("Last backup", _last_backup(seen, now)),
    ]
    rows = [
        [service.name, service.role.value, _state(service), seen.versions.get(service.name, ""), str(service.image)]
        for service in sorted(stack.services, key=lambda one: (list(Role).index(one.role), one.name))
    ]
    parts = [screen.facts(facts), screen.table(rows, ["SERVICE", "ROLE", "STATE", "VERSION", "IMAGE"])]
    if seen.kept:
        kept = [[name, units.size(bytes_), _age_of(name, now)] for name, bytes_ in seen.kept.items()]
        parts.append("Kept databases\n" + screen.table(kept))
    if seen.kept_images:
        parts.append("Kept images\n" + screen.table([[f"{KEPT_IMAGES}:{tag}"] for tag in seen.kept_images]))
    if seen.working:
        parts.append(
            f"At work now: {seen.working['operation']} by {seen.working['by']},"
            f" since {units.moment(seen.working['since'])}."
        )
    elif seen.open_run:
        steps = seen.open_run["steps"]
        reached = steps[-1]["step"] if steps else "start"
        parts.append(
            f"The {seen.open_run['operation']} was cut off at step '{reached}'. Finish or undo it: docker chap recover"
        )
    if seen.problems:
        parts.append("Problems\n" + "\n".join(f"  {problem}" for problem in seen.problems))
    return "\n\n".join(parts)


def _age_of(database: str, now: datetime) -> str:
    since = prune.kept_since(database)
    return units.age(since, now) if since else ""


def _health(seen: Status) -> str:
    return seen.health.words if seen.health else "not running"


def _said_of(source: Source) -> str:
    branch = source.branch.removeprefix("refs/heads/")
    return f"{source.name}, commit {source.commit[:12]}" + (f", branch {branch}" if branch else "")


def _jobs(jobs: Jobs | None) -> str:
    if jobs is None:
        return "not known"
    said = f"{len(jobs.running)} running, {len(jobs.waiting)} waiting"
    return said + (f", {len(jobs.zombies)} dead but listed as running" if jobs.zombies else "")


def _database(seen: Status) -> str:
    size = units.size(seen.database_size) if seen.database_size is not None else "not reached"
    return ", ".join(filter(None, (_access_name(seen.stack), size)))


def _not_here(stack: Stack) -> str:
    if stack.project.here:
        return f" (not here: {', '.join(map(str, stack.project.absent))})" if stack.project.absent else ""
    return " (not on this machine, nor are the records and backups beside them)"


def _last_backup(seen: Status, now: datetime) -> str:
    last = seen.last_backup
    if last is None:
        return "none" if seen.backups_known else "not known"
    made = f"{last.id}, made {units.moment(last.created_at)} ({units.age(last.created_at, now)})"
    return f"{made}, {units.size(last.size)}, {last.proof.how} {units.age(last.proof.at, now)}"


def _state(service: Service) -> str:
    one = service.containers[0]
    if not one.running:
        return f"{one.state} ({one.exit_status})"
    count = f" x{len(service.containers)}" if len(service.containers) > 1 else ""
    return (f"running ({one.health})" if one.health else "running") + count
