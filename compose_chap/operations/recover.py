"""Finish or undo an interrupted run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from compose_chap.backups.backup import remove_abandoned
from compose_chap.check import Check
from compose_chap.engine import throwaway
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, EngineError, Interrupted, NeedsPerson, StateError
from compose_chap.model import Origin
from compose_chap.operations import guard
from compose_chap.records import engine_lock, lock
from compose_chap.records.files import durable
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.restore import side_database
from compose_chap.stack import would_differ
from compose_chap.transaction import evidence, forward, undo
from compose_chap.transaction.containers import containers_of, may_be_changed, server_of
from compose_chap.transaction.data.previous_data import previous_data_of
from compose_chap.transaction.run import kept
from compose_chap.transaction.run.change import Change
from compose_chap.transaction.run.facts import facts_of, read_change, read_edits


@dataclass(frozen=True)
class Recovered:
    """What `recover` did with a run of a project: `finished`, `undone`, or `nothing changed`.

    `checks` prove the state that was reached. `project` is empty when the run needed no engine.
    """

    run: str
    operation: str
    outcome: str
    project: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Prospect:
    """What `recover` would do with a run that was interrupted at step `reached`, empty for none.

    `outcome` is how it would end: `undone`, `nothing changed`, `finished`, or `finished or undone`, depending on the
    verification of CHAP. `files` would be written, and the databases in `renames` (from, to) renamed.
    """

    run: str
    operation: str
    reached: str
    outcome: str
    files: tuple[Path, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()


def foresee(world: World, journal: Journal) -> Prospect:
    """Return what `recover` would do, changing nothing. Without an engine, what only the engine knows is left out."""
    reached = journal.steps[-1] if journal.steps else ""
    if journal.began(Step.FINISH):
        outcome = "finished"
    elif forward.may_be_complete(journal):
        outcome = "finished or undone"
    elif journal.operation == "pin" or journal.began(Step.STOP) or journal.began(Step.CHECKOUT):
        outcome = "undone"
    else:
        outcome = "nothing changed"
    if outcome in ("finished", "nothing changed"):
        return Prospect(journal.id, journal.operation, reached, outcome)
    edits = read_edits(journal.known) if journal.known.get("edits") else ()
    files = tuple(edit.path for edit in edits if durable.content_of(edit.path) != edit.before)
    renames: tuple[tuple[str, str], ...] = ()
    change = read_change(journal.known) if journal.known.get("baseline") else None
    with suppress(ChapError):
        if change:
            databases, previous = server_of(world, change).databases(), previous_data_of(change, facts_of(journal))
            changed = may_be_changed(world, change, journal.steps)
            renames = previous.way_back(databases, journal.steps, changed=changed).renames
    return Prospect(journal.id, journal.operation, reached, outcome, files, renames)


def recover(
    world: World, journal: Journal, patience: float = 0, folder: Path | None = None, *, allow_drift: bool = False
) -> Recovered:
    """Finish an interrupted run if it is complete and good, else undo it.

    A backup that has to be made is written to `folder`; None is the folder of the run's own backups. Without
    `allow_drift` nothing is undone where that would give CHAP other variables, from another shell.
    Safe to run again. Raise Locked when a run on another machine works on the stack, Interrupted when the run belongs
    to another engine, NeedsPerson when the way back fails: then the journal stays open.
    """
    if journal.operation == "pin":
        journal.release_reserve()
        return _unpin(journal)
    whose = Origin.of(journal.record)
    project = whose.project or (journal.known.at("project").at("name").text() if journal.known.get("project") else "")
    if not world.engine.origin(project).owns(whose):
        raise Interrupted(
            f"The {journal.operation} that was cut off belongs to {whose}, but this is another engine.",
            state="Nothing was changed.",
            hint=f"Call docker with the context of {whose.server}: docker --context NAME chap recover",
        )
    if not project:
        return _recover(world, journal, None, allow_drift)  # it was cut off before it knew what to change
    images = [container.image_id for container in world.engine.containers(project)]
    lock_it = partial(engine_lock.locked_on_engine, world, project, images, "recover")
    with guard.waited_for(world, patience, lock_it):
        return _recover(world, journal, folder, allow_drift)


def _recover(world: World, journal: Journal, folder: Path | None, allow_drift: bool) -> Recovered:
    journal.release_reserve()
    throwaway.remove_abandoned(world.engine)
    change = read_change(journal.known) if journal.known.get("baseline") else None
    try:
        with lock.signals_ignored():
            if folder:
                journal.learn(backups=str(folder))
            return (change and _finish(world, change, journal)) or _undo(world, change, journal, allow_drift)
    except NeedsPerson:
        raise
    except ChapError as error:
        if not change:
            raise
        raise NeedsPerson(
            f"The {journal.operation} of {journal.id} could not be undone: {error.message}",
            state=evidence.state_now(world, change),
            hint=(f"{error.hint}\n" if error.hint else "") + "Repair the cause, then run again: docker chap recover\n"
            f"Or by hand:\n{evidence.by_hand(world, change, journal)}",
        ) from error


def _finish(world: World, change: Change, journal: Journal) -> Recovered | None:
    """Verify a complete run, close it and return it; None if it has to be undone."""
    done: forward.Done | None
    if journal.began(Step.FINISH):
        # Everything was verified already.
        facts = facts_of(journal)
        done = forward.Done(facts.checks, facts.downtime)
    else:
        done = forward.look_again(world, change, journal)
    if done is None:
        return None
    forward.finish(change, journal, done, recovered=True)
    if undone := journal.record.get("undoes"):
        with suppress(EngineError):
            kept.untag_kept_images(world, undone, change.project.name)
    return Recovered(journal.id, journal.operation, "finished", change.project.name, done.checks)


def _undo(world: World, change: Change | None, journal: Journal, allow_drift: bool) -> Recovered:
    checks = _refuse_other_variables(world, change, journal) if change and not allow_drift else []
    checks += undo.undo(world, change, journal, cut_off=True) if change else []
    _remove_leftovers(world, journal, change)
    outcome = "undone" if journal.began(Step.STOP) or journal.began(Step.CHECKOUT) else "nothing changed"
    journal.end(outcome, checks=[asdict(check) for check in checks], recovered=True)
    return Recovered(journal.id, journal.operation, outcome, change.project.name if change else "", tuple(checks))


def _unpin(journal: Journal) -> Recovered:
    changed_by_others = durable.revert_edits(read_edits(journal.known))
    if changed_by_others:
        raise StateError(
            f"{changed_by_others[0]} was changed by someone else in the meantime, and was left as it is.",
            state="The run stays open.",
            hint="Remove the later changes from that file, then run again: docker chap recover",
        )
    journal.end("undone", recovered=True)
    return Recovered(journal.id, journal.operation, "undone", "", ())


def _refuse_other_variables(world: World, change: Change, journal: Journal) -> list[Check]:
    """Raise StateError when containers that the run has made would be replaced by some with other variables.

    Return a warning where that cannot be compared: a run is not left open for that alone.
    """
    containers = {name: containers_of(world, change.project, name) for name in change.writers}
    made = {name: of for name, of in containers.items() if not {each.id for each in of} & set(change.containers[name])}
    if made and _may_be_reverted(change, journal):
        unchecked = f"{would_differ.NOT_COMPARED} The files are not those that the containers were made from."
    else:
        unchecked = would_differ.refuse(world.engine, change.project, made, variables_only=True)
    return [Check("variables", "warn", unchecked)] if unchecked else []


def _may_be_reverted(change: Change, journal: Journal) -> bool:
    """Whether an earlier way back may have changed the files since containers were made."""
    if not journal.began(Step.GO_BACK):
        return False
    return bool(change.move) or any(durable.content_of(edit.path) != edit.after for edit in change.edits)


def _remove_leftovers(world: World, journal: Journal, change: Change | None) -> None:
    if folder := facts_of(journal).backups:
        remove_abandoned(folder)
    if change is None:
        return
    kept.untag_kept_images(world, journal.id, change.project.name)
    if journal.operation == "restore":
        side_database.remove(server_of(world, change), journal.id, change.incoming)
