"""Undo a successful run: restore the previous files, images and data, and keep the newer data in another database."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from compose_chap.check import Check
from compose_chap.edit import Edit
from compose_chap.engine.world import World
from compose_chap.errors import EngineError, StateError
from compose_chap.model import Origin, Stack
from compose_chap.postgres.server import Server
from compose_chap.project import checkout_move
from compose_chap.project.checkout import Checkout, Move
from compose_chap.reading import Value
from compose_chap.records import lock, run_records
from compose_chap.records.files import durable
from compose_chap.stack import model_schema, schema, would_differ
from compose_chap.stack.databases import refuse_irreversible
from compose_chap.stack.jobs import lost_jobs
from compose_chap.stack.schema import Schema
from compose_chap.transaction import forward
from compose_chap.transaction.containers import server_of
from compose_chap.transaction.data.previous_data import previous_data_of
from compose_chap.transaction.data.written import rows_since
from compose_chap.transaction.file_changes import file_changes_of
from compose_chap.transaction.run import kept
from compose_chap.transaction.run.baseline import baseline_of
from compose_chap.transaction.run.change import Change, describe
from compose_chap.transaction.run.facts import read_change, read_facts

_UNDONE_BY = {"upgrade": "rollback", "restore": "restore --undo"}


@dataclass(frozen=True)
class RollbackPlan:
    """How to undo a successful run: its record, the change that undoes it, and how the tables grew or shrank since.

    `notes` say what is lost. The change does not have the name for the newer data yet.
    """

    undone: Mapping[str, Any]
    change: Change
    written_since: Mapping[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Undone:
    """The result of a rollback; `kept` is the database with the newer data."""

    run: str
    kept: str
    checks: tuple[Check, ...]


def last_undoable(directory: Path, operation: str, origin: Origin = Origin()) -> dict[str, Any]:
    """Return the record of a stack's last run if it is of this kind and can be undone, else raise StateError."""
    done = run_records.effective_runs(directory, origin)
    if not any(run["operation"] == operation for run in done):
        raise StateError(f"There is no {operation} to undo.", hint="See what was done: docker chap history")
    if done[-1]["operation"] != operation:
        raise StateError(
            f"There was another run after that {operation}: {done[-1]['operation']} {done[-1]['id']}.",
            hint=f"Undo that first: docker chap {_UNDONE_BY[done[-1]['operation']]}",
        )
    return run_records.undo_record(directory, done[-1]["id"])


def plan_rollback(world: World, stack: Stack, operation: str, *, allow_drift: bool = False) -> RollbackPlan:
    """Return the plan to undo the last upgrade or restore of a stack.

    Raise StateError when there is none, when what it kept is gone, or when recreated containers would get other
    settings than those that run, unless `allow_drift`.
    """
    record = last_undoable(stack.project.directory, operation, world.engine.origin(stack.project.name))
    known = Value(
        record["facts"], str(run_records.undo_file(stack.project.directory, record["id"])), StateError, "facts"
    )
    done, facts = read_change(known), read_facts(known)
    server = server_of(world, done)
    previous_data_of(done, facts).refuse_what_is_gone(server)
    refuse_irreversible(server, done.live)
    refuse_irreversible(server, done.kept)
    rows = server.counts(done.kept)
    written = rows_since(facts.new_tables or done.tables or rows, server.counts(done.live))

    fault = _schema_fault(world, server, done)
    change = Change(
        operation="rollback",
        **describe(stack, server),
        kept="",
        incoming=done.kept,
        edits=tuple(Edit(edit.path, edit.after, edit.before) for edit in done.edits),
        recreate=done.recreate,
        images_after=done.images,
        expected=done.baseline.version,
        tables=rows,
        accepted=fault.verdict if fault else "",
        baseline=baseline_of(world, stack),
        move=_way_back(done.move, operation),
    )
    _refuse_what_cannot_go_back(world, change, operation, facts.backup.name if facts.backup else "")
    unchecked = ""
    if change.recreate and not allow_drift:
        containers = {service.name: service.containers for service in stack.writers}
        unchecked = would_differ.refuse(world.engine, stack.project, containers)
    before = f"The previous data were not in order either. {fault.summary}" if fault else ""
    return RollbackPlan(record, change, written, tuple(filter(None, (lost_jobs(world, stack), before, unchecked))))


def roll_back(world: World, plan: RollbackPlan, credentials: Mapping[str, str]) -> Undone:
    """Carry out a rollback. Raise RolledBack, NeedsPerson or Cancelled as every transaction does."""
    change, undone = plan.change, str(plan.undone["id"])
    with lock.signals_ignored():
        journal = run_records.begin_run(
            change.project.directory,
            "rollback",
            change.to_facts(),
            world.clock,
            stack=world.engine.origin(change.project.name).to_json(),
            undoes=undone,
            rows_set_aside=dict(plan.written_since),
            **{"from": change.baseline.version, "to": change.expected},
        )
        # Kept data are named after the run that keeps them.
        change = replace(change, kept=kept.kept_name(change.live, kept.AFTER, journal.id))
        journal.learn(**change.to_facts())
    done = forward.run(world, change, journal, credentials)
    # The kept images are the live ones again.
    kept.untag_kept_images(world, undone, change.project.name)
    return Undone(journal.id, change.kept, done.checks)


def _schema_fault(world: World, server: Server, done: Change) -> Schema | None:
    """Compare the kept data with the code that will run on them; return the result if it is bad, else None.

    It is checked now, to save downtime. If it cannot be read now, it is checked when that code runs.
    """
    with suppress(EngineError):
        models = model_schema.of_image(world, done.images[done.writers[0]]["id"])
        comparison = schema.inspect(models, server, done.kept)
        return comparison if comparison.status == "fail" else None
    return None


def _way_back(move: Move | None, operation: str) -> Move | None:
    if move is None:
        return None
    now = Checkout(move.folder).head
    if now.commit != move.after.commit:
        raise StateError(
            f"The checkout {move.folder} is at {now}, and no longer at {move.after}, where the {operation} left it.",
            state="Nothing was changed.",
            hint=f"Go there, then roll back: git -C {quote(str(move.folder))} checkout --detach {move.after.commit}",
        )
    way = Move(move.folder, now, move.before)
    checkout_move.refuse_what_cannot_move(way)
    return way


def _refuse_what_cannot_go_back(world: World, change: Change, operation: str, backup: str) -> None:
    for edit in change.edits:
        durable.check_writable(edit.path)
        if durable.content_of(edit.path) != edit.before:
            raise StateError(
                f"{edit.path} was changed after the {operation}.",
                state="Nothing was changed.",
                hint="Remove the later changes from the file, roll back, then add them again.",
            )
    for image in change.images_after.values() if change.recreate else ():
        if world.engine.image(image["id"]) is None:
            raise StateError(
                f"The image {image['reference']} that ran before ({image['id'][:19]}) is no longer on this server.",
                state="Nothing was changed.",
                hint=file_changes_of(change).how_to_get(image["reference"], backup),
            )
