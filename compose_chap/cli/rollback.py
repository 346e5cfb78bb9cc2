"""The commands that bring something back: rollback, and recover after a run that was cut off."""

from __future__ import annotations

import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial

import click

from compose_chap.cli.call import (
    Call,
    common,
    dhis2_credentials,
    dhis2_options,
    patience_option,
    wait_lock_option,
    yes_option,
)
from compose_chap.cli.recorded import guarded, recorded
from compose_chap.cli.screen import render
from compose_chap.engine import throwaway
from compose_chap.errors import EngineError
from compose_chap.operations import guard, recover, rollback
from compose_chap.records import lock, run_records
from compose_chap.stack import observe
from compose_chap.stack.databases import server_of
from compose_chap.transaction.run import baseline

# How `recover` says what became of a run.
_OUTCOMES = {
    "finished": "was complete. It is verified now, and closed.",
    "undone": "is undone: all is as it was before.",
    "nothing changed": "had changed nothing.",
}


# For how many seconds `recover` waits for what a killed run left behind.
_LEFT_BEHIND = 600


@click.command("rollback")
@yes_option
@patience_option
@wait_lock_option
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
        written = ", ".join(f"{table} {rows:+}" for table, rows in plan.written_since.items()) or "no table"
        if not call.json:
            told = f"More or fewer rows since the {operation}: {written}. Rows that were changed do not show in this."
            for line in (told, *(f"Note:  {note}" for note in (*plan.notes, *map(render.session_ends, sessions)))):
                call.tell(render.paragraph(line, sys.stderr))
        call.confirm(f"Undo the {operation} of {plan.undone['id']}, and keep the newer data aside?", yes=yes)
        attempt.learn(f"{operation} {plan.undone['id']}", undone=plan.undone["id"])
        done = rollback.roll_back(world, plan, dhis2_credentials(dhis2_user))
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
        f"The {operation} of {plan.undone['id']} is undone, and verified:\n"
        + render.checks_text(done.checks, colour=render.colourful(sys.stdout))
        + f"\nThe newer data are kept in database {done.kept}."
        + f"\nReport: {run_records.report_file(directory, done.run)}",
    )


@click.command("recover")
@patience_option
@wait_lock_option
@common
def recover_command(call: Call) -> None:
    """Finish or undo a run that was cut off.

    After a power cut, or when docker chap was killed: it reads the journal of that run, looks at the stack, and brings
    files, images and data to one good state, verified. It may be run again at any time.
    """
    world, where = call.world(), call.where()
    directory = observe.find_directory(world.engine, where)
    with ExitStack() as held, recorded(call, directory) as attempt:
        # A Compose that outlived a killed run still holds the lock; one that builds does so for long.
        patience = max(call.wait_lock, _LEFT_BEHIND)
        lock_it = partial(lock.locked, directory, "recover", world.clock())
        held.enter_context(guard.waited_for(world, patience, lock_it))
        journal = run_records.open_run(directory, world.clock)
        if journal is None:
            with suppress(EngineError):  # files alone can be looked at without an engine
                throwaway.remove_abandoned(world.engine)
            attempt.learn("nothing was cut off")
            call.result({"changed": False}, "No run was cut off. Nothing to do.")
            return
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
        f"{f'Project {done.project} in ' if done.project else ''}{directory}:\n"
        + render.paragraph(f"The {done.operation} of {done.run} {_OUTCOMES[done.outcome]}")
        + "\n"
        + render.checks_text(done.checks, colour=render.colourful(sys.stdout)),
    )
