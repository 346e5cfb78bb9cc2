"""The commands that bring something back: rollback, and recover after a run that was cut off."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path

import click

from compose_chap import units
from compose_chap.cli.call import Call, common
from compose_chap.cli.commands import command
from compose_chap.cli.dhis2_login import dhis2_credentials, dhis2_options
from compose_chap.cli.options import detach_option, patience_option, wait_lock_option, yes_option
from compose_chap.cli.recorded import guarded, recorded
from compose_chap.cli.screen.checks import concerns_text
from compose_chap.cli.screen.databases import session_ends
from compose_chap.cli.screen.layout import paragraph
from compose_chap.engine import throwaway
from compose_chap.errors import EngineError
from compose_chap.operations import guard, recover, rollback
from compose_chap.operations.recover import Prospect
from compose_chap.operations.rollback import RollbackPlan
from compose_chap.records import lock, run_records
from compose_chap.stack import observe
from compose_chap.stack.databases import server_of
from compose_chap.transaction.run import baseline

# How `recover` says what became of a run, and what will.
_OUTCOMES = {
    "finished": "was complete. It is now verified and closed.",
    "undone": "was undone: everything is as it was before.",
    "nothing changed": "had changed nothing.",
}
_PROSPECTS = {
    "finished": "It was complete and verified, and would be closed.",
    "finished or undone": "It would be verified: closed if all is well, otherwise undone.",
    "undone": "It would be undone: files, images and data as they were before, verified.",
    "nothing changed": "It had changed nothing, and would be closed.",
}


# For how many seconds `recover` waits for what a killed run left behind.
_LEFT_BEHIND = 600


@command("rollback")
@yes_option
@patience_option
@wait_lock_option
@detach_option
@dhis2_options
@common
def rollback_command(call: Call, yes: bool, dhis2_user: str) -> None:
    """Undo the last upgrade: files, images and data.

    CHAP goes back to the data of the moment before the upgrade. Rows that were written since are counted and shown
    first; they are kept aside in a database of their own, not merged.
    """
    roll_back(call, "upgrade", yes, dhis2_user)


def roll_back(call: Call, operation: str, yes: bool, dhis2_user: str) -> None:
    """Undo the last upgrade or restore, and tell of it."""
    world = call.world()
    find = partial(observe.find_local_stack, world.engine, call.where())
    stack = find()
    directory = stack.project.directory

    with guarded(call, world, stack, find, "rollback") as (stack, attempt):
        plan = rollback.plan_rollback(world, stack, operation)
        sessions = baseline.other_sessions(server_of(world.engine, stack), stack)
        if not call.json:
            notes = [_written(plan.written_since, operation), *(f"Note: {note}" for note in plan.notes)]
            notes += [f"Note: {session_ends(session)}" for session in sessions]
            call.tell("\n".join(paragraph(note, sys.stderr) for note in notes))
        call.confirm(_question(plan, operation, world.clock()), yes=yes)
        attempt.learn(f"{operation} {plan.undone['id']}", undone=plan.undone["id"])
        credentials = dhis2_credentials(call, dhis2_user)
        call.hand_over(directory)
        done = rollback.roll_back(world, plan, credentials)
    call.result(
        {
            "run": done.run,
            "undone": plan.undone["id"],
            "kept_database": done.kept,
            "report": str(run_records.report_file(directory, done.run)),
            "written_since": dict(plan.written_since),
            "notes": list(plan.notes),
            "sessions_ended": [asdict(session) for session in sessions],
            "checks": [asdict(check) for check in done.checks],
        },
        "\n".join(
            [
                paragraph(f"CHAP is back at {plan.change.expected or 'the previous data'}, and verified."),
                concerns_text(done.checks),
                paragraph(f"The newer data are kept in database {done.kept}."),
                f"Report: {run_records.report_file(directory, done.run)}",
            ]
        ),
    )


def _written(since: Mapping[str, int], operation: str) -> str:
    if not since:
        return f"No rows were added or removed since the {operation}. (Edited rows are not counted.)"
    changes = ", ".join(f"{table} {rows:+}" for table, rows in since.items())
    return f"Rows added or removed since the {operation}: {changes}. (Edited rows are not counted.)"


def _question(plan: RollbackPlan, operation: str, now: datetime) -> str:
    begun = datetime.fromisoformat(str(plan.undone["started_at"]))
    data = f"the data of {units.moment(begun)} ({units.age(begun, now)})"
    before, after = str(plan.undone.get("to") or "").removeprefix("v"), plan.change.expected
    if operation == "upgrade" and before and after:
        return f"Go back from {before} to {after}, with {data}?"
    return f"Go back to {data}?"


@command("recover")
@click.option("--dry-run", is_flag=True, help="Show what would be done, but change nothing.")
@patience_option
@wait_lock_option
@detach_option
@common
def recover_command(call: Call, dry_run: bool) -> None:
    """Finish or undo a run that was cut off.

    After a power cut, or when docker chap was killed: it reads the journal of that run, looks at the stack, and brings
    files, images and data to one good state, verified. It may be run again at any time.
    """
    world, where = call.world(), call.where()
    directory = observe.find_directory(world.engine, where)
    with ExitStack() as locks, recorded(call, directory) as attempt:
        # A Compose that outlived a killed run still holds the lock; one that builds does so for long.
        patience = max(call.wait_lock, _LEFT_BEHIND)
        lock_it = partial(lock.locked, directory, "recover", world.clock())
        locks.enter_context(guard.waited_for(world, patience, lock_it))
        journal = run_records.open_run(directory, world.clock)
        if journal is None:
            with suppress(EngineError):  # files alone can be looked at without an engine
                throwaway.remove_abandoned(world.engine)
            attempt.learn("nothing was cut off")
            call.result({"changed": False}, "No run was cut off. Nothing to do.")
            return
        if dry_run:
            prospect = recover.foresee(world, journal)
            attempt.learn(f"dry run: {prospect.operation} {prospect.run}")
            call.result({"changed": False, "would": asdict(prospect)}, _prospect_text(prospect, directory))
            return
        call.hand_over(directory)
        done = recover.recover(world, journal, call.wait_lock)
        attempt.learn(f"{done.operation} {done.run}: {done.outcome}", outcome=done.outcome, recovered=done.run)
    call.result(
        {
            "changed": True,
            "run": done.run,
            "operation": done.operation,
            "outcome": done.outcome,
            "project": done.project,
            "folder": str(directory),
            "checks": [asdict(check) for check in done.checks],
        },
        "\n".join(
            filter(
                None,
                [
                    f"{f'Project {done.project} in ' if done.project else ''}{directory}:",
                    paragraph(f"The {done.operation} of {done.run} {_OUTCOMES[done.outcome]}"),
                    concerns_text(done.checks),
                ],
            )
        ),
    )


def _prospect_text(prospect: Prospect, directory: Path) -> str:
    reached = f"at step '{prospect.reached}'" if prospect.reached else "before its first step"
    lines = [
        f"{directory}:",
        paragraph(f"The {prospect.operation} of {prospect.run} was cut off {reached}. {_PROSPECTS[prospect.outcome]}"),
        *(f"  put back  {file}" for file in prospect.files),
        *(f"  rename    database {before} to {after}" for before, after in prospect.renames),
        "To do it:",
        "  docker chap recover",
    ]
    return "\n".join(lines)
