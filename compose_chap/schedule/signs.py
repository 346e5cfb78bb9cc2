"""Signs of how the regular work is: from the trail when a run begins, and from the parts of a run when it ends."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from compose_chap import units
from compose_chap.alarms.changes import Sign
from compose_chap.records import audit
from compose_chap.records.audit import AuditEntry
from compose_chap.schedule import routine, work
from compose_chap.schedule.plan import KINDS, MONTHLY, NIGHTLY, WEEKLY, Schedule
from compose_chap.schedule.work import WorkOutcome

# When a run of a kind is missing. The next may wait for a long restore, and its timer waits some minutes at random.
_LATEST = {NIGHTLY: timedelta(hours=36), WEEKLY: timedelta(days=9), MONTHLY: timedelta(days=34)}
CLOCK, SPACE = "the clock", "the check of free space"
# A hint speaks of the command that failed. Whoever reads an alarm ran none.
_AGAIN = (
    (re.compile("Run the command again when "), "Wait until "),
    (re.compile(r",? then run the command again"), ""),
    (re.compile(r"(Then r|R)un the command again(\.|: )?"), ""),
)


def at_begin(trail: Sequence[AuditEntry], kind: str, now: datetime) -> list[Sign]:
    """Return what a run of a kind sees when it begins: earlier runs that were cut off, are missing, or yet to come.

    `trail` is without the entry of that run.
    """
    signs, ahead = [], ""
    for other in KINDS:
        last = routine.last_run(trail, other)
        if last and units.ahead(last.began_at, now):
            ahead = (
                f"The last {other} work is dated {units.moment(last.began_at)}, and now it is {units.moment(now)}:"
                " the clock of this machine is wrong, or was. What that clock made is dated in the future, too."
            )
        elif fault := _fault(trail, last, other, now):
            signs.append(Sign(_whole(other), fault, "docker chap schedule"))
        elif other != kind and last and last.result != audit.RUNNING:
            signs.append(Sign(_whole(other)))
    return [*signs, Sign(CLOCK, ahead, "timedatectl" if ahead else "")]


def at_end(kind: str, outcomes: Sequence[WorkOutcome]) -> list[Sign]:
    """Return how the parts of a run are. Of one that was left out nothing is known."""
    parts = [
        Sign(
            f"{kind} {outcome.name}",
            (outcome.message or f"It ended with status {outcome.exit_status}.") if outcome.failed else "",
            _next(kind, outcome.hint) if outcome.failed else "",
        )
        for outcome in outcomes
        if outcome.exit_status is not None
    ]
    return [Sign(_whole(kind)), *parts]


def of_space(status: Mapping[str, Any]) -> list[Sign]:
    """Return whether there is room, by the document of `status`; nothing where that says nothing of it."""
    low = status.get("disks", {}).get("low")
    if low is None:
        return []
    return [Sign(SPACE, " ".join(low), "See what can go: docker chap prune --dry-run" if low else "")]


def _next(kind: str, hint: str) -> str:
    """Return what to do about a part that failed: its hint, in which the command to run again is that of the work."""
    for pattern, instead in _AGAIN:
        hint = pattern.sub(instead, hint)
    again = f"docker chap schedule run {kind}"
    return f"{hint[:1].upper()}{hint[1:].strip()}\nThen: {again}" if hint.strip() else again


def subjects(schedule: Schedule) -> set[str]:
    """Return everything that there can be a sign of while a schedule is on."""
    parts = {f"{kind} {part.name}" for kind in KINDS for part in work.parts(schedule, kind)}
    return {CLOCK, SPACE, *map(_whole, KINDS), *parts}


def _whole(kind: str) -> str:
    return f"{kind} run"


def _fault(trail: Sequence[AuditEntry], last: AuditEntry | None, kind: str, now: datetime) -> str:
    if last and last.result == audit.CUT_OFF:
        return (
            f"The {kind} work that began on {units.moment(last.began_at)} was cut off: its process is gone, and it"
            " never said how it ended. Was the machine switched off, or out of memory?"
        )
    switched_on = [entry.began_at for entry in trail if entry.operation == "schedule" and "timers" in entry.facts]
    since = max([*switched_on[-1:], *([last.began_at] if last else [])], default=now)
    if now - since > _LATEST[kind] and last and last.result == audit.RUNNING:
        return f"The {kind} work that began on {units.moment(last.began_at)} is still under way. Does it hang?"
    if now - since > _LATEST[kind]:
        return f"No {kind} work has begun since {units.moment(since)}. Was the machine off, or is its timer gone?"
    return ""
