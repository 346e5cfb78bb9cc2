"""A status as text for people and as a document for scripts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from compose_chap import units
from compose_chap.cli.screen import sentences
from compose_chap.cli.screen.databases import set_aside_text
from compose_chap.cli.screen.detached import detached_text, is_news
from compose_chap.cli.screen.layout import NARROW, cells, facts, hanging, paragraph, table, width_of
from compose_chap.errors import ChapError
from compose_chap.model import Role, Service, Stack
from compose_chap.records.steps import reached

# The first lines are on the screen before this is needed.
if TYPE_CHECKING:
    from compose_chap.backups.catalogue import Backup
    from compose_chap.operations.status import CheckoutStatus, Status
    from compose_chap.schedule.routine import Routine
    from compose_chap.stack.chap import Jobs


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
        "database": {
            "name": _access_name(stack),
            "size": seen.database_size,
            "kept": dict(seen.kept),
            "undecided": list(seen.undecided),
        },
        "kept_images": list(seen.kept_images),
        "last_backup": _backup(seen.last_backup, now),
        "last_test_restore": seen.last_test_restore.isoformat() if seen.last_test_restore else None,
        "last_copy": _iso(seen.routine.last_copy),
        "last_drill": _iso(seen.routine.last_drill),
        "next_run": _iso(seen.routine.next_run),
        "backups_known": seen.backups_known,
        "checkout": asdict(seen.checkout) if seen.checkout else None,
        "open_run": seen.open_run or None,
        "working": seen.working,
        "detached": seen.detached.to_json() if seen.detached else None,
        "problems": list(seen.problems),
        "addresses": addresses(stack),
        "disks": asdict(seen.disks),
        "last_run": _last_run_document(seen),
    }


def _iso(when: datetime | None) -> str | None:
    return when.isoformat() if when else None


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


def containers_text(stack: Stack) -> str:
    """Return what is known at once: the project, and how each of its services runs."""
    services = sorted(stack.services, key=lambda service: (list(Role).index(service.role), service.name))
    ended = [service for service in services if service.role is Role.OTHER and _ended_well(service)]
    rows = [[service.name, service.role.value, _state(service)] for service in services if service not in ended]
    images = [str(service.image) for service in services if service not in ended]
    text = _fitting(rows, images, [service.image.name for service in services if service not in ended])
    if ended:
        names = ", ".join(service.name for service in ended)
        text += "\n" + paragraph(f"Finished, as expected: {names}.")
    return f"{facts([('Project', stack.project.name)])}\n\n{text}"


def _fitting(rows: list[list[str]], images: list[str], names: list[str]) -> str:
    """Return the table with whole image references where these fit, else with their names and tags."""
    head = ["SERVICE", "ROLE", "STATE", "IMAGE"]
    wide = [[*row, image] for row, image in zip(rows, images)]
    columns = width_of(sys.stdout)
    left = sum(max(map(cells, column)) + 2 for column in zip(head[:3], *rows))
    if not columns or left + max(map(cells, images), default=0) <= columns:
        return table(wide, head)
    names = [f"{name}:{image.rpartition(':')[2]}" if ":" in image else name for name, image in zip(names, images)]
    if columns < NARROW:
        narrow = [[name, state, f"{role}, {image}"] for (name, role, state), image in zip(rows, names)]
        return table(narrow, ["SERVICE", "STATE", "ROLE, IMAGE"])
    return table([[*row, image] for row, image in zip(rows, names)], head)


def _ended_well(service: Service) -> bool:
    return all(container.state == "exited" and container.exit_status == 0 for container in service.containers)


def status_text(seen: Status, now: datetime) -> str:
    """Return what has to be asked for, for people: how CHAP and its data are, and what was done last."""
    from compose_chap.transaction.run import kept

    stack = seen.stack
    known = [
        ("Files", _files(stack)),
        *([("Checkout", _checkout_text(seen.checkout))] if seen.checkout else []),
        ("Version", _versions(seen)),
        ("Address", ", ".join(addresses(stack)) or "not published on this machine"),
        ("Health", _health(seen)),
        ("Schema", seen.schema.verdict if seen.schema else "not known"),
        ("Jobs", _jobs(seen.jobs)),
        ("Database", _database(seen)),
        ("Free space", _free(seen)),
        ("Last run", _last_run(seen, now)),
        ("Last backup", _last_backup(seen, now)),
        *_routine(seen.routine, now),
    ]
    parts = [facts(known)]
    if seen.kept:
        live = _access_name(stack) or ""
        rows = [[name, units.size(bytes_), _age_of(name, live, now)] for name, bytes_ in seen.kept.items()]
        parts.append("Kept databases\n" + table(rows))
        parts += [paragraph(set_aside_text(name, units.size(seen.kept[name]))) for name in seen.undecided]
    if seen.kept_images:
        parts.append("Kept images\n" + table([[f"{kept.KEPT_IMAGES}:{tag}"] for tag in seen.kept_images]))
    if seen.working:
        since = units.moment(seen.working["since"]) if seen.working["since"] else "an unknown time"
        parts.append(f"Running now: {seen.working['operation']} by {seen.working['by']}, since {since}.")
    elif seen.open_run:
        where = reached([step["step"] for step in seen.open_run["steps"]])
        cut_off = f"The {seen.open_run['operation']} was cut off {where}. Finish or undo it:"
        parts.append(f"{paragraph(cut_off)}\n  docker chap recover")
    if seen.disks.shared:
        parts.append(paragraph(sentences.warning(sentences.SAME_DISK)) + "\n  docker chap backup -o FOLDER")
    if seen.detached and is_news(seen.detached, now):
        parts.append(detached_text(seen.detached))
    if seen.problems:
        parts.append(
            "Problems\n" + "\n".join(f"  {hanging(problem, 2, width_of(sys.stdout))}" for problem in seen.problems)
        )
    return "\n\n".join(parts)


def addresses(stack: Stack) -> list[str]:
    """Return where the API is reached on the engine's machine."""
    return [f"http://{address}" for container in stack.api.containers for address in container.published]


def _versions(seen: Status) -> str:
    api, *workers = (seen.versions.get(service.name, "") or "unknown" for service in seen.stack.writers)
    return f"{api} (API), {', '.join(dict.fromkeys(workers))} (worker)" if workers else f"{api} (API)"


def _free(seen: Status) -> str:
    disks = seen.disks
    parts = [f"{units.size(disks.database_free)} for the database"] if disks.database_free is not None else []
    parts += [f"{units.size(disks.backups_free)} for backups"] if disks.backups_free is not None else []
    return ", ".join(parts) or "not known"


def _last_run(seen: Status, now: datetime) -> str:
    if not seen.last_run:
        return "none" if seen.stack.project.local else "not known"
    run = seen.last_run
    began = datetime.fromisoformat(run["started_at"])
    to = f" to {run['to'].removeprefix('v')}" if run.get("to") and run["operation"] == "upgrade" else ""
    return f"{run['operation']}{to}: {run['result']}, {units.moment(began)} ({units.age(began, now)}), by {run['by']}"


def _last_run_document(seen: Status) -> dict[str, Any] | None:
    names = ("id", "operation", "result", "started_at", "by", "from", "to")
    return {name: seen.last_run.get(name) for name in names} if seen.last_run else None


def _age_of(database: str, live: str, now: datetime) -> str:
    from compose_chap.transaction.run import kept

    since = kept.kept_since(database, live)
    return units.age(since, now) if since else ""


def _health(seen: Status) -> str:
    return seen.health.summary if seen.health else "not running"


def _checkout_text(facts: CheckoutStatus) -> str:
    branch = facts.branch.removeprefix("refs/heads/")
    return f"{facts.name}, commit {facts.commit[:12]}" + (f", branch {branch}" if branch else "")


def _jobs(jobs: Jobs | None) -> str:
    if jobs is None:
        return "not known"
    summary = f"{len(jobs.running)} running, {len(jobs.waiting)} waiting"
    summary += f", {len(jobs.zombies)} dead but listed as running" if jobs.zombies else ""
    return summary + (f", {len(jobs.own)} queued by CHAP itself" if jobs.own else "")


def _database(seen: Status) -> str:
    size = units.size(seen.database_size) if seen.database_size is not None else "not reached"
    return ", ".join(filter(None, (_access_name(seen.stack), size)))


def _files(stack: Stack) -> str:
    return ", ".join(map(str, stack.project.files)) + _not_here(stack)


def _not_here(stack: Stack) -> str:
    if stack.project.local:
        return f" (not here: {', '.join(map(str, stack.project.absent))})" if stack.project.absent else ""
    return " (not on this machine, and neither are the records and backups beside them)"


def _last_backup(seen: Status, now: datetime) -> str:
    last = seen.last_backup
    if last is None:
        return "none" if seen.backups_known else "not known"
    made = f"{last.id}, made {units.moment(last.created_at)} ({units.age(last.created_at, now)})"
    return f"{made}, {units.size(last.size)}, {last.proof.best} {units.age(last.proof.best_at, now)}"


def _routine(routine: Routine, now: datetime) -> Iterator[tuple[str, str]]:
    """Yield what there is to say of copies and of the schedule, where there are any."""
    if routine.last_copy:
        tested = f"last test restore {units.age(routine.last_drill, now)}" if routine.last_drill else ""
        yield "Last copy", f"of the backup made {units.age(routine.last_copy, now)}; {tested or 'no test restore yet'}"
    if routine.next_run:
        yield "Next work", units.moment(routine.next_run)


def _state(service: Service) -> str:
    container = service.containers[0]
    if not container.running:
        return f"{container.state} ({container.exit_status})"
    count = f" x{len(service.containers)}" if len(service.containers) > 1 else ""
    return (f"running ({container.health})" if container.health else "running") + count
