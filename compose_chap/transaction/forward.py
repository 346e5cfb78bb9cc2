"""The one way forward that upgrade, restore and rollback share.

A change stops the writers, keeps the old data under another name, replaces files, data and containers as far
as it has to, and looks at the result. Every step is in the journal before it begins. Whatever goes wrong,
`undo` brings everything back.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from compose_chap import redact
from compose_chap.check import Check
from compose_chap.engine.world import World
from compose_chap.errors import Cancelled, ChapError, DatabaseError, NeedsPerson, RolledBack, StateError
from compose_chap.model import Stack
from compose_chap.postgres.server import Server
from compose_chap.records import lock
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.stack.observe import refreshed
from compose_chap.transaction import evidence, hooks, undo, verify, wait
from compose_chap.transaction.containers import (
    recreate,
    server_of,
    start_service,
    stop_services,
    stop_workers,
    wait_for_server,
)
from compose_chap.transaction.data import repairs, value_query, values
from compose_chap.transaction.data.previous_data import previous_data_of
from compose_chap.transaction.data.value_query import Before
from compose_chap.transaction.run.change import Change, begin
from compose_chap.transaction.run.facts import facts_of
from compose_chap.transaction.sources import sources_of
from compose_chap.transaction.verify import VerifyFailed
from compose_chap.transaction.wait import EndedAtStart

# Checks of what the migration did to the values, which later may be somebody's work, and of what was seen only once.
_ONCE = ("repaired", "values", "queued_jobs")


@dataclass(frozen=True)
class Done:
    """A change that was carried out: what was verified, and for how many seconds CHAP did not answer."""

    checks: tuple[Check, ...]
    downtime: float


def run(world: World, change: Change, journal: Journal, credentials: Mapping[str, str]) -> Done:
    """Carry a change out and close its journal. On any failure go all the way back first.

    Raise RolledBack (all is as it was), Cancelled (the same, on the operator's word) or NeedsPerson.
    """
    with lock.single_interruption():
        try:
            done = _forward(world, change, journal, credentials)
        except BaseException as error:
            with lock.signals_ignored():
                _back_after(world, change, journal, error)
            raise AssertionError("unreachable") from None
        with lock.signals_ignored():
            finish(change, journal, done)
    return done


def finish(change: Change, journal: Journal, done: Done, **record: Any) -> None:
    """Close the journal of a change that is verified, with `record` added. Raise NeedsPerson where it cannot be."""
    result = {"checks": [asdict(check) for check in done.checks], "downtime": done.downtime}
    journal.release_reserve()
    try:
        # From here on a run that was cut off is finished, not undone.
        journal.begin(Step.FINISH, **result)
        journal.end("done", **result, **record)
    except StateError as error:
        raise NeedsPerson(
            f"The {change.operation} could not be recorded: {error.message}",
            state=f"The {change.operation} itself is done and verified.",
            hint="Repair the cause, then run: docker chap recover",
        ) from error


def _forward(world: World, change: Change, journal: Journal, credentials: Mapping[str, str]) -> Done:
    server, sources = server_of(world, change), sources_of(change)
    previous = previous_data_of(change, facts_of(journal))

    # Asked once and remembered, and Compose takes a moment to read the files: neither need be while CHAP is down.
    server.version()
    sources.prepare(world)
    journal.learn(settings=undo.settings_of(world, change))
    hooked = hooks.of(world, change.project)
    api, *workers = change.writers
    begin(world, journal, Step.STOP, ", ".join(change.writers))
    # Workers take seconds to stop, the API does not: it serves until they have stopped.
    queued = stop_workers(world, change, workers, hooked)
    down = world.clock()
    stop_services(world, change, [api], hooked)

    previous.keep(world, server, journal)
    sources.apply(world, journal)
    previous.bring_in(world, server, journal)

    journal.learn(since=server.moment())
    begin(world, journal, Step.START_API, api)
    before = _values_before(server, change, journal)
    # From here on the way back brings the kept data: not before may the live ones be changed.
    remembered = repairs.before_start(server, change.live, change.repairs)
    _bring_up(world, change, [api], hooked)
    # Counted while the API starts: the old data as they were when nobody wrote to them any more.
    journal.learn(old_tables=_old_rows(server, change) or facts_of(journal).old_tables)
    begin(world, journal, Step.VERIFY_API)
    stack, up, rows = _answering(world, change, journal)
    repaired = repairs.after_migration(server, change.live, change.repairs, remembered)
    with ThreadPoolExecutor(1) as pool:
        compared = pool.submit(_values, server, change, journal, before)
        checks = [*repaired, *_look_at_api(world, change, journal, stack, rows)]
    checks += [*compared.result(), *verify.queued(queued)]
    # A run that is cut off from here on is finished by `recover`, which cannot see these again.
    journal.learn(early_checks=[asdict(check) for check in checks if check.name in _ONCE])

    # The worker comes second: it may not run against a schema that nobody has looked at.
    begin(world, journal, Step.START_WORKER, ", ".join(workers))
    _bring_up(world, change, workers, hooked)
    begin(world, journal, Step.VERIFY)
    whole = _look_at_all(world, change, credentials)
    return Done((*checks, *verify.raise_if_failed(whole)), (up - down).total_seconds())


def look_again(world: World, change: Change, journal: Journal) -> Done | None:
    """Return what is verified now of a change that was cut off while its result was looked at; None: it is no good.

    All was in place then, and CHAP may have served ever since: to go back would put that aside. Raise ChapError
    when the database does not answer.
    """
    if not may_be_complete(journal):
        return None
    begun = {event["step"]: datetime.fromisoformat(event["at"]) for event in journal.record["steps"]}
    world.notify("verify", "", 0, 0)
    wait_for_server(world, change)
    try:
        hooked = hooks.of(world, change.project)
        for name in change.writers:
            start_service(world, change, name, hooked, forgiving=True)
        checks = [*facts_of(journal).early_checks]
        stack, _, rows = _answering(world, change)
        checks += _look_at_api(world, change, journal, stack, rows)
        checks += verify.raise_if_failed(verify.forgiving(_look_at_all(world, change, {})))
    except ChapError:
        return None
    return Done(tuple(checks), (begun[Step.START_WORKER] - begun[Step.STOP]).total_seconds())


def may_be_complete(journal: Journal) -> bool:
    """Whether a run that was cut off had all in place, so that it only has to be verified."""
    return journal.began(Step.VERIFY) and not journal.began(Step.GO_BACK) and "failure" not in journal.record


def _answering(
    world: World, change: Change, journal: Journal | None = None
) -> tuple[Stack, datetime, Mapping[str, int]]:
    """Return the stack as it is now, when its API answers, since when it does, and the rows of each table then.

    With a `journal` it is written down how the data were then: what is changed later is changed by somebody.
    """
    stack = refreshed(world.engine, change.project.name)
    silent = wait.wait_for_answer(world, stack)
    since, server = world.clock(), server_of(world, change)
    if not journal:
        return stack, since, server.counts(change.live)
    # Where it answered sooner than anybody looked, what it did at its start counts too.
    moment = server.moment() if silent else facts_of(journal).since
    rows = server.counts(change.live)
    journal.learn(answered={"since": moment, "tables": rows})
    return stack, since, rows


def _look_at_api(world: World, change: Change, journal: Journal, stack: Stack, rows: Mapping[str, int]) -> list[Check]:
    tables = change.tables or facts_of(journal).old_tables
    found = verify.check_api(world, stack, change.expected, tables, rows)
    checks = verify.raise_if_failed(verify.as_before(found, change.accepted))
    # What is written from now on is somebody's work; what the migration made is not.
    journal.learn(new_tables=next((check.details["now"] for check in checks if "now" in check.details), {}))
    return checks


def _values_before(server: Server, change: Change, journal: Journal) -> Before | DatabaseError | None:
    """Return the values that an upgrade is compared with, None for another operation.

    Where no copy stays in the server they are read now, for the new version is about to change them. That they cannot
    be is no reason to go back.
    """
    if change.operation != "upgrade":
        return None
    try:
        if server.exists(change.kept):
            return value_query.kept(server, change.kept)
        return value_query.remember(server, change.live, facts_of(journal).old_tables)
    except DatabaseError as error:
        return error


def _values(server: Server, change: Change, journal: Journal, before: Before | DatabaseError | None) -> list[Check]:
    """Return what the migration made of the values, as a check. What cannot be asked is no reason to go back."""
    if before is None:
        return []
    try:
        if isinstance(before, DatabaseError):
            raise before
        result = value_query.compare(server, before, change.live, facts_of(journal).old_tables)
    except DatabaseError as error:
        return [Check("values", "warn", f"Whether values changed could not be seen: {error.message}")]
    return [values.check(result, evidence.sql_command(change, result.put_back))]


def _look_at_all(world: World, change: Change, credentials: Mapping[str, str]) -> list[Check]:
    stack = refreshed(world.engine, change.project.name)
    return verify.check_whole(world, stack, change.expected, change.baseline, credentials)


def _old_rows(server: Server, change: Change) -> dict[str, int]:
    try:
        return server.counts(change.kept) if server.exists(change.kept) else {}
    except DatabaseError:
        # Damaged data are what a restore is for: what comes in is compared with the dump, not with them.
        if change.operation == "restore":
            return {}
        raise


def _bring_up(world: World, change: Change, services: list[str], hooked: hooks.Hooks) -> None:
    if not services:
        return
    if change.recreate:
        recreate(world, change, services, change.images_after)
        return
    for name in services:
        start_service(world, change, name, hooked)


def _back_after(world: World, change: Change, journal: Journal, error: BaseException) -> None:
    cancelled = isinstance(error, KeyboardInterrupt)
    cause = redact.redact(error.message if isinstance(error, ChapError) else str(error) or type(error).__name__)
    seen = _failed(error)
    journal.release_reserve()
    world.notify("failed", "cancelled" if cancelled else cause)
    journal.note(failure="cancelled" if cancelled else cause, failed_checks=[asdict(check) for check in seen])
    found = evidence.gather(world, change, journal)
    try:
        checks = undo.undo(world, change, journal)
        journal.end("cancelled" if cancelled else "rolled back", checks=[asdict(check) for check in checks])
    except Exception as second:
        said = second.message if isinstance(second, ChapError) else f"{type(second).__name__}: {second}"
        needed = NeedsPerson(
            f"The {change.operation} failed: {cause}\nPutting everything back failed too: {redact.redact(said)}",
            state=evidence.state_now(world, change),
            hint=(f"{second.hint}\n" if isinstance(second, ChapError) and second.hint else "")
            + "Repair the cause, then run: docker chap recover\n"
            f"Or by hand:\n{evidence.by_hand(world, change, journal)}" + (f"\n{found}" if found else ""),
        )
        needed.details = evidence.of_run(change.project.directory, journal, seen, ended=False)
        raise needed from error
    told = ("chap_version", "rows", "ready")
    proof = " ".join(check.message for check in checks if check.name in told or check.status == "warn")
    state = f"Everything is as it was before. {proof}"
    ended: ChapError = RolledBack(f"The {change.operation} failed: {cause}", state=state, hint=found)
    if cancelled:
        ended = Cancelled(f"The {change.operation} was cancelled.", state=state)
    ended.details = evidence.of_run(change.project.directory, journal, [*seen, *checks], ended=True)
    raise ended from (None if cancelled else error)


def _failed(error: BaseException) -> list[Check]:
    """Return what was looked at and is not good, as checks."""
    if isinstance(error, VerifyFailed):
        return error.checks
    return [Check("start", "fail", error.message)] if isinstance(error, EndedAtStart) else []
