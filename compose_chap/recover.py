"""After the fact: finish or undo a run that was cut off, or undo one that had succeeded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from compose_chap import (
    beside,
    catalogue,
    engine_lock,
    engine_throwaway,
    evidence,
    lock,
    state,
    switch,
    transaction,
    undo,
    upgrade,
    verify,
)
from compose_chap.baseline import baseline_of
from compose_chap.change import (
    Change,
    containers_of,
    describe,
    kept_name,
    let_images_go,
    server_of,
    wait_for_server,
)
from compose_chap.checkout import Checkout, Move
from compose_chap.errors import ChapError, Interrupted, NeedsPerson, StateError
from compose_chap.postgres import Server
from compose_chap.stack import Origin, Stack
from compose_chap.state import Edit, Journal
from compose_chap.verify import Check
from compose_chap.world import World

_UNDONE_BY = {"upgrade": "rollback", "restore": "restore --undo"}


@dataclass(frozen=True)
class Recovered:
    """What `recover` did with a run of a project: `finished`, `undone`, or nothing because it had changed nothing.

    `checks` are what proves the state that was reached. `project` is empty where the run needed no engine.
    """

    run: str
    operation: str
    outcome: str
    project: str
    checks: tuple[Check, ...]


def recover(world: World, journal: Journal) -> Recovered:
    """Bring an interrupted run to its end: all new when it was done but for its record, all old otherwise.

    Safe to run again. Raise Locked when somebody elsewhere works on the stack, Interrupted when the run is one of
    another engine, NeedsPerson when the way back fails: the journal then stays open.
    """
    if journal.operation == "pin":
        journal.give_room()
        return _unpin(journal)
    whose = Origin.of(journal.record)
    project = whose.project or str(journal.facts.get("project", {}).get("name", ""))
    if not world.engine.origin(project).owns(whose):
        raise Interrupted(
            f"The {journal.operation} that was cut off is one of {whose}, and this is another engine.",
            state="Nothing was changed.",
            hint=f"Call docker with the context of {whose.server}: docker --context NAME chap recover",
        )
    if not project:
        return _recover(world, journal)  # it was cut off before it knew what to change
    images = [one.image_id for one in world.engine.containers(project)]
    with engine_lock.held(world, project, images, "recover"):
        return _recover(world, journal)


def _recover(world: World, journal: Journal) -> Recovered:
    journal.give_room()
    engine_throwaway.remove_abandoned(world.engine)
    change = Change.from_facts(journal.facts) if "baseline" in journal.facts else None
    project = change.project.name if change else ""
    if journal.began("finish"):
        # Everything was verified already.
        facts = journal.facts
        journal.end("done", checks=facts["checks"], downtime=facts["downtime"], recovered=True)
        checks = [Check(**one) for one in facts["checks"]]
        return Recovered(journal.id, journal.operation, "finished", project, tuple(checks))

    try:
        with lock.signals_held():
            checks = _back(world, change, journal) if change else []
            _remove_leftovers(world, journal, change)
            outcome = "undone" if journal.began("stop") or journal.began("checkout") else "nothing changed"
            journal.end(outcome, checks=[asdict(check) for check in checks], recovered=True)
    except ChapError as error:
        if not change:
            raise
        raise NeedsPerson(
            f"The {journal.operation} of {journal.id} could not be undone: {error.message}",
            state=evidence.state_now(world, change),
            hint=(f"{error.hint}\n" if error.hint else "")
            + "Mend the cause, then run again: docker chap recover\n"
            f"Or by hand:\n{evidence.by_hand(world, change, journal.facts.get('kept_dump', ''))}",
        ) from error
    return Recovered(journal.id, journal.operation, outcome, project, tuple(checks))


def _unpin(journal: Journal) -> Recovered:
    foreign = state.revert_edits(state.unpack_edits(journal.facts["edits"]))
    if foreign:
        raise StateError(f"{foreign[0]} was changed by someone else meanwhile, and was left as it is.")
    journal.end("undone", recovered=True)
    return Recovered(journal.id, journal.operation, "undone", "", ())


def _back(world: World, change: Change, journal: Journal) -> list[Check]:
    if journal.began("stop"):
        return undo.undo(world, change, journal)
    undo.sources_back(world, change, journal)
    # Pull, build, backup and a side database leave the running stack alone. Only a restart of the engine stops it.
    server = wait_for_server(world, change)
    server.end_own_sessions()
    if change.baseline.version:
        for name in change.writers:
            for container in containers_of(world, change.project, name):
                world.engine.start(container.id)
    try:
        return undo.look(world, change, server, {})
    except ChapError as error:
        # The run had no part in this: it is told of, and does not stand in the way.
        return [Check("ready", "error", error.message, error.hint)]


def _remove_leftovers(world: World, journal: Journal, change: Change | None) -> None:
    if folder := journal.facts.get("backups"):
        catalogue.remove_abandoned(Path(folder))
    if change is None:
        return
    let_images_go(world, journal.id, change.project.name)
    if journal.operation == "restore":
        beside.remove(server_of(world, change), journal.id, change.incoming)


@dataclass(frozen=True)
class RollbackPlan:
    """How to undo a run that succeeded: its record, the change that undoes it, and the rows written since.

    `notes` say what is lost by it. The change does not say yet how the newer data will be called.
    """

    undone: Mapping[str, Any]
    change: Change
    written_since: Mapping[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Undone:
    """What a rollback did; `kept` is the database of the newer data."""

    run: str
    kept: str
    checks: tuple[Check, ...]


def last_undoable(directory: Path, operation: str, origin: Origin = Origin()) -> dict[str, Any]:
    """Return the record of a stack's last run of this kind, if it is the one to undo. Raise StateError otherwise."""
    done = state.standing_runs(directory, origin)
    if not done:
        raise StateError(f"There is no {operation} to undo.", hint="See what was done: docker chap history")
    if done[-1]["operation"] != operation:
        raise StateError(
            f"The last run was a {done[-1]['operation']} ({done[-1]['id']}), not the {operation} to undo.",
            hint=f"Undo that first: docker chap {_UNDONE_BY[done[-1]['operation']]}",
        )
    record: dict[str, Any] = json.loads(state.undo_file(directory, done[-1]["id"]).read_bytes())
    return record


def plan_rollback(world: World, stack: Stack, operation: str) -> RollbackPlan:
    """Return the plan to undo the last upgrade or restore of a stack.

    Raise StateError when there is none, or when what it kept is gone.
    """
    record = last_undoable(stack.project.directory, operation, world.engine.origin(stack.project.name))
    done = Change.from_facts(record["facts"])
    server = server_of(world, done)
    if dump := record["facts"].get("kept_dump"):
        raise StateError(
            f"The {operation} kept the old data as a backup, {Path(dump).name}, and not as a database.",
            hint=f"Restore it with its version: docker chap restore {Path(dump).name} --with-version",
        )
    if not server.exists(done.kept):
        raise StateError(
            f"The database {done.kept}, which the {operation} kept, is gone.",
            hint=f"Restore a backup instead: docker chap restore {Path(record['facts'].get('backup', 'latest')).name}",
        )
    written = rows_written_since(server, done.kept, done.live)

    change = Change(
        operation="rollback",
        **describe(stack),
        kept="",
        incoming=done.kept,
        edits=tuple(Edit(edit.path, edit.after, edit.before) for edit in done.edits),
        recreate=done.recreate,
        images_after=done.images,
        expected=done.baseline.version,
        tables=server.counts(done.kept),
        baseline=baseline_of(world, stack),
        move=_way_back(done.move, operation),
    )
    _refuse_what_cannot_go_back(world, change, operation)
    lost = upgrade.lost_jobs(world, stack)
    return RollbackPlan(record, change, written, (lost,) if lost else ())


def roll_back(world: World, plan: RollbackPlan, credentials: Mapping[str, str]) -> Undone:
    """Carry a rollback out. Raise RolledBack, NeedsPerson or Cancelled as every transaction does."""
    change, undone = plan.change, str(plan.undone["id"])
    with lock.signals_held():
        journal = state.begin_run(
            change.project.directory,
            "rollback",
            change.to_facts(),
            world.clock,
            stack=world.engine.origin(change.project.name).to_json(),
            undoes=undone,
            rows_set_aside=dict(plan.written_since),
            **{"from": change.baseline.version, "to": change.expected},
        )
        # What is kept is called by the run that keeps it.
        change = replace(change, kept=kept_name(change.live, "after", journal.id))
        journal.learn(**change.to_facts())
    done = transaction.run(world, change, journal, credentials)
    # The kept images are the live ones again.
    let_images_go(world, undone, change.project.name)
    return Undone(journal.id, change.kept, done.checks)


def _way_back(move: Move | None, operation: str) -> Move | None:
    if move is None:
        return None
    now = Checkout(move.folder).place
    if now.commit != move.after.commit:
        raise StateError(
            f"The checkout {move.folder} is at {now}, and no longer at {move.after}, where the {operation} left it.",
            state="Nothing was changed.",
            hint=f"Go there, then roll back: git -C {move.folder} checkout --detach {move.after.commit}",
        )
    way = Move(move.folder, now, move.before)
    switch.refuse_what_cannot_move(way)
    return way


def _refuse_what_cannot_go_back(world: World, change: Change, operation: str) -> None:
    for edit in change.edits:
        if state.content_of(edit.path) != edit.before:
            raise StateError(
                f"{edit.path} is no longer as the {operation} left it.",
                state="Nothing was changed.",
                hint="Take the later changes out of the file, roll back, and put them in again.",
            )
    for image in change.images_after.values() if change.recreate else ():
        if world.engine.image(image["id"]) is None:
            raise StateError(
                f"The image {image['reference']} of before ({image['id'][:19]}) is no longer on this server.",
                state="Nothing was changed.",
                hint="Restore the backup instead: docker chap backups"
                if change.move
                else f"Get it back: docker pull {image['reference']}",
            )


def rows_written_since(server: Server, kept: str, live: str) -> dict[str, int]:
    """Return how many rows more each table has in the live database than in the kept one; CHAP's own do not count."""
    old, new = server.counts(kept), server.counts(live)
    more = {table: rows - old.get(table, 0) for table, rows in new.items() if table not in verify.SEEDED}
    return {table: rows for table, rows in more.items() if rows > 0}
