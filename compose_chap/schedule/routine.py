"""What came of the regular work: how old the newest copy and the last drill are, and when the next work begins."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from compose_chap.errors import EngineError
from compose_chap.model import Origin
from compose_chap.records import audit
from compose_chap.records.audit import AuditEntry
from compose_chap.schedule import plan, timers
from compose_chap.schedule.plan import KINDS, NIGHTLY


@dataclass(frozen=True)
class Routine:
    """What came of the regular work of a stack.

    `last_copy` is when the newest backup was made that has a copy elsewhere, `last_drill` when a copy was last brought
    back and test-restored, `next_run` when the nightly work begins next; None for never. `problems` are for people.
    """

    last_copy: datetime | None = None
    last_drill: datetime | None = None
    next_run: datetime | None = None
    problems: tuple[str, ...] = ()


def look(directory: Path, origin: Origin, now: datetime) -> Routine:
    """Return it for the stack whose main folder is `directory`. Raise StateError."""
    trail = audit.entries(directory, origin)
    done = [entry for entry in trail if entry.result == audit.DONE]
    copied = [made for entry in done if entry.operation == "copy" and (made := _made(entry))]
    drills = [entry.ended_at for entry in done if entry.operation == "verify" and entry.facts.get("copy")]
    schedule = plan.read(directory)
    upcoming, problems = None, []
    if schedule:
        with suppress(EngineError):
            upcoming = timers.timers(schedule.by).next_run(schedule, NIGHTLY, now)
        if upcoming is None:
            problems.append("The timer of the nightly work is gone. Make it again: docker chap schedule on")
        problems += _failures(trail)
    return Routine(max(copied, default=None), max(filter(None, drills), default=None), upcoming, tuple(problems))


def failures(directory: Path, origin: Origin, besides: str) -> list[str]:
    """Return what did not end well when it was done last, but for the work of the kind `besides`."""
    return _failures(audit.entries(directory, origin), besides)


def _failures(trail: list[AuditEntry], besides: str = "") -> list[str]:
    entries = (_last(trail, kind) for kind in KINDS if kind != besides)
    return [_failure(entry) for entry in entries if entry and _is_bad(entry)]


def _made(entry: AuditEntry) -> datetime | None:
    """Return when the backup was made that an entry is about, which is what its id says."""
    with suppress(ValueError):
        return datetime.strptime(str(entry.facts.get("backup")), "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    return None


def _last(trail: list[AuditEntry], kind: str) -> AuditEntry | None:
    entries = (entry for entry in reversed(trail) if entry.operation == "schedule")
    return next((entry for entry in entries if entry.facts.get("kind") == kind), None)


def _is_bad(entry: AuditEntry) -> bool:
    return entry.result not in (audit.DONE, audit.RUNNING)


def _failure(entry: AuditEntry) -> str:
    return f"The last work of the schedule did not end well. {entry.summary}. See: docker chap schedule"
