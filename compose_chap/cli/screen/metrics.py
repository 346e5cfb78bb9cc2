"""A status as metrics in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from compose_chap import units
from compose_chap.operations.status import Status

_Line = tuple[str, str, float | None]

_NEVER = "0 for never or a time in the future"


def text(seen: Status | None, update: str | None, now: datetime) -> str:
    """Return the numbers of a status; of None, which stands for a status that failed, only that it did.

    A number that is not known is left out: a made-up zero would be believed. `update` is the newer release,
    empty when there is none, None when that is not known.
    """
    labels = f'{{project="{_escaped(seen.stack.project.name)}"}}' if seen else ""
    lines: list[str] = []
    for name, help_text, value in _lines(seen, update, now):
        if value is not None:
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge", f"{name}{labels} {value:.0f}"]
    return "\n".join(lines) + "\n"


def _lines(seen: Status | None, update: str | None, now: datetime) -> Iterator[_Line]:
    yield "docker_chap_status_success", "Whether the stack could be looked at.", seen is not None
    yield "docker_chap_status_timestamp_seconds", "When it was looked at.", now.timestamp()
    if seen is None:
        return
    last, jobs = seen.last_backup, seen.jobs
    yield "docker_chap_ready", "Whether CHAP says that all its parts work.", bool(seen.health and seen.health.ready)
    complete = seen.schema.status != "fail" if seen.schema else None
    yield "docker_chap_schema_complete", "Whether the database has all that the running version needs.", complete
    waits = None if seen.open_run is None else bool(seen.open_run)
    yield "docker_chap_run_open", "Whether a run was cut off and waits for docker chap recover.", waits
    never = 0 if seen.backups_known else None
    made = _past(last.created_at, now) if last else never
    yield "docker_chap_last_backup_timestamp_seconds", f"When the newest sound backup was made, {_NEVER}.", made
    proven = _past(last.proof.at, now) if last else never
    yield "docker_chap_last_backup_proven_timestamp_seconds", f"When it was last read back, {_NEVER}.", proven
    restored = _past(seen.last_test_restore, now) if seen.last_test_restore else never
    yield (
        "docker_chap_last_test_restore_timestamp_seconds",
        f"When a backup was last restored as a test, {_NEVER}.",
        restored,
    )
    routine = seen.routine
    copied = _past(routine.last_copy, now) if routine.last_copy else never
    yield "docker_chap_last_copy_timestamp_seconds", f"When the newest copied backup was made, {_NEVER}.", copied
    drilled = _past(routine.last_drill, now) if routine.last_drill else never
    yield "docker_chap_last_drill_timestamp_seconds", f"When a copy was last restored as a test, {_NEVER}.", drilled
    upcoming = routine.next_run.timestamp() if routine.next_run else None
    yield "docker_chap_next_run_timestamp_seconds", "When the nightly work begins next.", upcoming
    yield "docker_chap_last_backup_size_bytes", "The size of the newest backup.", last.size if last else None
    yield "docker_chap_database_size_bytes", "The size of CHAP's database.", seen.database_size
    yield "docker_chap_jobs_running", "Jobs that run.", len(jobs.running) if jobs else None
    yield "docker_chap_jobs_waiting", "Jobs that wait.", len(jobs.waiting) if jobs else None
    yield "docker_chap_update_available", "Whether there is a newer release.", None if update is None else bool(update)


def _past(when: datetime, now: datetime) -> float:
    # An alarm on the age would stay silent for as long as the clock was ahead.
    return 0 if units.ahead(when, now) else when.timestamp()


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
