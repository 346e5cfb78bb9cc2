"""The section with everything that was done. What went well as ever is folded by month when it is older."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from compose_chap import units
from compose_chap.records import audit
from compose_chap.records.audit import AuditEntry
from compose_chap.report.facts.known import ReportFacts
from compose_chap.report.markup import Content, element
from compose_chap.report.tables import count, folded, headings, number, table, time, verdict, when
from compose_chap.schedule.routine import kind_of

# Everything of the last week is listed, and what is not routine for longer.
_RECENT, _NOTABLE = timedelta(days=7), timedelta(days=90)
_ROUTINE = ("schedule", "backup", "copy", "copies", "verify", "prune")
_COUNTED = ("backup", "copy", "verify", "prune")
_HEADS = headings(when("When"), "Command", "Result", "By", "About")
_MONTHLY = headings("Month", *(number(name) for name in ("Backups", "Copies", "Proofs", "Prunes")))
_LONGEST = 300  # bytes of a message


def history(known: ReportFacts) -> Content:
    """Return every attempt, with who, what and how it ended."""
    if not known.trail:
        return element("p", "Nothing was done so far.")
    shown = _without_parts(known.trail)
    recent = [entry for entry in shown if _is_recent(known, entry)]
    older = [entry for entry in shown if not _is_recent(known, entry)]
    days = f"The last {_RECENT.days} days, and of the last {_NOTABLE.days} days what is not routine"
    caption = f"{days}, the newest first"
    parts: list[Content] = [
        element(
            "p",
            "Every attempt is written down when it begins, also one that fails or is refused. The parts of the"
            " scheduled work that went well are in its own line. Each single entry: ",
            element("code", "docker chap history"),
            ".",
        ),
        table(caption, _HEADS, [_row(entry) for entry in reversed(recent)]) if recent else None,
    ]
    if not recent:
        parts.append(element("p", "Nothing was done in this period."))
    return [*parts, *_older(known, older)]


def _older(known: ReportFacts, entries: Sequence[AuditEntry]) -> Iterator[Content]:
    """Yield what is older: each year's changes and failures line by line, and its routine as numbers."""
    years: dict[int, list[AuditEntry]] = {}
    for entry in reversed(entries):
        years.setdefault(entry.began_at.astimezone().year, []).append(entry)
    months = _months(known.trail)
    for year, listed in years.items():
        single = [entry for entry in listed if not _is_routine(entry)]
        rows = [
            [month, *(count(numbers[name]) for name in _COUNTED)]
            for month, numbers in months.items()
            if month.startswith(f"{year:04}")
        ]
        yield folded(
            f"{year}: routine work, as numbers"
            + (f"; {units.several(len(single), 'line')} about all else" if single else ""),
            table(f"What went well in {year}, by month", _MONTHLY, rows) if rows else None,
            table(f"Changes, failures and refusals in {year}", _HEADS, map(_row, single)) if single else None,
        )


def _is_recent(known: ReportFacts, entry: AuditEntry) -> bool:
    return known.made_at - entry.began_at <= (_RECENT if _is_routine(entry) else _NOTABLE)


def _months(entries: Sequence[AuditEntry]) -> dict[str, dict[str, int]]:
    months: dict[str, dict[str, int]] = {}
    for entry in reversed(entries):
        if _is_routine(entry) and entry.operation in _COUNTED:
            month = months.setdefault(f"{entry.began_at.astimezone():%Y-%m}", dict.fromkeys(_COUNTED, 0))
            month[entry.operation] += 1
    return months


def _is_routine(entry: AuditEntry) -> bool:
    return entry.operation in _ROUTINE and entry.result == audit.DONE


def _without_parts(trail: Sequence[AuditEntry]) -> list[AuditEntry]:
    """Return the trail without what the scheduled work called and went well: its own line says that."""
    shown: list[AuditEntry] = []
    scheduled: AuditEntry | None = None
    for entry in trail:
        if kind_of(entry):
            scheduled = entry
        part = scheduled is not None and entry is not scheduled and _is_routine(entry)
        within = scheduled and (scheduled.ended_at is None or entry.began_at <= scheduled.ended_at)
        if not (part and within):
            shown.append(entry)
    return shown


def _row(entry: AuditEntry) -> list[Content]:
    by = entry.by + (f" as {entry.user}" if entry.user and not entry.by.startswith(f"{entry.user}@") else "")
    about = units.clipped(entry.message, _LONGEST) or entry.summary
    return [time(entry.began_at), " ".join(entry.words) or entry.operation, verdict(entry.result), by, about]
