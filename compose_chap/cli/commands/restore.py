"""The command that puts a backup back: restore."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from compose_chap import units
from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command
from compose_chap.cli.commands.rollback import roll_back
from compose_chap.cli.dhis2_login import dhis2_credentials, dhis2_options
from compose_chap.cli.options import (
    allow_drift_option,
    detach_option,
    output_option,
    patience_option,
    usable,
    wait_lock_option,
    yes_option,
)
from compose_chap.cli.recorded import guarded
from compose_chap.cli.screen import sentences
from compose_chap.cli.screen.checks import concerns_text
from compose_chap.cli.screen.databases import rows_text, session_ends
from compose_chap.cli.screen.layout import facts, paragraph
from compose_chap.cli.store import Store, from_repository, wanted_copy
from compose_chap.cli.values import backups
from compose_chap.copies import fetch
from compose_chap.copies.restic import Restic
from compose_chap.engine.world import World
from compose_chap.errors import UsageError
from compose_chap.image import release_key, release_tag
from compose_chap.model import Stack
from compose_chap.operations import detach, guard
from compose_chap.records.files import durable
from compose_chap.restore import restore, source
from compose_chap.restore.restore import Outlook, Restored, RestorePlan
from compose_chap.restore.source import Source
from compose_chap.schedule.folders import all_folders
from compose_chap.stack import observe, releases, would_differ
from compose_chap.transaction.run.baseline import baseline_of


@command("restore")
@click.argument("wanted", type=usable, shell_complete=backups, metavar="[BACKUP]", required=False)
@click.option("--undo", is_flag=True, help="Undo the last restore.")
@click.option("--with-version", is_flag=True, help="Also bring back the version of CHAP that made the backup.")
@from_repository
@yes_option
@output_option
@click.option("--trust", is_flag=True, help="Restore a dump that holds things that CHAP does not have.")
@allow_drift_option
@click.option("--allow-empty", is_flag=True, help="Restore a dump that has no rows at all.")
@patience_option
@wait_lock_option
@detach_option
@dhis2_options
@common
def restore_command(
    call: Call,
    wanted: str | None,
    undo: bool,
    with_version: bool,
    store: Store,
    yes: bool,
    output: Path | None,
    trust: bool,
    allow_drift: bool,
    allow_empty: bool,
    dhis2_user: str,
) -> None:
    """Put a backup or a dump back.

    BACKUP is an id, `latest`, the folder of a backup, or a file that PostgreSQL's tools wrote (custom, tar, directory
    or plain SQL, also .gz or .zst). The data go into a second database while CHAP serves; only when they are proven
    are the two swapped. The present data are kept.
    """
    if undo and wanted:
        raise UsageError("--undo undoes the last restore. Do not name a backup with it.")
    if undo:
        roll_back(call, "restore", yes, dhis2_user, allow_drift=allow_drift)
        return
    if not wanted:
        raise UsageError(
            "Say what to restore: a backup's id, latest, or a file.", hint="List them: docker chap backups"
        )
    world, where = call.world(), call.where()
    find = partial(observe.find_local_stack, world.engine, where)
    stack = find()
    folders = all_folders(stack, output, where.environment)
    if detach.confirmed():
        wanted = detach.confirmed()
    elif store.named:
        # What refuses the restore refuses it before hours of bringing the copy back.
        call.check_askable(yes=yes)
        with guard.guarded(world, stack, call.command, call.wait_lock):
            pass
        wanted = _fetched(call, world, stack, folders, wanted, store.open(call))
    chosen = source.recognise(wanted, folders, world.engine.origin(stack.project.name))

    with world.parallel(1) as (pool, beside):
        # CHAP takes a second to say how it is. It is asked while the lock is made, if no other run is waited for.
        asked = None if call.wait_lock else pool.submit(baseline_of, beside, stack)
        with guarded(call, world, stack, find) as (stack, attempt):
            notes: list[str] = []
            if name := restore.stopped_database(stack):
                call.confirm(sentences.ask_start_database(name), yes=yes)
                restore.start_database(world, stack)
                stack, asked = observe.find_local_stack(world.engine, where), None
                notes = [sentences.started_database(name)]
            plan = _plan(call, world, stack, chosen, output, trust=trust, with_version=with_version)
            plan = replace(plan, empty=allow_empty)
            if plan.images_after and not allow_drift:
                containers = {service.name: service.containers for service in stack.writers}
                notes += filter(None, [would_differ.refuse(world.engine, stack.project, containers)])
            outlook = restore.foresee(world, plan, asked)
            outlook = replace(outlook, notes=(*notes, *outlook.notes))
            call.propose(_plan_text(plan, outlook, world.clock()))
            call.confirm(sentences.ask_restore(chosen.name), yes=yes)
            attempt.learn(chosen.name, source=chosen.name)
            credentials = dhis2_credentials(call, dhis2_user)
            call.hand_over(stack.project.directory, str(chosen.location.absolute()))
            done = restore.execute(world, plan, outlook.baseline, credentials)
    call.result(_data(done, outlook), _text(done, chosen))


def _fetched(call: Call, world: World, stack: Stack, folders: Sequence[Path], wanted: str, restic: Restic) -> str:
    """Bring a copy into the first folder, unless its backup is in one of them already, and return the backup's id."""
    copy = wanted_copy(call, restic, wanted)
    folder = next((folder for folder in folders if os.path.lexists(folder / copy.id)), folders[0])
    return fetch.fetch(world, restic, copy, folder, stack.database.containers[0].image_id).id


def _plan(
    call: Call, world: World, stack: Stack, chosen: Source, output: Path | None, *, trust: bool, with_version: bool
) -> RestorePlan:
    if not with_version:
        return restore.RestorePlan(stack, chosen, trust)
    if not chosen.backup or not chosen.version:
        raise UsageError(
            f"{chosen.name} does not say which version of CHAP made it.",
            hint="Leave out --with-version, or bring the files to that version first: docker chap pin VERSION",
        )
    subject = call.subject(world, stack, release_tag(chosen.version), output)
    if subject.built:
        raise UsageError(
            "CHAP is built from source here, and --with-version brings images back only.",
            state="Nothing was changed.",
            hint=f"Build that version first: docker chap upgrade {_release_of(chosen)} --allow-downgrade"
            f"\nThen: docker chap restore {chosen.backup.id}",
        )
    edits = subject.edits
    for edit in edits:
        durable.check_writable(edit.path)
    images = restore.images_of(world, chosen.backup, subject.images, subject.platform)
    return restore.RestorePlan(stack, chosen, trust, edits, images, chosen.version)


def _release_of(chosen: Source) -> str:
    # A few releases say that they are another; what Git called the commit is right then.
    checkout = chosen.backup.manifest.checkout if chosen.backup else None
    tag = checkout.describe if checkout else ""
    return tag if release_key(tag) and releases.reported_version(tag) == chosen.version else f"v{chosen.version}"


def _plan_text(plan: RestorePlan, outlook: Outlook, now: datetime) -> str:
    """Return what an operator reads before the question: what comes back, over what, what to know, the price."""
    made, stack = plan.source.backup, plan.stack
    from_ = [("from", plan.source.name)]
    if made:
        from_ += [
            ("made", f"{units.moment(made.created_at)} ({units.age(made.created_at, now)}), {made.manifest.reason}"),
            ("by CHAP", made.manifest.chap.version or sentences.UNKNOWN_VERSION),
            ("holds", rows_text(made.tables)),
        ]
    else:
        from_ += [("holds", sentences.dump_of(units.size(plan.source.size)))]
    running = outlook.baseline.version or sentences.UNKNOWN_VERSION
    after = sentences.becomes(plan.expected) if plan.images_after else ""
    over = [
        ("over", f"database {stack.access.name} of {stack.project.name}"),
        ("CHAP", f"{running}{after}"),
        ("holds", rows_text(outlook.rows) if outlook.rows is not None else sentences.NO_ROWS_KNOWN),
    ]
    notes = [
        paragraph(sentences.note(note), sys.stderr) for note in (*outlook.notes, *map(session_ends, outlook.sessions))
    ]
    blocks = [
        facts(from_, sys.stderr),
        facts(over, sys.stderr),
        "\n".join(notes),
        paragraph(sentences.RESTORE_PRICE, sys.stderr),
    ]
    return "\n\n".join(filter(None, blocks))


def _data(done: Restored, outlook: Outlook) -> dict[str, Any]:
    return {
        "run": done.run,
        "source": str(done.source),
        "tables": dict(done.tables),
        "kept_database": done.kept,
        "downtime_seconds": done.downtime,
        "notes": list(outlook.notes),
        "sessions_ended": [asdict(session) for session in outlook.sessions],
        "checks": [asdict(check) for check in done.checks],
    }


def _text(done: Restored, chosen: Source) -> str:
    lines = [
        paragraph(sentences.restored(chosen.name, rows_text(done.tables), units.duration(done.downtime))),
        concerns_text(done.checks),
    ]
    if done.kept:
        lines += [
            paragraph(sentences.previous_data_kept(f"database {done.kept}")),
            "  docker chap restore --undo",
        ]
    return "\n".join(lines)
