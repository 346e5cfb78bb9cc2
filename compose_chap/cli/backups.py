"""The commands about backups that exist: backups, verify."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from compose_chap.backups import catalogue, proof, verdict
from compose_chap.backups.catalogue import Backup
from compose_chap.cli.call import Call, common
from compose_chap.cli.commands import command
from compose_chap.cli.options import detach_option, output_option, usable
from compose_chap.cli.recorded import recorded
from compose_chap.cli.screen.backups import backup_document, backups_table
from compose_chap.cli.screen.databases import rows_text
from compose_chap.cli.screen.layout import paragraph
from compose_chap.cli.values import backups
from compose_chap.errors import ChapError, SeveralStacks, StackError
from compose_chap.model import Origin
from compose_chap.postgres import jail, unexpected
from compose_chap.records import audit, order
from compose_chap.stack import observe
from compose_chap.stack.databases import server_of


@command("backups")
@click.option("--pin", shell_complete=backups, metavar="BACKUP", help="Keep a backup until it is unpinned.")
@click.option("--unpin", shell_complete=backups, metavar="BACKUP", help="Let prune remove it again.")
@output_option
@common
def backups_command(call: Call, pin: str | None, unpin: str | None, output: Path | None) -> None:
    """List the backups, or pin one.

    A backup that is pinned is never removed by `docker chap prune`.
    """
    folder, origin = _folder(call, output)
    for wanted, pinned in ((pin, True), (unpin, False)):
        if wanted:
            catalogue.pin(catalogue.find(wanted, folder, origin), pinned)
    listing, now = catalogue.scan(folder), call.clock()
    backups_ = listing.backups
    text = backups_table(backups_, origin, now) if backups_ else f"No backups in {folder}."
    if faults := [f"Do not rely on {backup.id}. {backup.fault}" for backup in backups_ if backup.fault]:
        text += "\n\n" + "\n".join(paragraph(fault) for fault in faults)
    warnings = order.warnings("Backup", {backup.id: backup.created_at for backup in backups_}, now)
    if warnings:
        text += "\n\n" + "\n".join(map(paragraph, warnings))
    if listing.unusable:
        text += "\n\nNot counted:\n" + "\n".join(paragraph(why) for why in listing.unusable)
    documents = [backup_document(backup) for backup in backups_]
    call.result({"folder": str(folder), "backups": documents, "unusable": listing.unusable, "warnings": warnings}, text)


@command("verify")
@click.argument("wanted", type=usable, shell_complete=backups, metavar="[BACKUP]", default="latest")
@click.option("--deep", is_flag=True, help="Restore it into a PostgreSQL that is thrown away, and compare all counts.")
@output_option
@detach_option
@common
def verify_command(call: Call, wanted: str, deep: bool, output: Path | None) -> None:
    """Check again that a backup can be restored.

    Every checksum is compared, and PostgreSQL reads the dump from its first byte to its last. Without BACKUP it is
    `latest`, the newest one without a known fault. This works on another machine too, without the stack.
    """
    backup = _find(call, wanted, output)
    world = call.world()
    tables: dict[str, int] = {}
    if deep:
        with _recorded(call, backup, verdict.RESTORED):
            tables, how = proof.verify_deep(world, backup, _image(call)), verdict.RESTORED
        result = f"a test restore gave {rows_text(tables)}, exactly what was backed up."
    else:
        with (
            _reader(call, backup) as server,
            _recorded(call, backup, verdict.READ_BACK if server else verdict.CHECKSUMS),
        ):
            how = proof.verify(world, backup, server)
        result = (
            "PostgreSQL read the dump from beginning to end."
            if server
            else "but the dump was not read: there is no PostgreSQL here to do it."
        )
    text = f"Backup {backup.id} is intact: every checksum matches, {'and ' if deep or server else ''}{result}"
    if backup.fault:
        text += f" Even so, do not rely on it. {backup.fault}"
        text += f" Prove it: docker chap verify {backup.id} --deep" if backup.proof.by == verdict.RESTORED else ""
    parts = [text, unexpected.backup_warning(backup.manifest.unexpected)]
    text = "\n".join(paragraph(part) for part in parts if part)
    call.result({"backup": backup_document(backup), "proven_by": how, "tables": tables}, text)


def _find(call: Call, wanted: str, output: Path | None) -> Backup:
    try:
        folder, origin = _folder(call, output)
    except StackError:
        # Nobody can say where backups lie; one that is named by its folder needs no other.
        if Path(wanted).is_dir():
            return catalogue.load(Path(wanted))
        raise
    backup = catalogue.find(wanted, folder, origin, sound=True)
    for note in catalogue.skipped_newer(wanted, backup, folder, origin):
        call.tell(paragraph(f"Note: {note}", sys.stderr))
    return backup


def _image(call: Call) -> str:
    """Return the id of the image that the stack's database runs, empty where there is no stack."""
    with suppress(ChapError):
        return str(observe.find_stack(call.world().engine, call.where()).database.containers[0].image_id)
    return ""


@contextmanager
def _recorded(call: Call, backup: Backup, how: str) -> Iterator[None]:
    """Write the proof of a backup down beside the files of the stack that it is of, where these are here."""
    directory = Path(backup.manifest.project.directory)
    with recorded(call, directory if audit.exists(directory) else None, backup.origin) as attempt:
        attempt.learn(f"{backup.id}: {how}", backup=backup.id, folder=str(backup.folder), proof=how)
        call.hand_over(directory if audit.exists(directory) else None)
        yield


@contextmanager
def _reader(call: Call, backup: Any) -> Iterator[Any]:
    """Yield the stack's PostgreSQL, else one of the backup's own image, else None."""
    world, server = call.world(), None
    with suppress(ChapError):
        server = server_of(world.engine, observe.find_stack(world.engine, call.where()))
    image = ""
    with suppress(ChapError):
        image = proof.image_of(backup) if world.engine.image(proof.image_of(backup)) else ""
    if server or not image:
        yield server
        return
    with jail.server(world, image) as other:
        yield other


def _folder(call: Call, output: Path | None) -> tuple[Path, Origin]:
    """Return the folder of the backups, and the stack's origin; without a stack, any origin."""
    where, engine = call.where(), call.world().engine
    try:
        stack = observe.find_stack(engine, where)
        origin = engine.origin(stack.project.name)
    except ChapError as error:
        if isinstance(error, SeveralStacks) and not output:
            raise  # nobody can say whose backups are meant
        return catalogue.folder_beside(where.directory or where.folder, output, where.environment), Origin(where.name)
    return catalogue.folder_for(stack, output, where.environment), origin
