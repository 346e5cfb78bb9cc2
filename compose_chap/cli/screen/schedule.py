"""The schedule and its work, as people and scripts are shown them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from compose_chap import units
from compose_chap.cli.screen.layout import paragraph, table
from compose_chap.records.audit import AuditEntry
from compose_chap.schedule import work
from compose_chap.schedule.plan import Schedule
from compose_chap.schedule.work import WorkOutcome

ON_THIS_MACHINE_ONLY = (
    "Backups stay on this machine only, and are lost with it. To send them elsewhere too:"
    " docker chap schedule on --copy-to REPOSITORY"
)
NO_ALARM = "When it fails, nobody hears of it. To send alarms: docker chap schedule on --alarm URL"
NOTHING = "Nothing is scheduled."
OFF = "Nothing is scheduled any more. Backups and copies stay."


@dataclass(frozen=True)
class KindOfWork:
    """When the work of a kind begins next, None for never, and how it ended last, None before the first time."""

    upcoming: datetime | None
    last: AuditEntry | None


def begun_text(
    schedule: Schedule, kinds: Mapping[str, KindOfWork], heard: Mapping[str, Any], sheet: str, now: datetime
) -> str:
    """Return what is shown of a schedule that has just begun; `sheet` is the recovery sheet, empty for none."""
    text = f"The work is scheduled with {schedule.by}. To see it: docker chap schedule\n\n"
    text += schedule_text(schedule, kinds, heard, now)
    if heard["alarms"]:
        text += "\nTo try it: docker chap schedule --test-alarm"
    return f"{text}\n\n{sheet}" if sheet else text


def schedule_text(schedule: Schedule, kinds: Mapping[str, KindOfWork], heard: Mapping[str, Any], now: datetime) -> str:
    """Return a line for each kind of work, where copies go, and from the document of alarms, who hears of it."""
    rows = [
        [
            kind,
            units.moment(seen.upcoming) if seen.upcoming else "NEVER: its timer is gone",
            f"{seen.last.result} {units.age(seen.last.began_at, now)}" if seen.last else "",
            ", ".join(part.name for part in work.parts(schedule, kind)),
        ]
        for kind, seen in kinds.items()
    ]
    text = table(rows, ["WORK", "NEXT", "LAST", "DOES"])
    if not schedule.store:
        return f"{text}\n\n{paragraph(ON_THIS_MACHINE_ONLY)}\n{_alarms_text(heard)}"
    return f"{text}\n\nCopies go to {schedule.store.location}.\n{_alarms_text(heard)}"


def _alarms_text(heard: Mapping[str, Any]) -> str:
    """Return where alarms go, and what could not be sent, from the document of that."""
    if not heard["alarms"] and not heard["monitor"]:
        return paragraph(NO_ALARM)
    lines = [f"The monitor is {heard['monitor']}."] if heard["monitor"] else []
    lines += [f"Alarms go to {', '.join(heard['alarms'])}."] if heard["alarms"] else []
    lines += ["They get a summary each week too."] if heard["digest"] else []
    if heard["undelivered"]:
        lines.append("These could not be sent yet:")
        lines += [f"  {units.moment(each['at'])}  {each['title']}" for each in heard["undelivered"]]
        lines.append("Try the addresses: docker chap schedule --test-alarm")
    return "\n".join(lines)


def schedule_document(schedule: Schedule, kinds: Mapping[str, KindOfWork]) -> dict[str, Any]:
    """Return a schedule for scripts."""
    return {
        "by": schedule.by,
        "user": schedule.user,
        "repository": schedule.store.repository if schedule.store else None,
        "work": {
            kind: {
                "next": seen.upcoming.isoformat() if seen.upcoming else None,
                "last": seen.last.to_json() if seen.last else None,
            }
            for kind, seen in kinds.items()
        },
    }


def in_short(kind: str, outcomes: Sequence[WorkOutcome]) -> str:
    """Return in a few words how the parts of the work ended."""
    return f"{kind}: " + "; ".join(f"{outcome.name} {_ended(outcome)}" for outcome in outcomes)


def outcomes_text(outcomes: Sequence[WorkOutcome]) -> str:
    """Return a line for each part of the work."""
    return table(
        [
            [
                outcome.name,
                _ended(outcome).upper() if outcome.failed else _ended(outcome),
                units.duration(outcome.seconds),
                " ".join(outcome.message.split()),
            ]
            for outcome in outcomes
        ]
    )


def _ended(outcome: WorkOutcome) -> str:
    return "failed" if outcome.failed else "left out" if outcome.exit_status is None else "done"
