"""The plan of an upgrade: what it will do, and how long CHAP will be down."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compose_chap.check import Check
from compose_chap.edit import Edit
from compose_chap.image import Reference
from compose_chap.model import Stack
from compose_chap.preflight import roads
from compose_chap.preflight.subject import Subject
from compose_chap.project.checkout import Move
from compose_chap.records import run_records
from compose_chap.stack import model_schema, releases
from compose_chap.transaction.run.baseline import Baseline

# The estimate for the first upgrade on a server: the API stops, a copy is made inside PostgreSQL, the new API starts.
# Its start takes about this many times as long as importing the models of the running image took here.
_STOP_SECONDS, _START_SECONDS = 1.5, 6.0
_START_TO_IMPORT = 1.2
_COPIED_PER_SECOND = 200e6
_DUMPED_PER_SECOND = 40e6


@dataclass(frozen=True)
class UpgradePlan:
    """Everything an upgrade will do, before it does anything.

    `images` is the new reference of each writer. `project_files` are the files for the backup. `overridden`
    names the checks that the operator overrides. `drain` is how many seconds to wait for jobs,
    None where they may be lost or cannot be read. With `by_dump` the old data are kept as a second dump.
    CHAP will be down for about `downtime` seconds.
    `move` is the move of the checkout that CHAP is built from, None for images; its `edits` are of env files. With
    `no_cache` every layer is built again. `repairs` are the known faults to repair, by name.
    """

    stack: Stack
    target: str
    images: Mapping[str, Reference]
    edits: tuple[Edit, ...]
    project_files: tuple[Path, ...]
    backups: Path
    platform: str
    baseline: Baseline
    overridden: tuple[str, ...] = ()
    drain: float | None = None
    by_dump: bool = False
    downtime: float = 0.0
    move: Move | None = None
    no_cache: bool = False
    repairs: tuple[str, ...] = ()


def plan_upgrade(
    subject: Subject, checks: Sequence[Check], allowed: Collection[str], *, drain: float, repair: bool, no_cache: bool
) -> UpgradePlan:
    """Return the plan for what was examined; the operator has overridden the `checks` that failed.

    The checks in `allowed` were overridden before they were made. `drain` is how many seconds to wait for jobs.
    """
    by_dump = any(check.details.get("keep") == "dump" for check in checks if check.name == "room")
    return UpgradePlan(
        stack=subject.stack,
        target=subject.target,
        images=subject.images,
        edits=subject.edits,
        project_files=tuple(subject.model.contents),
        backups=subject.backups,
        platform=subject.platform,
        baseline=subject.baseline,
        overridden=tuple(check.name for check in checks if check.failed),
        drain=_drain(checks, allowed, drain),
        by_dump=by_dump,
        downtime=_downtime(subject, by_dump=by_dump),
        move=subject.move,
        no_cache=no_cache,
        repairs=roads.repairs(checks) if repair else (),
    )


def runs_already(subject: Subject) -> bool:
    """Return whether there is nothing to upgrade: the files name the target, and API and workers are of it."""
    # `docker compose up -d API` by hand leaves an old worker, and the files do not tell.
    versions = {subject.version, *subject.baseline.worker_versions.values()}
    return not subject.changes_files and versions == {releases.reported_version(subject.target)}


def _drain(checks: Sequence[Check], allowed: Collection[str], drain: float) -> float | None:
    # A job that begins during the pull may be lost too, when the operator said so.
    known = all(check.status == "ok" for check in checks if check.name == "jobs")
    return drain if known and "jobs" not in allowed else None


def _downtime(subject: Subject, *, by_dump: bool) -> float:
    project = subject.stack.project
    runs = run_records.history(project.directory, subject.world.engine.origin(project.name))
    imported = model_schema.import_seconds(subject.world, subject.stack)
    start = imported * _START_TO_IMPORT if imported else _START_SECONDS
    return expected_downtime(subject.database.size, runs, start, by_dump=by_dump)


def expected_downtime(
    size: int, runs: Sequence[Mapping[str, Any]], start: float = _START_SECONDS, *, by_dump: bool = False
) -> float:
    """Return for how many seconds CHAP will not answer: as in the last upgrade here, if there was one.

    Else it comes from the size of the database, and from how many seconds the new API takes to `start`.
    """
    if by_dump:
        return downtime_with(size, start) + size / _DUMPED_PER_SECOND
    earlier = [run["downtime"] for run in runs if run["operation"] == "upgrade" and run.get("downtime")]
    return float(earlier[-1]) if earlier else downtime_with(size, start)


def downtime_with(size: int, start: float) -> float:
    """Return for how many seconds CHAP will not answer, from the database's size and how long the new API starts."""
    return _STOP_SECONDS + start + size / _COPIED_PER_SECOND
