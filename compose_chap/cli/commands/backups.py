"""The command that lists backups and pins them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from compose_chap.backups import catalogue
from compose_chap.backups.catalogue import Backup
from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command
from compose_chap.cli.options import output_option
from compose_chap.cli.screen import sentences
from compose_chap.cli.screen.backups import backup_document, backups_table
from compose_chap.cli.screen.layout import paragraph
from compose_chap.cli.values import backups
from compose_chap.errors import ChapError, SeveralStacks
from compose_chap.model import Origin
from compose_chap.records import order
from compose_chap.restore import source
from compose_chap.schedule.folders import all_folders, folders_beside
from compose_chap.stack import observe


@command("backups")
@click.option("--pin", shell_complete=backups, metavar="BACKUP", help="Keep a backup until it is unpinned.")
@click.option("--unpin", shell_complete=backups, metavar="BACKUP", help="Let prune remove it again.")
@output_option
@common
def backups_command(call: Call, pin: str | None, unpin: str | None, output: Path | None) -> None:
    """List the backups, or pin one.

    A backup that is pinned is never removed by `docker chap prune`.
    """
    folders, origin = folders_of_backups(call, output)
    for wanted, pinned in ((pin, True), (unpin, False)):
        if wanted:
            catalogue.pin(catalogue.find(wanted, folders, origin), pinned)
    listing, now = catalogue.scan(folders), call.clock()
    backups_ = listing.backups
    text = backups_table(backups_, origin, now) if backups_ else sentences.no_backups(folders)
    if faults := [sentences.unreliable(backup.id, backup.fault) for backup in backups_ if backup.fault]:
        text += "\n\n" + "\n".join(paragraph(fault) for fault in faults)
    warnings = order.warnings("Backup", {backup.id: backup.created_at for backup in backups_}, now)
    if warnings:
        text += "\n\n" + "\n".join(map(paragraph, warnings))
    if listing.unusable:
        text += f"\n\n{sentences.NOT_COUNTED}\n" + "\n".join(paragraph(why) for why in listing.unusable)
    documents = [backup_document(backup) for backup in backups_]
    places = {"folder": str(folders[0]), "folders": [str(folder) for folder in folders]}
    call.result({**places, "backups": documents, "unusable": listing.unusable, "warnings": warnings}, text)


def wanted_backup(call: Call, wanted: str, folders: Sequence[Path], origin: Origin, *, or_file: bool = False) -> Backup:
    """Return the backup that the operator means, and name what `latest` skips or cannot see.

    `latest` is the newest without a fault. Raise as `catalogue.find` does.
    """
    backup = catalogue.find(wanted, folders, origin, sound=True, or_file=or_file)
    for note in source.skipped_newer(wanted, backup, folders, origin):
        call.tell(paragraph(sentences.note(note), sys.stderr))
    return backup


def folders_of_backups(call: Call, output: Path | None) -> tuple[list[Path], Origin]:
    """Return the folders of the backups, and the stack's origin; without a stack, any origin."""
    where, engine = call.where(), call.world().engine
    try:
        stack = observe.find_stack(engine, where)
        origin = engine.origin(stack.project.name)
    except ChapError as error:
        if isinstance(error, SeveralStacks) and not output:
            raise  # nobody can say whose backups are meant
        return folders_beside(where.directory or where.folder, output, where.environment), Origin(where.name)
    return all_folders(stack, output, where.environment), origin
