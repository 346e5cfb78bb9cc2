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
from compose_chap.cli.command_table import command
from compose_chap.cli.dhis2_login import dhis2_credentials, dhis2_options
from compose_chap.cli.options import (
    allow_drift_option,
    detach_option,
    path,
    patience_option,
    wait_lock_option,
    yes_option,
)
from compose_chap.cli.recorded import guarded, recorded
from compose_chap.cli.screen import sentences
from compose_chap.cli.screen.checks import concerns_text
from compose_chap.cli.screen.databases import session_ends
from compose_chap.cli.screen.layout import paragraph
from compose_chap.cli.values import files
from compose_chap.engine import throwaway
from compose_chap.errors import EngineError, StateError
from compose_chap.operations import detach, guard, recover, rollback
from compose_chap.operations.recover import Prospect
from compose_chap.operations.rollback import RollbackPlan
from compose_chap.records import lock, run_records
from compose_chap.records.steps import reached
from compose_chap.stack import observe
from compose_chap.stack.databases import server_of
from compose_chap.transaction.run import baseline

# For how many seconds `recover` waits for what a killed run left behind.
_LEFT_BEHIND = 600


@command("rollback")
@yes_option
@allow_drift_option
@patience_option
@wait_lock_option
@detach_option
@dhis2_options
@common
def rollback_command(call: Call, yes: bool, allow_drift: bool, dhis2_user: str) -> None:
    """Undo the last upgrade: files, images and data.

    CHAP goes back to the data of the moment before the upgrade. Rows that were written since are counted and shown
    first; they are kept aside in a database of their own, not merged.
    """
    roll_back(call, "upgrade", yes, dhis2_user, allow_drift=allow_drift)


def roll_back(call: Call, operation: str, yes: bool, dhis2_user: str, *, allow_drift: bool) -> None:
    """Undo the last upgrade or restore, and tell of it."""
    world = call.world()
    find = partial(observe.find_local_stack, world.engine, call.where())
    stack = find()
    directory = stack.project.directory

    with guarded(call, world, stack, find, "rollback") as (stack, attempt):
        plan = rollback.plan_rollback(world, stack, operation, allow_drift=allow_drift)
        if detach.confirmed() and detach.confirmed() != plan.undone["id"]:
            raise StateError(
                f"There was another run since you confirmed to undo {detach.confirmed()}: {plan.undone['id']}.",
                state="Nothing was changed.",
                hint="See what was done: docker chap history",
            )
        sessions = baseline.other_sessions(server_of(world.engine, stack), stack)
        notes = [_written(plan.written_since, operation), *map(sentences.note, plan.notes)]
        notes += [sentences.note(session_ends(session)) for session in sessions]
        call.propose("\n".join(paragraph(note, sys.stderr) for note in notes))
        call.confirm(_question(plan, operation, world.clock()), yes=yes)
        attempt.learn(f"{operation} {plan.undone['id']}", undone=plan.undone["id"])
        credentials = dhis2_credentials(call, dhis2_user)
        call.hand_over(directory, str(plan.undone["id"]))
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
                paragraph(sentences.rolled_back(plan.change.expected)),
                concerns_text(done.checks),
                paragraph(sentences.newer_data_kept(done.kept)),
                sentences.report_at(run_records.report_file(directory, done.run)),
            ]
        ),
    )


def _written(since: Mapping[str, int], operation: str) -> str:
    return sentences.rows_since(operation, [f"{table} {rows:+}" for table, rows in since.items()])


def _question(plan: RollbackPlan, operation: str, now: datetime) -> str:
    begun = datetime.fromisoformat(str(plan.undone["started_at"]))
    before, after = str(plan.undone.get("to") or "").removeprefix("v"), plan.change.expected
    before = before if operation == "upgrade" else ""
    return sentences.ask_go_back(before, after, units.moment(begun), units.age(begun, now))


@command("recover")
@click.option("--dry-run", is_flag=True, help="Show what would be done, but change nothing.")
@allow_drift_option
@click.option(
    "-o",
    "--output",
    type=path,
    shell_complete=files,
    metavar="FOLDER",
    help="Where to back new data up that have no room beside the old, instead of the folder of the run's backup.",
)
@patience_option
@wait_lock_option
@detach_option
@common
def recover_command(call: Call, dry_run: bool, allow_drift: bool, output: Path | None) -> None:
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
            call.result({"changed": False}, sentences.NOTHING_CUT_OFF)
            return
        if dry_run:
            prospect = recover.foresee(world, journal)
            attempt.learn(f"dry run: {prospect.operation} {prospect.run}")
            call.result({"changed": False, "would": asdict(prospect)}, _prospect_text(prospect, directory))
            return
        call.hand_over(directory)
        folder = output and output.absolute()
        done = recover.recover(world, journal, call.wait_lock, folder, allow_drift=allow_drift)
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
                    paragraph(sentences.recovered(done.operation, done.run, done.outcome)),
                    concerns_text(done.checks),
                ],
            )
        ),
    )


def _prospect_text(prospect: Prospect, directory: Path) -> str:
    where = reached([prospect.reached] if prospect.reached else [])
    summary = sentences.would_recover(prospect.operation, prospect.run, where, prospect.outcome)
    lines = [
        f"{directory}:",
        paragraph(summary),
        *(f"  put back  {file}" for file in prospect.files),
        *(f"  rename    database {before} to {after}" for before, after in prospect.renames),
        sentences.TO_DO_IT,
        "  docker chap recover",
    ]
    return "\n".join(lines)
