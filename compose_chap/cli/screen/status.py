"""A status as text for people and as a document for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from compose_chap import units
from compose_chap.cli.screen import render
from compose_chap.errors import ChapError
from compose_chap.model import Role, Service, Stack

# The first lines are on the screen before this is needed.
if TYPE_CHECKING:
    from compose_chap.backups.catalogue import Backup
    from compose_chap.operations.status import Source, Status
    from compose_chap.stack.chap import Jobs

_ASKED = ("Health", "Schema", "Jobs", "Database", "Last backup")


def status_document(seen: Status, now: datetime) -> dict[str, Any]:
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
                    {fact: getattr(container, fact) for fact in ("name", "id", "state", "health", "exit_status")}
                    for container in service.containers
                ],
            }
            for service in stack.services
        ],
        "health": {"level": seen.health.level, "checks": dict(seen.health.checks)} if seen.health else None,
        "schema": seen.schema.to_json() if seen.schema else None,
        "jobs": asdict(seen.jobs) if seen.jobs else None,
        "database": {"name": _access_name(stack), "size": seen.database_size, "kept": dict(seen.kept)},
        "kept_images": list(seen.kept_images),
        "last_backup": _backup(seen.last_backup, now),
        "last_test_restore": seen.last_test_restore.isoformat() if seen.last_test_restore else None,
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


def _backup(last: Backup | None, now: datetime) -> dict[str, Any] | None:
    if last is None:
        return None
    return {
        "id": last.id,
        "folder": str(last.folder),
        "size": last.size,
        "created_at": last.created_at.isoformat(),
        "proven_at": last.proof.best_at.isoformat(),
        "proven_by": last.proof.best,
        "read_back_at": last.proof.at.isoformat(),
        "age_seconds": None if units.ahead(last.created_at, now) else int((now - last.created_at).total_seconds()),
        "chap_version": last.manifest.chap.version,
    }


def first_text(stack: Stack) -> str:
    """Return what the containers alone say, for people who wait for the rest."""
    facts = [("Project", stack.project.name), ("Files", _files(stack)), *((name, "…") for name in _ASKED)]
    return "\n\n".join([render.facts(facts), _services(stack, {})])


def status_text(seen: Status, now: datetime) -> str:
    """Return a status for people."""
    from compose_chap.transaction.run import kept

    stack = seen.stack
    facts = [
        ("Project", stack.project.name),
        ("Files", _files(stack)),
        *([("Checkout", _said_of(seen.source))] if seen.source else []),
        ("Health", _health(seen)),
        ("Schema", seen.schema.verdict if seen.schema else "not known"),
        ("Jobs", _jobs(seen.jobs)),
        ("Database", _database(seen)),
        ("Last backup", _last_backup(seen, now)),
    ]
    parts = [render.facts(facts), _services(stack, seen.versions)]
    if seen.kept:
        live = _access_name(stack) or ""
        rows = [[name, units.size(bytes_), _age_of(name, live, now)] for name, bytes_ in seen.kept.items()]
        parts.append("Kept databases\n" + render.table(rows))
    if seen.kept_images:
        parts.append("Kept images\n" + render.table([[f"{kept.KEPT_IMAGES}:{tag}"] for tag in seen.kept_images]))
    if seen.working:
        parts.append(
            f"At work now: {seen.working['operation']} by {seen.working['by']},"
            f" since {units.moment(seen.working['since']) if seen.working['since'] else 'an unknown time'}."
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


def _services(stack: Stack, versions: Mapping[str, str]) -> str:
    rows = [
        [service.name, service.role.value, _state(service), versions.get(service.name, ""), str(service.image)]
        for service in sorted(stack.services, key=lambda service: (list(Role).index(service.role), service.name))
    ]
    return render.table(rows, ["SERVICE", "ROLE", "STATE", "VERSION", "IMAGE"])


def _age_of(database: str, live: str, now: datetime) -> str:
    from compose_chap.transaction.run import kept

    since = kept.kept_since(database, live)
    return units.age(since, now) if since else ""


def _health(seen: Status) -> str:
    return seen.health.summary if seen.health else "not running"


def _said_of(source: Source) -> str:
    branch = source.branch.removeprefix("refs/heads/")
    return f"{source.name}, commit {source.commit[:12]}" + (f", branch {branch}" if branch else "")


def _jobs(jobs: Jobs | None) -> str:
    if jobs is None:
        return "not known"
    said = f"{len(jobs.running)} running, {len(jobs.waiting)} waiting"
    said += f", {len(jobs.zombies)} dead but listed as running" if jobs.zombies else ""
    return said + (f", {len(jobs.own)} queued by CHAP itself" if jobs.own else "")


def _database(seen: Status) -> str:
    size = units.size(seen.database_size) if seen.database_size is not None else "not reached"
    return ", ".join(filter(None, (_access_name(seen.stack), size)))


def _files(stack: Stack) -> str:
    return ", ".join(map(str, stack.project.files)) + _not_here(stack)


def _not_here(stack: Stack) -> str:
    if stack.project.local:
        return f" (not here: {', '.join(map(str, stack.project.absent))})" if stack.project.absent else ""
    return " (not on this machine, nor are the records and backups beside them)"


def _last_backup(seen: Status, now: datetime) -> str:
    last = seen.last_backup
    if last is None:
        return "none" if seen.backups_known else "not known"
    made = f"{last.id}, made {units.moment(last.created_at)} ({units.age(last.created_at, now)})"
    return f"{made}, {units.size(last.size)}, {last.proof.best} {units.age(last.proof.best_at, now)}"


def _state(service: Service) -> str:
    one = service.containers[0]
    if not one.running:
        return f"{one.state} ({one.exit_status})"
    count = f" x{len(service.containers)}" if len(service.containers) > 1 else ""
    return (f"running ({one.health})" if one.health else "running") + count
