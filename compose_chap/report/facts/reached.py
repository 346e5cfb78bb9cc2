"""Whether what was promised was reached: the nights with a proven backup, and what is wrong now. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from compose_chap import units
from compose_chap.report.facts.known import Promise, Reached, ReportFacts
from compose_chap.report.facts.lines import of_window

WINDOWS = (30, 90, 365)  # days

_DAY = timedelta(days=1)
# Later than these, something that is done every night, week or month is overdue.
_NIGHTLY, _WEEKLY, _MONTHLY = timedelta(hours=30), timedelta(days=9), timedelta(days=35)
_WITHOUT_SCHEDULE = timedelta(days=7)


def reached(facts: ReportFacts) -> tuple[Reached, ...]:
    """Return what came of each window."""
    return tuple(_in_window(facts, days) for days in WINDOWS)


def _in_window(facts: ReportFacts, days: int) -> Reached:
    now = facts.made_at
    proven = sorted(backup.made_at for backup in facts.backups if not backup.fault)
    copied = sorted(copy.made_at for copy in facts.copies if copy.made_at)
    nights = list(_nights(facts, proven, days))
    good = [proof for proof in facts.proofs if proof.result == "done"]
    first, last = now - days * _DAY, now + _DAY
    return Reached(
        days,
        len(nights),
        sum(1 for begins, ends in nights if of_window(proven, begins, ends)),
        sum(1 for begins, ends in nights if of_window(copied, begins, ends)),
        of_window([proof.at for proof in good if proof.kind == "backup"], first, last),
        of_window([proof.at for proof in good if proof.kind == "copy"], first, last),
    )


def _nights(facts: ReportFacts, proven: Sequence[datetime], days: int) -> Iterator[tuple[datetime, datetime]]:
    """Yield begin and end of each night, from the time of the nightly work to that of the next; the newest first.

    The night that goes on counts only when its backup is made. Nothing is asked of the time before the first record.
    """
    now, began = facts.made_at, facts.began
    hour, minute = map(int, facts.promise.at.split(":")) if facts.promise else (0, 0)
    today = now.astimezone().replace(tzinfo=None, hour=hour, minute=minute, second=0, microsecond=0)
    for number in range(-1, days):
        # From the local clock each time: a day may have 23 hours, or 25.
        begins, ends = ((today - (number - end) * _DAY).astimezone() for end in (0, 1))
        known = began is not None and began < ends and begins <= now
        if known and now - days * _DAY <= ends and (ends <= now or of_window(proven, begins, ends)):
            yield begins, ends


def problems(facts: ReportFacts) -> tuple[str, ...]:
    """Return what nobody may overlook, in plain words, the worst first."""
    return tuple(dict.fromkeys([*_of_backups(facts), *_of_promise(facts, facts.promise)]))


def _of_backups(facts: ReportFacts) -> Iterator[str]:
    now, newest = facts.made_at, facts.sound
    most = _NIGHTLY if facts.promise else _WITHOUT_SCHEDULE
    if newest is None:
        yield "There is no backup that can be relied on. Make one: docker chap backup"
    elif not units.ahead(newest.made_at, now) and now - newest.made_at > most:
        yield f"The newest proven backup was made {units.age(newest.made_at, now)}. Make one: docker chap backup"


def _of_promise(facts: ReportFacts, promise: Promise | None) -> Iterator[str]:
    if promise is None:
        yield (
            "Nothing is scheduled: backups are made only when somebody types the command."
            " To make them every night: docker chap schedule on"
        )
    if facts.copy is None:
        yield (
            "There is no copy in a repository: whatever destroys the server destroys every backup."
            " To send them elsewhere: docker chap schedule on --copy-to REPOSITORY"
        )
    if promise is None:
        return
    if promise.repository:
        copy, drill = facts.copy, facts.drill
        yield from _overdue(facts, copy.made_at if copy else None, _NIGHTLY, "The newest copied backup was made {}.")
        yield from _overdue(facts, drill.at if drill else None, _MONTHLY, "The last test restore of a copy was {}.")
    yield from _overdue(
        facts, facts.test.at if facts.test else None, _WEEKLY, "The last test restore of a backup was {}."
    )


def _overdue(facts: ReportFacts, last: datetime | None, most: timedelta, sentence: str) -> Iterator[str]:
    # What was never done is shown where it is promised: a schedule that is new has had no time for it.
    if last and facts.made_at - last > most:
        yield f"{sentence.format(units.age(last, facts.made_at))} See how the work ended: docker chap schedule"
