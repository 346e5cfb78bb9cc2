"""After the fact: finish or undo a run that was cut off, or undo one that had succeeded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compose_chap import backup, restore, state, transaction, upgrade, verify
from compose_chap.engine import Engine
from compose_chap.errors import ChapError, NeedsPerson, StateError
from compose_chap.postgres import Server
from compose_chap.stack import Stack
from compose_chap.state import Edit, Journal
from compose_chap.transaction import Change
from compose_chap.verify import Check
from compose_chap.world import World


@dataclass(frozen=True)
class Recovered:
    """What `recover` did with a run: `finished`, `undone`, or nothing because it had changed nothing."""

    run: str
    operation: str
    outcome: str
    checks: tuple[Check, ...]


def recover(world: World, journal: Journal) -> Recovered:
    """Bring an interrupted run to its end: all new when it was done but for its record, all old otherwise.

    Safe to run again. Raise NeedsPerson when the way back fails; the journal then stays open.
    """
    clean_up(world.engine)

    if journal.operation == "pin":
        foreign = state.revert_edits(state.unpack_edits(journal.facts["edits"]))
        if foreign:
            raise StateError(f"{foreign[0]} was changed by someone else meanwhile, and was left as it is.")
        journal.end("undone")
        return Recovered(journal.id, journal.operation, "undone", ())

    if not journal.began("stop"):
        # Pull, backup and a side database leave the running stack alone.
        _remove_leftovers(world, journal)
        journal.end("undone")
        return Recovered(journal.id, journal.operation, "nothing changed", ())

    change = Change.from_facts(journal.facts)
    try:
        with state.signals_held():
            checks = transaction.undo(world, change, journal)
    except ChapError as error:
        raise NeedsPerson(
            f"The {journal.operation} of {journal.id} could not be undone: {error.message}",
            state=transaction.state_now(world, change),
            hint="Mend the cause, then run again: docker chap recover",
        ) from error
    _remove_leftovers(world, journal)
    journal.end("undone", checks=[asdict(check) for check in checks])
    return Recovered(journal.id, journal.operation, "undone", tuple(checks))


def clean_up(engine: Engine) -> None:
    """Remove throwaway containers that a killed run left."""
    for identity in engine.throwaways():
        engine.discard(identity)


def _remove_leftovers(world: World, journal: Journal) -> None:
    facts = journal.facts
    if journal.operation == "upgrade":
        upgrade.let_images_go(world, journal.id, facts["project_name"])
        for partial in Path(facts["backups"]).glob(f"*{backup.PARTIAL}"):
            shutil.rmtree(partial, ignore_errors=True)
    if journal.operation == "restore" and "incoming" in facts:
        server = transaction.server_of(world, Change.from_facts(facts))
        restore.remove_side_database(server, journal.id, facts["incoming"])


@dataclass(frozen=True)
class RollbackPlan:
    """How to undo a run that succeeded: its record, the change that undoes it, and the rows written since."""

    undone: Mapping[str, Any]
    change: Change
    written_since: Mapping[str, int]


def last_undoable(directory: Path, operation: str) -> dict[str, Any]:
    """Return the record of the last run of this kind, if it is the one to undo. Raise StateError otherwise."""
    runs = [run for run in state.history(directory) if run["result"] == "done" and run["operation"] != "pin"]
    if not runs:
        raise StateError(f"There is no {operation} to undo.", hint="See what was done: docker chap history")
    if runs[-1]["operation"] != operation:
        raise StateError(
            f"The last run was a {runs[-1]['operation']} ({runs[-1]['id']}), not a {operation}.",
            hint="See what was done: docker chap history",
        )
    record: dict[str, Any] = json.loads(state.undo_file(directory, runs[-1]["id"]).read_bytes())
    return record


def plan_rollback(world: World, stack: Stack, operation: str) -> RollbackPlan:
    """Return the plan to undo the last upgrade or restore of a stack.

    Raise StateError when there is none, or when what it kept is gone.
    """
    record = last_undoable(stack.project.directory, operation)
    done = Change.from_facts(record["facts"])
    server = transaction.server_of(world, done)
    if not server.exists(done.kept):
        raise StateError(
            f"The database {done.kept}, which the {operation} kept, is gone.",
            hint=f"Restore a backup instead: docker chap restore {Path(record['facts'].get('backup', 'latest')).name}",
        )
    baseline = verify.observe(world, stack)
    written = rows_written_since(server, done.kept, done.live)
    run = state.run_id(world.clock())

    change = Change(
        operation="rollback",
        **transaction.describe(stack),
        kept=upgrade.kept_name(done.live, "after", run),
        incoming=done.kept,
        edits=tuple(Edit(edit.path, edit.after, edit.before) for edit in done.edits),
        recreate=done.recreate,
        images_after=done.images,
        expected=done.baseline.version,
        tables=server.counts(done.kept),
        baseline=baseline,
    )
    return RollbackPlan(record, change, written)


def rows_written_since(server: Server, kept: str, live: str) -> dict[str, int]:
    """Return how many rows more each table has in the live database than in the kept one."""
    old, new = server.counts(kept), server.counts(live)
    return {table: rows - old.get(table, 0) for table, rows in new.items() if rows > old.get(table, 0)}
