"""Read the facts of a report: from CHAP as it runs, and from the records alone where nothing answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from compose_chap import __version__
from compose_chap.backups import catalogue
from compose_chap.backups.catalogue import Backup
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, EngineError, UsageError
from compose_chap.model import Origin, Service, Stack
from compose_chap.operations import history, status
from compose_chap.operations.status import Status
from compose_chap.records import audit, order, run_records
from compose_chap.records.audit import AuditEntry
from compose_chap.report.facts import fields, lines
from compose_chap.report.facts.known import Promise, ReportFacts, ServiceLine
from compose_chap.report.facts.reached import problems, reached
from compose_chap.schedule import plan, routine, timers
from compose_chap.schedule.folders import folders_beside
from compose_chap.schedule.plan import KINDS, NIGHTLY, Schedule

T = TypeVar("T")


def gather(world: World, directory: Path, origin: Origin, stack: Stack | None, why: str = "") -> ReportFacts:
    """Return the facts of the stack whose main folder is `directory`.

    `stack` is what runs; where that is None, `why` says why, and all comes from the records. Raise UsageError when
    records of several stacks lie there and nothing says which is meant. Records that cannot be read are a problem.
    """
    wrong: list[str] = []
    schedule: Schedule | None = _read(lambda: plan.read(directory), None, wrong)
    kept = _backups(world, directory, origin, wrong)
    runs: list[dict[str, Any]] = _read(lambda: run_records.history(directory, origin), [], wrong)
    runs += _read(lambda: history.cut_off(world, directory, origin), [], wrong)
    trail: list[AuditEntry] = _read(lambda: history.trail(directory, origin, runs), [], wrong)
    project = _project([backup.origin for backup in kept] + [entry.origin for entry in trail], origin)
    seen = status.look(world, stack) if stack else None
    known = ReportFacts(
        project=project.project,
        server=project.server,
        directory=str(directory),
        made_at=world.clock(),
        tool=__version__,
        live=seen is not None,
        backups=lines.backup_lines(kept, trail),
        copies=lines.copy_lines(trail),
        proofs=lines.proof_lines(trail),
        changes=lines.change_lines(trail, runs),
        promise=_promise(world, schedule),
        trail=tuple(trail),
    )
    known = _with_status(known, seen) if seen else _with_records(known, kept)
    known = replace(known, reached=reached(known))
    early = seen.problems if seen else (_not_asked(why), *_recorded_problems(world, directory, origin, kept))
    return replace(known, problems=tuple(dict.fromkeys([*_cut_off(runs), *early, *wrong, *problems(known)])))


def _read(question: Callable[[], T], otherwise: T, wrong: list[str]) -> T:
    """Return the answer; for records that cannot be read something else, and say why in `wrong`."""
    try:
        return question()
    except ChapError as error:
        wrong.append(error.message)
        return otherwise


def _project(origins: Sequence[Origin], wanted: Origin) -> Origin:
    """Return the stack that the records are of."""
    names = sorted({origin.project for origin in origins if origin.project})
    if not wanted.project and len(names) > 1:
        raise UsageError(
            f"Records of several stacks lie here: {', '.join(names)}.",
            state="Nothing was written.",
            hint="Name the stack: docker chap -p NAME report",
        )
    known = next((origin for origin in reversed(origins) if origin.project and wanted.owns(origin)), wanted)
    return Origin(wanted.project or known.project, wanted.engine or known.engine, wanted.server or known.server)


def _backups(world: World, directory: Path, origin: Origin, wrong: list[str]) -> list[Backup]:
    """Return the backups; `wrong` gets what is wrong with them."""
    folders, none = folders_beside(directory, None, world.environment), catalogue.Listing([], [])
    listing = catalogue.merged([_read(partial(catalogue.scan, [folder], origin), none, wrong) for folder in folders])
    wrong += listing.unusable
    return listing.backups


def _promise(world: World, schedule: Schedule | None) -> Promise | None:
    if schedule is None:
        return None
    upcoming = dict.fromkeys(KINDS)
    with suppress(EngineError):
        starter = timers.timers(schedule.by)
        upcoming = {kind: starter.next_run(schedule, kind, world.clock()) for kind in KINDS}
    hour, minute = schedule.time(NIGHTLY)
    copies = schedule.store.location if schedule.store else ""
    return Promise(schedule.by, f"{hour:02}:{minute:02}", copies, upcoming)


def _with_status(known: ReportFacts, seen: Status) -> ReportFacts:
    stack = seen.stack
    return replace(
        known,
        project=stack.project.name,
        services=tuple(_service(service, seen) for service in stack.services),
        services_at=known.made_at,
        chap_version=seen.versions.get(stack.api.name, ""),
        health=seen.health.summary if seen.health else "not running",
        schema=seen.schema.verdict if seen.schema else "",
        database_size=seen.database_size,
        database_free=seen.disks.database_free,
        backups_free=seen.disks.backups_free,
    )


def _service(service: Service, seen: Status) -> ServiceLine:
    container = service.containers[0]
    state = f"{container.state}, {container.health}" if container.running and container.health else container.state
    return ServiceLine(
        service.name,
        service.role.value,
        str(service.image),
        seen.digests.get(service.name, ""),
        seen.versions.get(service.name, ""),
        state,
        fields.started_at(container.started_at) if container.running else None,
    )


def _with_records(known: ReportFacts, kept: Sequence[Backup]) -> ReportFacts:
    """Add what ran when the newest backup was made."""
    if not kept:
        return known
    manifest = kept[-1].manifest
    versions = {"api": manifest.chap.version, "worker": manifest.chap.worker_version}
    services = (
        ServiceLine(
            image.service,
            image.role,
            image.image,
            next((digest.partition("@")[2] for digest in image.digests), image.id),
            versions.get(image.role, ""),
        )
        for image in manifest.images
    )
    return replace(
        known,
        services=tuple(services),
        services_at=manifest.created_at,
        chap_version=manifest.chap.version,
        database_size=manifest.database.size,
    )


def _not_asked(why: str) -> str:
    return f"CHAP could not be asked, and this report is made from its records alone. {why}"


def _cut_off(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    cut_off = [run for run in runs if run["result"] == audit.CUT_OFF]
    return [f"The {run['operation']} was cut off. Finish or undo it: docker chap recover" for run in cut_off]


def _recorded_problems(world: World, directory: Path, origin: Origin, kept: Sequence[Backup]) -> list[str]:
    """Return what the records say is wrong, as a status would."""
    wrong: list[str] = []
    with suppress(ChapError):
        wrong += routine.look(directory, origin, world.clock()).problems
    wrong += [backup.warning for backup in catalogue.Listing([*kept], []).newer_faulty]
    return wrong + order.warnings("Backup", {backup.id: backup.created_at for backup in kept}, world.clock())
