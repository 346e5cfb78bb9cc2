"""The schedule and its work, as people and scripts are shown them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from compose_chap import units
from compose_chap.cli.screen.layout import paragraph, table
from compose_chap.schedule import work
from compose_chap.schedule.amend import Difference
from compose_chap.schedule.plan import Schedule
from compose_chap.schedule.routine import KindOfWork
from compose_chap.schedule.work import WorkOutcome

ON_THIS_MACHINE_ONLY = (
    "Backups stay on this machine only, and are lost with it. To send them elsewhere too:"
    " docker chap schedule on --copy-to REPOSITORY"
)
NO_ALARM = "When it fails, nobody hears of it. To send alarms: docker chap schedule on --alarm URL"
WITHOUT_DHIS2 = "DHIS2's own data are not in these backups. To add its database: docker chap schedule on --with-dhis2"
SHEET_CHANGED = "The recovery sheet changed with what the copies hold. To print it again: docker chap schedule --sheet"
NOTHING = "Nothing is scheduled."
OFF = "Nothing is scheduled any more. Backups and copies stay."


def begun_text(
    schedule: Schedule,
    kinds: Mapping[str, KindOfWork],
    heard: Mapping[str, Any],
    now: datetime,
    difference: Difference | None,
    notes: Sequence[str],
    sheet: str,
) -> str:
    """Return what is shown of a schedule that has just begun.

    `difference` is what became of an earlier schedule, None where there was none; `sheet` is the recovery sheet, empty
    for none.
    """
    text = f"The work is scheduled with {schedule.by}. To see it: docker chap schedule\n"
    text += f"{_difference_text(difference)}\n" if difference else ""
    text += f"\n{schedule_text(schedule, kinds, heard, now)}"
    text += "".join(f"\n{paragraph(note)}" for note in notes)
    if heard["alarms"]:
        text += "\nTo try it: docker chap schedule --test-alarm"
    return f"{text}\n\n{sheet}" if sheet else text


def _difference_text(difference: Difference) -> str:
    parts = (("Changed", difference.changed), ("Taken away", difference.removed), ("Kept", difference.kept))
    lines = [paragraph(f"{word}: {', '.join(names)}.") for word, names in parts if names]
    return "\n".join(lines if difference.changed or difference.removed else ["Changed: nothing.", *lines])


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
    return "\n".join([text, "", *_details(schedule), _alarms_text(heard)])


def _details(schedule: Schedule) -> Iterator[str]:
    besides = [
        name
        for name, held in (("DHIS2's database", schedule.with_dhis2), ("the volumes", schedule.with_volumes))
        if held
    ]
    if besides:
        yield f"Backups include {' and '.join(besides)}."
    if schedule.output:
        yield f"Backups go to {schedule.output}."
    if store := schedule.store:
        limit = f", with at most {store.limit_upload} KiB a second" if store.limit_upload else ""
        yield f"Copies go to {store.location}{limit}."
    else:
        yield paragraph(ON_THIS_MACHINE_ONLY)
    if schedule.metrics_file:
        yield f"Numbers for Prometheus go to {schedule.metrics_file}."


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
        "at": f"{schedule.hour:02}:{schedule.minute:02}",
        "repository": schedule.store.repository if schedule.store else None,
        "limit_upload": schedule.store.limit_upload if schedule.store else 0,
        "output": schedule.output or None,
        "with_dhis2": schedule.with_dhis2,
        "with_volumes": schedule.with_volumes,
        "metrics_file": schedule.metrics_file or None,
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
