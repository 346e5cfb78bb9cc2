"""The one way forward that upgrade, restore and rollback share.

A change stops the writers, keeps the old data under another name, replaces files, data and containers as far
as needed, and verifies the result. Every step is in the journal before it begins. Whatever goes wrong,
`undo` brings everything back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from compose_chap import redact
from compose_chap.check import Check
from compose_chap.engine.world import World
from compose_chap.errors import Cancelled, ChapError, DatabaseError, NeedsPerson, RolledBack, StateError
from compose_chap.image import release_key
from compose_chap.model import Stack
from compose_chap.postgres.server import Server
from compose_chap.records import lock
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.stack.jobs import queued_jobs, take_no_more, waiting_jobs
from compose_chap.stack.observe import refreshed
from compose_chap.transaction import evidence, hooks, start_up, undo, verify
from compose_chap.transaction.containers import server_of, start_service, stop_services, wait_for_server
from compose_chap.transaction.data import repairs, value_query, values
from compose_chap.transaction.data.previous_data import PreviousData, previous_data_of
from compose_chap.transaction.data.value_query import Before
from compose_chap.transaction.file_changes import FileChanges, file_changes_of
from compose_chap.transaction.run.change import Change, begin
from compose_chap.transaction.run.facts import facts_of
from compose_chap.transaction.verify import VerifyFailed
from compose_chap.transaction.wait import EndedAtStart

# Checks of what the migration did to the values, which later may be somebody's work, and of what was seen only once.
_ONCE = ("repaired", "values", "queued_jobs")


@dataclass(frozen=True)
class Done:
    """A completed change: the checks, and for how many seconds CHAP did not answer."""

    checks: tuple[Check, ...]
    downtime: float


def run(world: World, change: Change, journal: Journal, credentials: Mapping[str, str]) -> Done:
    """Carry out a change and close its journal. On any failure, undo everything first.

    Raise RolledBack (everything is as before), Cancelled (the same, requested by the operator) or NeedsPerson.
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
        # From here on, an interrupted run is finished, not undone.
        journal.begin(Step.FINISH, **result)
        journal.end("done", **result, **record)
    except StateError as error:
        raise NeedsPerson(
            f"The {change.operation} could not be recorded: {error.message}",
            state=f"The {change.operation} itself is done and verified.",
            hint="Repair the cause, then run: docker chap recover",
        ) from error


def _forward(world: World, change: Change, journal: Journal, credentials: Mapping[str, str]) -> Done:
    server, file_changes = server_of(world, change), file_changes_of(change)
    previous = previous_data_of(change, facts_of(journal))

    # Asked once and remembered, and Compose takes a moment to read the files: neither need be while CHAP is down.
    server.version()
    file_changes.prepare(world)
    journal.learn(settings=undo.configurations_of(world, change))
    stack = refreshed(world.engine, change.project.name)
    api, *workers = change.writers
    begin(world, journal, Step.STOP, ", ".join(workers))
    with world.parallel(2) as (pool, _):
        getting_ready = pool.submit(previous.get_ready, server)
        ending = pool.submit(lambda: (waiting_jobs(world, stack), take_no_more(world, stack)))
        hooked = hooks.of(world, change.project)
        waited, idle = ending.result()
        # A worker that may have a job takes seconds to stop. The API does not: it serves until they have stopped.
        stop_services(world, change, workers, hooked, at_once=idle)
        getting_ready.result()
    # Last before the API stops, so that hardly any job can be queued after it.
    waiting = waiting_jobs(world, stack)
    down = world.clock()
    world.notify(Step.STOP.value, api)
    stop_services(world, change, [api], hooked)

    with world.parallel(1) as (pool, beside):
        # The API may have queued a job until its end, and nobody can ask it any more.
        asking = pool.submit(queued_jobs, beside, stack)
        previous.preserve(world, server, journal)
        _change_files_and_data(world, journal, server, file_changes, previous)
        queued = asking.result()
    # Where no job waits, a worker has nothing to do until the API serves, which is after its migration.
    together = queued == 0 and waiting is not None and not (waiting.waiting or waiting.own)
    answering, old_values = start_up.start(world, change, journal, hooked, workers=together)
    with world.parallel(2) as (pool, beside):
        # Where the workers run already, all that is left to ask is asked now.
        everything = pool.submit(_look_at_all, beside, change, credentials) if together else None
        rows = start_up.first_rows(world, change, journal)
        repaired = repairs.after_migration(server, change.live, change.repairs, old_values.put_back)
        compared = pool.submit(_values, server, change, journal, old_values.compared)
        checks = [*repaired, *_look_at_api(world, change, journal, answering.stack, rows)]
        checks += compared.result()
        checks += verify.queued(waited, waiting)
        # A run that is cut off from here on is finished by `recover`, which cannot see these again.
        journal.learn(early_checks=[asdict(check) for check in checks if check.name in _ONCE])

        # With jobs that wait, the worker comes second: it may not run them on a schema that nobody has looked at.
        begin(world, journal, Step.START_WORKER, ", ".join(workers))
        if not together:
            start_up.bring_up(world, change, workers, hooked)
        begin(world, journal, Step.VERIFY)
        checks_of_all = everything.result() if everything else _look_at_all(world, change, credentials)
    return Done((*checks, *verify.raise_if_failed(checks_of_all)), (answering.since - down).total_seconds())


def _change_files_and_data(
    world: World, journal: Journal, server: Server, file_changes: FileChanges, previous: PreviousData
) -> None:
    """Change the files, and let incoming data be the live ones."""
    # Somebody may call Compose while this run is cut off: newer code may not meet older data then.
    newer = _is_newer(file_changes.change)
    if newer:
        previous.bring_in(world, server, journal)
    file_changes.apply(world, journal)
    file_changes.check(world)
    if not newer:
        previous.bring_in(world, server, journal)


def _is_newer(change: Change) -> bool:
    """Whether a change brings a newer version than the one before, as far as their numbers say."""
    before, after = release_key(change.baseline.version), release_key(change.expected)
    return bool(before and after and before < after)


def look_again(world: World, change: Change, journal: Journal) -> Done | None:
    """Verify a change again that was interrupted during its verification; return the result, None when it is not good.

    Everything was in place then, and CHAP may have served since: a rollback would set that data aside. Raise ChapError
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
        checks += _look_at_api(world, change, journal, start_up.first_answer(world, change).stack)
        checks += verify.raise_if_failed(verify.forgiving(_look_at_all(world, change, {})))
    except ChapError:
        return None
    return Done(tuple(checks), (begun[Step.START_WORKER] - begun[Step.STOP]).total_seconds())


def may_be_complete(journal: Journal) -> bool:
    """Whether an interrupted run had everything in place, so that it only has to be verified."""
    return journal.began(Step.VERIFY) and not journal.began(Step.GO_BACK) and "failure" not in journal.record


def _look_at_api(
    world: World, change: Change, journal: Journal, stack: Stack, rows: Mapping[str, int] | None = None
) -> list[Check]:
    tables = change.tables or facts_of(journal).old_tables
    results = verify.check_api(world, stack, change.expected, tables, rows)
    checks = verify.raise_if_failed(verify.as_before(results, change.accepted))
    # Rows written from now on are users' work; those of the migration are not.
    journal.learn(new_tables=next((check.details["now"] for check in checks if "now" in check.details), {}))
    return checks


def _values(server: Server, change: Change, journal: Journal, before: Before | DatabaseError | None) -> list[Check]:
    """Return what the migration did to the values, as a check. A failure to read them is no reason to roll back."""
    if before is None:
        return []
    try:
        if isinstance(before, DatabaseError):
            raise before
        result = value_query.compare(server, before, change.live, facts_of(journal).old_tables)
    except DatabaseError as error:
        return [Check("values", "warn", f"Whether values changed could not be checked: {error.message}")]
    return [values.check(result, evidence.sql_command(change, result.put_back))]


def _look_at_all(world: World, change: Change, credentials: Mapping[str, str]) -> list[Check]:
    stack = refreshed(world.engine, change.project.name)
    return verify.check_everything(world, stack, change.expected, change.baseline, credentials)


def _back_after(world: World, change: Change, journal: Journal, error: BaseException) -> None:
    cancelled = isinstance(error, KeyboardInterrupt)
    cause = redact.redact(error.message if isinstance(error, ChapError) else str(error) or type(error).__name__)
    seen = _failed(error)
    journal.release_reserve()
    world.notify("failed", "cancelled" if cancelled else cause)
    journal.note(failure="cancelled" if cancelled else cause, failed_checks=[asdict(check) for check in seen])
    evidence_hint = evidence.gather(world, change, journal)
    try:
        checks = undo.undo(world, change, journal)
        journal.end("cancelled" if cancelled else "rolled back", checks=[asdict(check) for check in checks])
    except Exception as second:
        message = second.message if isinstance(second, ChapError) else f"{type(second).__name__}: {second}"
        needed = NeedsPerson(
            f"The {change.operation} failed: {cause}\nPutting everything back failed too: {redact.redact(message)}",
            state=evidence.state_now(world, change),
            hint=(f"{second.hint}\n" if isinstance(second, ChapError) and second.hint else "")
            + "Repair the cause, then run: docker chap recover\n"
            f"Or by hand:\n{evidence.by_hand(world, change, journal)}"
            + (f"\n{evidence_hint}" if evidence_hint else ""),
        )
        needed.details = evidence.of_run(change.project.directory, journal, seen, ended=False)
        raise needed from error
    shown = ("chap_version", "rows", "ready")
    proof = " ".join(check.message for check in checks if check.name in shown or check.status == "warn")
    state = f"Everything is as it was before. {proof}"
    ended: ChapError = RolledBack(f"The {change.operation} failed: {cause}", state=state, hint=evidence_hint)
    if cancelled:
        ended = Cancelled(f"The {change.operation} was cancelled.", state=state)
    ended.details = evidence.of_run(change.project.directory, journal, [*seen, *checks], ended=True)
    raise ended from (None if cancelled else error)


def _failed(error: BaseException) -> list[Check]:
    """Return what failed, as checks."""
    if isinstance(error, VerifyFailed):
        return error.checks
    return [Check("start", "fail", error.message)] if isinstance(error, EndedAtStart) else []
