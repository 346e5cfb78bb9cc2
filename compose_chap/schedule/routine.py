"""What came of the regular work: how old the newest copy and the last drill are, and when the next work begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from compose_chap import units
from compose_chap.alarms import addresses, ledger
from compose_chap.errors import EngineError, StateError, UsageError
from compose_chap.model import Origin
from compose_chap.records import audit
from compose_chap.records.audit import AuditEntry
from compose_chap.records.run_records import run_began
from compose_chap.schedule import plan, timers
from compose_chap.schedule.plan import KINDS, NIGHTLY, Schedule
from compose_chap.schedule.timers import Timers


@dataclass(frozen=True)
class Routine:
    """What came of the regular work of a stack.

    `last_copy` is when the newest backup was made that has a copy elsewhere, `last_drill` when a copy was last brought
    back and test-restored, `next_run` when the nightly work begins next, `last_backup` when the newest backup was made;
    None for never. `problems` are for people.
    """

    last_copy: datetime | None = None
    last_drill: datetime | None = None
    next_run: datetime | None = None
    problems: tuple[str, ...] = ()
    last_backup: datetime | None = None


@dataclass(frozen=True)
class KindOfWork:
    """When the work of a kind begins next, None for never, and how it ended last, None before the first time."""

    upcoming: datetime | None
    last: AuditEntry | None


def kinds_of_work(
    trail: Sequence[AuditEntry], schedule: Schedule, starter: Timers | None, now: datetime
) -> dict[str, KindOfWork]:
    """Return it for each kind. `starter` is None where what starts the work is no longer on this machine."""
    return {
        kind: KindOfWork(starter.next_run(schedule, kind, now) if starter else None, last_run(trail, kind))
        for kind in KINDS
    }


def look(directory: Path, origin: Origin, now: datetime) -> Routine:
    """Return it for the stack whose main folder is `directory`. Raise StateError."""
    trail = audit.entries(directory, origin)
    done = [entry for entry in trail if entry.result == audit.DONE]
    made = {name: [entry for entry in done if entry.operation == name] for name in ("backup", "copy")}
    drills = [entry.ended_at for entry in done if entry.operation == "verify" and entry.facts.get("copy")]
    schedule = plan.read(directory)
    upcoming, problems = None, []
    if schedule:
        with suppress(EngineError):
            upcoming = timers.timers(schedule.by).next_run(schedule, NIGHTLY, now)
        if upcoming is None:
            problems.append("The timer of the nightly work is gone. Make it again: docker chap schedule on")
        problems += [*_failures(trail), *_ahead(trail, now), *_unheard(directory, schedule, now)]
    return Routine(
        _newest([_made(entry) for entry in made["copy"]], now),
        _newest(drills, now),
        upcoming,
        tuple(problems),
        _newest([_made(entry) for entry in made["backup"]], now),
    )


def _newest(dates: Sequence[datetime | None], now: datetime) -> datetime | None:
    """Return the newest date. What a clock that was ahead made counts only where there is nothing else."""
    known = [date for date in dates if date]
    return max((date for date in known if not units.ahead(date, now)), default=max(known, default=None))


def failures(directory: Path, origin: Origin, besides: str) -> list[str]:
    """Return what did not end well when it was done last, but for the work of the kind `besides`."""
    return _failures(audit.entries(directory, origin), besides)


def last_run(trail: Sequence[AuditEntry], kind: str) -> AuditEntry | None:
    """Return the last run of a kind of work, None where there was none."""
    return next((entry for entry in reversed(trail) if kind_of(entry) == kind), None)


def kind_of(entry: AuditEntry) -> str:
    """Return the kind of work that an entry is about, empty for none. Of a run that was cut off its words tell it."""
    if entry.operation != "schedule":
        return ""
    if "kind" in entry.facts or "run" not in entry.words:
        return str(entry.facts.get("kind", ""))
    return next((word for word in entry.words if word in KINDS), NIGHTLY)


def _ahead(trail: Sequence[AuditEntry], now: datetime) -> Iterator[str]:
    for kind in KINDS:
        if (entry := last_run(trail, kind)) and units.ahead(entry.began_at, now):
            yield (
                f"The last {kind} work is dated {units.moment(entry.began_at)}, which lies in the future. Is the"
                " clock of this machine right? See: timedatectl"
            )


def _unheard(directory: Path, schedule: Schedule, now: datetime) -> Iterator[str]:
    """Yield why people do not hear what they should."""
    if not schedule.alarm_file:
        return
    with suppress(StateError):
        if waiting := ledger.read(directory).waiting:
            yield (
                f"{units.several(len(waiting), 'alarm')} could not be sent, the oldest of"
                f" {units.moment(waiting[0].at)}. See: docker chap schedule"
            )
    try:
        addresses.read(Path(schedule.alarm_file))
    except UsageError as error:
        yield f"No alarm can be sent. {error.message}"


def _failures(trail: Sequence[AuditEntry], besides: str = "") -> list[str]:
    entries = (last_run(trail, kind) for kind in KINDS if kind != besides)
    return [_failure(entry) for entry in entries if entry and _is_bad(entry)]


def _made(entry: AuditEntry) -> datetime | None:
    """Return when the backup was made that an entry is about, which is what its id says."""
    with suppress(ValueError):
        return run_began(str(entry.facts.get("backup")))
    return None


def _is_bad(entry: AuditEntry) -> bool:
    return entry.result not in (audit.DONE, audit.RUNNING)


def _failure(entry: AuditEntry) -> str:
    how = entry.summary or f"{kind_of(entry)}: {entry.result}"
    return f"The last work of the schedule did not end well. {how}. See: docker chap schedule"
