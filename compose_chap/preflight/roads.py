"""Whether the path to a release is one of those that are known to fail, and which path is better."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from compose_chap.check import Check
from compose_chap.errors import ChapError, EngineError
from compose_chap.image import release_key
from compose_chap.postgres.database_schema import MARK_TABLE
from compose_chap.preflight import unpinned
from compose_chap.preflight.known_roads import ANY, EVER, NEWEST_KNOWN, ROADS, Facts, Road
from compose_chap.preflight.subject import Subject

OVERRIDES = {road.name: road.allow for road in ROADS if road.allow}

_MARK = f"SELECT version_num FROM {MARK_TABLE}"
_BACKTESTS = "SELECT count(*) FROM public.backtest"
# The column may be missing; read through JSON, the query works in either case.
_LENGTHS = (
    "SELECT count(*) FROM public.modeltemplatedb t WHERE coalesce(to_jsonb(t) ->> 'min_prediction_length',"
    " to_jsonb(t) ->> 'max_prediction_length') IS NOT NULL"
)


def between(subject: Subject) -> list[Check]:
    """Return a check for each known fault on the path to the target, and one if the target is too new to be known."""
    return [*faults(subject), *newer_than_known(subject.target)]


def faults(subject: Subject) -> list[Check]:
    """Return a check for each known fault on the path to the target; none without a target."""
    try:
        way = [road for road in ROADS if subject.target and _leads(road, subject.release, subject.target)]
        return known(way, facts(subject), subject.release, subject.target) if way else []
    except ChapError as error:
        return [Check("roads", "fail", error.message, error.hint)]


def known(roads: Iterable[Road], facts: Facts, now: str, target: str) -> list[Check]:
    """Return a check for each road that fails with these facts; a warning when it has no override flag."""
    words = {"now": now, "target": target.removeprefix("v"), "facts": _Readable(facts)}
    return [
        Check(
            road.name,
            "fail" if road.allow else "warn",
            road.what.format(**words),
            road.instead.format(**words) + (f" To go all the same: {road.allow}" if road.allow else ""),
            {"source": road.evidence, "repaired": road.repaired.format(**words)},
        )
        for road in roads
        if road.on(facts)
    ]


def repaired(checks: Sequence[Check]) -> list[Check]:
    """Return the checks with `--repair`: faults that it repairs become warnings."""
    return [
        Check(check.name, "warn", check.details["repaired"], "", check.details)
        if check.details.get("repaired")
        else check
        for check in checks
    ]


def repairs(checks: Iterable[Check]) -> tuple[str, ...]:
    """Return the names of the faults that `--repair` has to repair."""
    return tuple(check.name for check in checks if check.details.get("repaired"))


def hint_after(reason: str, now: str, target: str) -> str:
    """Return a hint when the target's API ended at its start for a known reason, else empty."""
    for road in ROADS:
        if road.words and road.words in reason and _leads(road, now, target):
            return road.afterwards.format(now=now, target=target.removeprefix("v"))
    return ""


def seen(checks: Sequence[Check], tried: Iterable[Check], now: str, target: str) -> list[Check]:
    """Return the known faults after a rehearsal: no longer failures, plus an intermediate stop if it failed."""
    reasons = " ".join(check.message for check in tried if check.failed)
    hints = [hint_after(reasons, now, target)]
    stops = [
        Check("stop", "warn", f"There is a way with a stop from {now} to {target}.", hint) for hint in hints if hint
    ]
    return [replace(check, status="warn") if check.failed else check for check in checks] + stops


def newer_than_known(target: str) -> list[Check]:
    """Return a warning when the target is newer than any release this tool knows."""
    wanted, newest = release_key(target), release_key(NEWEST_KNOWN)
    if not wanted or not newest or wanted <= newest:
        return []
    message = f"{target} is newer than what this tool knows of CHAP (up to v{NEWEST_KNOWN}). It goes by what it sees."
    return [Check("note_newer", "warn", message, f"Try it first: docker chap rehearse {target}")]


def facts(subject: Subject) -> Facts:
    """Return the facts of the stack. Raise ChapError when its database cannot be read."""
    database = subject.database.name
    tables = subject.server.columns(database)
    queries = {"alembic_version": _MARK, "backtest": _BACKTESTS, "modeltemplatedb": _LENGTHS}
    queries = {table: question for table, question in queries.items() if f"public.{table}" in tables}
    answers: dict[str, Any] = {}
    if queries:
        answers = dict(zip(queries, subject.server.answers(*queries.values(), database=database)))
    return Facts(
        marks=tuple(row[0] for row in answers.get("alembic_version", ())),
        backtests=_number(answers.get("backtest")),
        lengths=_number(answers.get("modeltemplatedb")),
        unpinned=_unpinned(subject),
    )


def _unpinned(subject: Subject) -> tuple[str, ...]:
    # If this cannot be read, the new API fails at its start, and everything is rolled back.
    with suppress(EngineError):
        return unpinned.entries(subject.world.engine, subject.stack.api.containers[0], built=subject.built)
    return ()


def _number(rows: Any) -> int:
    return int(rows[0][0]) if rows else 0


def _leads(road: Road, now: str, target: str) -> bool:
    return _within(now, road.now) and _within(target, road.target)


def _within(release: str, span: tuple[str, str]) -> bool:
    # An unknown release is in the span of all releases.
    if span == (ANY, EVER):
        return True
    key, first, last = release_key(release), release_key(span[0]), release_key(span[1])
    return bool(key and first and last and first <= key <= last)


class _Readable:
    """Facts for messages: lists as text with commas, at most three entries."""

    def __init__(self, facts: Facts) -> None:
        self.marks, self.lengths, self.backtests = facts.marks, facts.lengths, facts.backtests
        more = len(facts.unpinned) - 3
        self.unpinned = ", ".join(facts.unpinned[:3]) + (f" and {more} more" if more > 0 else "")
