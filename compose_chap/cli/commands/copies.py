"""The commands of copies in another place: copy, copies; and what prune does there."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from compose_chap import units
from compose_chap.backups import catalogue as backup_catalogue
from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command
from compose_chap.cli.commands.backups import wanted_backup
from compose_chap.cli.options import at_least, output_option, wait_lock_option
from compose_chap.cli.recorded import recorded
from compose_chap.cli.screen import copies as screen
from compose_chap.cli.screen import sentences
from compose_chap.cli.screen.layout import paragraph
from compose_chap.cli.store import Store, from_repository, limit_option, to_repository, warn_of_same_disk
from compose_chap.cli.values import backups
from compose_chap.copies import catalogue, send
from compose_chap.copies.failures import AppendOnly
from compose_chap.errors import ChapError, UsageError
from compose_chap.model import Origin
from compose_chap.operations import prune_copies
from compose_chap.records.retention import Retention
from compose_chap.schedule.folders import all_folders, folders_beside
from compose_chap.stack import observe
from compose_chap.stack.databases import server_of


@command("copy")
@click.argument("wanted", shell_complete=backups, metavar="[BACKUP]", default="latest")
@to_repository()
@click.option("--init", "new", is_flag=True, help="Make the repository if it does not exist yet.")
@limit_option()
@output_option
@wait_lock_option
@common
def copy_command(call: Call, wanted: str, store: Store, new: bool, limit_upload: int, output: Path | None) -> None:
    """Copy a backup to another place, encrypted.

    restic keeps the copies: in a folder, on a USB disk, or on a server (sftp, rest, S3). Only what is new since the
    last copy is sent. A copy that was cut off goes on where it ended. Without BACKUP it is `latest`.
    """
    restic = store.open(call, limit_upload)
    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    origin, directory = world.engine.origin(stack.project.name), stack.project.directory
    folders = all_folders(stack, output, where.environment)
    with recorded(call, directory if stack.project.local else None, origin, unlocked=True) as attempt:
        backup = wanted_backup(call, wanted, folders, origin)
        attempt.learn(backup.id, backup=backup.id, repository=restic.location)
        made = new and restic.make_if_missing()
        sent = send.send(world, restic, backup, server_of(world.engine, stack))
        attempt.learn(sent=sent.added, sql_size=sent.copy.sql_size)
    warn_of_same_disk(call, restic, backup.folder)
    text = screen.sent(sent, restic.location) + (f" {screen.NEW_REPOSITORY}" if made else "")
    call.result({"copy": screen.copy_document(sent.copy), "sent": sent.added, "existed": sent.existed}, paragraph(text))


@command("copies")
@from_repository
@click.option(
    "--check", type=int, callback=at_least(0), default=0, metavar="PERCENT", help="Read this part of all data back."
)
@wait_lock_option
@common
def copies_command(call: Call, store: Store, check: int) -> None:
    """List the copies of backups in another place.

    Those of this stack are listed; where it has none, as on a new machine, those of all stacks.
    With --check the repository is checked too: its structure, and a part of its data, chosen by chance. What is damaged
    there is found so before it is needed.
    """
    if check > 100:
        raise UsageError(f"{check} is more than 100 percent.", state="Nothing was changed.")
    restic = store.open(call)
    restic.check_reachable()
    directory, origin = stack_records(call)
    everything = catalogue.scan(restic)
    listing = catalogue.meant(everything, origin)
    document: dict[str, Any] = {
        "repository": restic.location,
        "copies": [screen.copy_document(copy) for copy in listing.copies],
        "incomplete": [snapshot.id for snapshot in listing.incomplete],
    }
    others = len(everything.copies) - len(listing.copies)
    text = screen.listing_text(listing, restic.location, call.clock(), others)
    if check:
        with recorded(call, directory, origin) as attempt:
            attempt.learn(f"read {check}% of the repository back", repository=restic.location, checked=check)
            call.world().notify("check copies", restic.location)
            restic.check(f"{check}%")
        document["checked"] = check
        text += f"\n\n{paragraph(screen.checked(check))}"
    call.result(document, text)


def stack_records(call: Call) -> tuple[Path | None, Origin]:
    """Return where the records of the stack lie, None where that is not on this machine, and which stack it is."""
    with suppress(ChapError):
        stack = observe.find_stack(call.world().engine, call.where())
        directory = stack.project.directory if stack.project.local else None
        return directory, call.world().engine.origin(stack.project.name)
    return None, Origin()


def prune_repository(
    call: Call, store: Store, rules: Retention, output: Path | None, limit_upload: int, *, dry_run: bool, yes: bool
) -> None:
    """Remove old copies from a repository by the rules for backups; what would be removed is shown first.

    With `yes`, as in a schedule, an append-only repository is no failure: the other server removes what is old.
    What is left of a pack that others still need is sent once more, with at most `limit_upload` KiB a second.
    """
    restic = store.open(call, limit_upload)
    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    origin = world.engine.origin(stack.project.name)
    # A pin counts in whichever folder the backup is, the chosen one or another.
    others = folders_beside(stack.project.directory, None, where.environment)
    folders = [*all_folders(stack, output, where.environment), *others]
    pinned = {backup.id for backup in backup_catalogue.list_backups(folders, origin) if backup.pinned}
    restic.check_reachable()
    chosen = prune_copies.plan(catalogue.scan(restic).of(origin), rules, pinned, call.clock())
    text = screen.prune_text(chosen)
    directory = stack.project.directory if stack.project.local else None
    notes: list[str] = []
    with recorded(call, directory, origin, unlocked=True) as attempt:
        if not (chosen.empty or dry_run):
            if not (call.json or yes):
                call.tell(f"{text}\n")
            call.confirm(sentences.ASK_REMOVE, yes=yes)
            removed = [copy.id for copy in chosen.copies]
            summary = f"removed {units.several(len(removed), 'copy', 'copies')}"
            attempt.learn(summary, repository=restic.location, copies=removed)
            world.notify("prune copies", restic.location)
            try:
                restic.forget(chosen.snapshots)
                text = text.replace("Would be removed", "Removed", 1)
            except AppendOnly:
                if not yes:
                    raise
                notes = [screen.append_only(restic.location)]
                attempt.learn("removed nothing: the repository is append-only", copies=[])
                text = paragraph(notes[0])
    for warning in chosen.warnings:
        call.tell(paragraph(f"Warning: {warning}", sys.stderr))
    call.result(
        {
            "removed": not (chosen.empty or dry_run or notes),
            "repository": restic.location,
            "copies": [copy.id for copy in chosen.copies],
            "incomplete": list(chosen.incomplete),
            "kept": dict(chosen.kept),
            "warnings": list(chosen.warnings),
            "notes": notes,
        },
        text,
    )
