"""The plan of an upgrade: what it will do, and how long CHAP will be down."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from compose_chap.check import Check
from compose_chap.edit import Edit
from compose_chap.image import Reference
from compose_chap.model import Stack
from compose_chap.postgres.copy_speed import copied_per_second
from compose_chap.preflight import roads
from compose_chap.preflight.subject import Subject
from compose_chap.project.checkout import Move
from compose_chap.records import run_records
from compose_chap.records.downtime import Forecast, forecast
from compose_chap.stack import model_schema, releases
from compose_chap.transaction.run.baseline import Baseline

# The start of the new API takes about this many times what importing the models of the running image took a processor
# here: it imports the rest of CHAP too.
_START_TO_IMPORT = 2.0


@dataclass(frozen=True)
class UpgradePlan:
    """Everything an upgrade will do, before it does anything.

    `images` is the new reference of each writer. `project_files` are the files for the backup. `overridden`
    names the checks that the operator overrides. `drain` is how many seconds to wait for jobs,
    None where they may be lost or cannot be read. With `by_dump` the old data are kept as a second dump.
    With `no_copy` the backup is kept alone, if nothing is written from its beginning on.
    `forecast` says for how long CHAP will be down, with a database of `size` bytes.
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
    no_copy: bool = False
    size: int = 0
    forecast: Forecast = Forecast(0.0, 0.0, 0.0)
    move: Move | None = None
    no_cache: bool = False
    repairs: tuple[str, ...] = ()

    @property
    def downtime(self) -> float:
        """For how many seconds CHAP will be down, if all goes as planned."""
        return self.forecast.rest if self.no_copy else self.forecast.downtime

    @property
    def kept_as(self) -> str:
        """In what the old data are kept, if all goes as planned: dump, backup or copy."""
        return "dump" if self.by_dump else "backup" if self.no_copy else "copy"


def plan_upgrade(
    subject: Subject,
    checks: Sequence[Check],
    allowed: Collection[str],
    *,
    drain: float,
    repair: bool,
    no_cache: bool,
    no_copy: bool,
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
        # Only a database with a locale of the C library can be made again from a backup.
        no_copy=no_copy and not by_dump and subject.database.provider == "c",
        size=subject.database.size,
        forecast=_forecast(subject, by_dump=by_dump),
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


def _forecast(subject: Subject, *, by_dump: bool) -> Forecast:
    project = subject.stack.project
    runs = run_records.history(project.directory, subject.world.engine.origin(project.name))
    start = model_schema.import_seconds(subject.world, subject.stack) * _START_TO_IMPORT
    measure = partial(copied_per_second, subject.server, subject.database.name)
    return forecast(subject.database.size, runs, start, measure, by_dump=by_dump)
