"""Whether the path to a release is one of those that are known to fail, and which path is better."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

from compose_chap import revisions
from compose_chap.check import Check
from compose_chap.errors import ChapError, EngineError
from compose_chap.image import release_key
from compose_chap.postgres import database_schema
from compose_chap.preflight import unpinned
from compose_chap.preflight.known_roads import ANY, EVER, ROADS, Road, RoadFacts
from compose_chap.preflight.subject import Subject

OVERRIDES = {road.name: road.allow for road in ROADS if road.allow}

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


def known(roads: Iterable[Road], facts: RoadFacts, now: str, target: str) -> list[Check]:
    """Return a check for each road that fails with these facts; a warning when it has no override flag."""
    words = {"now": now, "target": target.removeprefix("v"), "facts": _Readable(facts)}
    return [
        Check(
            road.name,
            "fail" if road.allow else "warn",
            road.what.format(**words),
            road.instead.format(**words) + (f" To do it anyway: {road.allow}" if road.allow else ""),
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


def hint_after(reason: str, now: str, target: str, repairs: Collection[str] = ()) -> str:
    """Return what to do after the API of the target ended at its start for a reason, empty where that is not known.

    What was among the `repairs` of that try is of no use again.
    """
    for road in ROADS:
        if road.words and road.words in reason and road.name not in repairs and _leads(road, now, target):
            return road.afterwards.format(now=now, target=target.removeprefix("v"))
    return ""


def seen(
    checks: Sequence[Check], tried: Iterable[Check], now: str, target: str, repairs: Collection[str] = ()
) -> list[Check]:
    """Return what is known of a way that was tried on a copy: no reason to refuse it, and a good one where it failed.

    `repairs` were made on the copy.
    """
    reasons = " ".join(check.message for check in tried if check.failed)
    hint = hint_after(reasons, now, target, repairs)
    good = [Check("good_way", "warn", f"There is a known upgrade path from {now} to {target}:", hint)] if hint else []
    return [replace(check, status="warn") if check.failed else check for check in checks] + good


def newer_than_known(target: str) -> list[Check]:
    """Return one line where the target is newer than what this tool knows about CHAP."""
    wanted, newest = release_key(target), release_key(revisions.NEWEST)
    if not wanted or not newest or wanted <= newest:
        return []
    message = (
        f"{target} is newer than what this tool knows about CHAP (up to v{revisions.NEWEST})."
        " It relies on what it can check."
    )
    return [Check("note_newer", "warn", message, f"Try it first: docker chap rehearse {target}")]


def facts(subject: Subject) -> RoadFacts:
    """Return the facts of the stack. Raise ChapError when its database cannot be read."""
    database = subject.database.name
    with ThreadPoolExecutor(1) as pool:
        unpinned_models = pool.submit(_unpinned, subject)
        has = database_schema.read(subject.server, database)
        queries = {"backtest": _BACKTESTS, "modeltemplatedb": _LENGTHS}
        queries = {table: question for table, question in queries.items() if table in has.tables}
        answers: dict[str, Any] = {}
        if queries:
            answers = dict(zip(queries, subject.server.answers(*queries.values(), database=database)))
    return RoadFacts(
        marks=has.marks,
        backtests=_number(answers.get("backtest")),
        lengths=_number(answers.get("modeltemplatedb")),
        unpinned=unpinned_models.result(),
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

    def __init__(self, facts: RoadFacts) -> None:
        self.marks, self.lengths, self.backtests = facts.marks, facts.lengths, facts.backtests
        more = len(facts.unpinned) - 3
        self.unpinned = ", ".join(facts.unpinned[:3]) + (f" and {more} more" if more > 0 else "")
