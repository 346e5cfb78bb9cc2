"""Start CHAP during a change, and do meanwhile what can be done without it, until its API answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from datetime import datetime

from compose_chap.engine.world import World
from compose_chap.errors import DatabaseError
from compose_chap.model import Stack
from compose_chap.postgres.server import Server
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.stack.observe import refreshed
from compose_chap.transaction import wait
from compose_chap.transaction.containers import recreate, server_of, start_service
from compose_chap.transaction.data import repairs, value_query
from compose_chap.transaction.data.value_query import Before
from compose_chap.transaction.data.values import Column
from compose_chap.transaction.hooks import Hooks
from compose_chap.transaction.run.change import Change, begin
from compose_chap.transaction.run.facts import facts_of


@dataclass(frozen=True)
class Answering:
    """The stack when its API answers, and since when it does."""

    stack: Stack
    since: datetime


@dataclass(frozen=True)
class OldValues:
    """Values of the previous data: those to compare an upgrade with, and those that are put back after it.

    `compared` is None for another operation, and an error where the values could not be read.
    """

    compared: Before | DatabaseError | None
    put_back: Mapping[str, Column]


def start(
    world: World, change: Change, journal: Journal, hooked: Hooks, *, workers: bool
) -> tuple[Answering, OldValues]:
    """Start the API, and the workers too if asked for; return when the API answers.

    Raise EndedAtStart when it ends instead, other ChapErrors when it cannot be started.
    """
    server, api = server_of(world, change), change.writers[0]
    journal.learn(since=server.moment())
    begin(world, journal, Step.START_API, api)
    # From here on, the way back restores the kept data: the live data may not be changed before.
    repairs.before_start(server, change.live, change.repairs)
    copied = change.operation == "upgrade" and facts_of(journal).kept_dump is None
    old_values = None if copied else _old_values(server, change, change.live, journal)
    with world.parallel(3) as (pool, _):
        # A copy stays as it is, so it can be read while the API starts on the other database.
        reading = pool.submit(_old_values, server, change, change.kept, journal) if copied else None
        # The old data as they were when nobody wrote to them any more.
        counting = pool.submit(_old_rows, server, change)
        bring_up(world, change, [api], hooked)
        starting = pool.submit(bring_up, world, change, change.writers[1:], hooked) if workers else None
        try:
            journal.learn(old_tables=counting.result() or facts_of(journal).old_tables)
            begin(world, journal, Step.VERIFY_API)
            answering = first_answer(world, change, journal)
        finally:
            if starting:
                futures.wait([starting])  # what Compose is in the middle of cannot be undone yet
        if starting:
            starting.result()
        if reading:
            old_values = reading.result()
    assert old_values
    return answering, old_values


def bring_up(world: World, change: Change, services: Sequence[str], hooked: Hooks) -> None:
    """Recreate services from the files, or start the containers that they have. Raise ChapError."""
    if not services:
        return
    if change.recreate:
        recreate(world, change, services, change.images_after)
        return
    for name in services:
        start_service(world, change, name, hooked)


def first_answer(world: World, change: Change, journal: Journal | None = None) -> Answering:
    """Wait until the API answers, or nothing happens any more: then the checks that follow fail.

    With a `journal`, that moment is recorded: later changes are users' work.
    """
    stack = refreshed(world.engine, change.project.name)
    silent = wait.wait_for_answer(world, stack)
    answering = Answering(stack, world.clock())
    # Without an answer nobody could write either: all that changes is the migration's work.
    if journal and silent is not None:
        # Where it answered sooner than anybody looked, what it did at its start counts too.
        moment = server_of(world, change).moment() if silent else facts_of(journal).since
        journal.learn(answered={"since": moment, "tables": {}})
    return answering


def first_rows(world: World, change: Change, journal: Journal) -> dict[str, int]:
    """Return the rows of each table, and record them with the moment of the first answer, of which they are."""
    rows = server_of(world, change).counts(change.live)
    if answered := facts_of(journal).answered:
        journal.learn(answered={"since": answered.since, "tables": rows})
    return rows


def _old_values(server: Server, change: Change, database: str, journal: Journal) -> OldValues:
    """Return the values of the previous data in `database`: the copy, or the live one before the API starts."""
    put_back = repairs.lost_values(server, database, change.repairs)
    if change.operation != "upgrade":
        return OldValues(None, put_back)
    try:
        if database == change.kept:
            return OldValues(value_query.kept(server, database), put_back)
        return OldValues(value_query.remember(server, database, facts_of(journal).old_tables), put_back)
    except DatabaseError as error:
        # No reason to roll back.
        return OldValues(error, put_back)


def _old_rows(server: Server, change: Change) -> dict[str, int]:
    try:
        return server.counts(change.kept) if server.exists(change.kept) else {}
    except DatabaseError:
        # Damaged data are what a restore is for: what comes in is compared with the dump, not with them.
        if change.operation == "restore":
            return {}
        raise
