"""The command that proves a backup or a dump again: verify."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from compose_chap import units
from compose_chap.backups import catalogue, proof, verdict
from compose_chap.backups.catalogue import Backup
from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command
from compose_chap.cli.commands.backups import folders_of_backups, wanted_backup
from compose_chap.cli.commands.copies import stack_records
from compose_chap.cli.options import detach_option, output_option, usable, wait_lock_option
from compose_chap.cli.recorded import Attempt, recorded
from compose_chap.cli.screen import copies, sentences
from compose_chap.cli.screen.backups import backup_document
from compose_chap.cli.screen.databases import rows_text
from compose_chap.cli.screen.layout import paragraph
from compose_chap.cli.store import Store, from_repository, wanted_copy
from compose_chap.cli.values import backups
from compose_chap.copies import fetch
from compose_chap.copies.restic import Restic
from compose_chap.errors import ChapError, DumpError, StackError
from compose_chap.postgres.untrusted import jail, unexpected
from compose_chap.records import audit
from compose_chap.restore import dump_proof, source
from compose_chap.restore.source import Source
from compose_chap.stack import observe
from compose_chap.stack.databases import server_of


@command("verify")
@click.argument("wanted", type=usable, shell_complete=backups, metavar="[BACKUP]", default="latest")
@click.option("--deep", is_flag=True, help="Restore it into a throwaway PostgreSQL, and count all rows.")
@from_repository
@output_option
@wait_lock_option
@detach_option
@common
def verify_command(call: Call, wanted: str, deep: bool, store: Store, output: Path | None) -> None:
    """Check again that a backup or a dump can be restored.

    Every checksum is compared, and PostgreSQL reads the dump from its first byte to its last. Without BACKUP it is
    `latest`, the newest one without a known fault. This works on another machine too, without the stack. BACKUP may
    also be the file of a dump, in any of PostgreSQL's formats: the stack shows which PostgreSQL should read it. With
    --from a copy is read back from its repository, restored into a throwaway PostgreSQL, and all its rows are counted.
    """
    if store.named:
        _verify_copy(call, store.open(call), wanted, output)
        return
    if dump := source.dump_alone(wanted):
        _verify_dump(call, dump, deep=deep)
        return
    backup = _find(call, wanted, output)
    world = call.world()
    tables: dict[str, int] = {}
    if deep:
        with _recorded(call, backup, verdict.RESTORED) as attempt:
            tables, how = proof.verify_deep(world, backup, _image(call)), verdict.RESTORED
            attempt.learn(tables=len(tables), rows=sum(tables.values()))
        result = sentences.same_rows(rows_text(tables))
    else:
        with (
            _reader(call, backup) as server,
            _recorded(call, backup, verdict.READ_BACK if server else verdict.CHECKSUMS),
        ):
            how = proof.verify(world, backup, server)
        result = sentences.READ_TO_END if server else sentences.NOT_READ
    text = sentences.backup_intact(backup.id, result)
    if backup.fault:
        text += f" {sentences.still_unreliable(backup.fault)}"
        text += f" Prove it: docker chap verify {backup.id} --deep" if backup.proof.by == verdict.RESTORED else ""
    parts = [text, unexpected.backup_warning(backup.manifest.unexpected)]
    text = "\n".join(paragraph(part) for part in parts if part)
    call.result({"backup": backup_document(backup), "proven_by": how, "tables": tables}, text)


def _verify_dump(call: Call, dump: Source, *, deep: bool) -> None:
    """Prove a dump that comes without a backup. There is no manifest to compare with, so the rows are shown."""
    world = call.world()
    stack = observe.find_stack(world.engine, call.where())
    how = verdict.RESTORED if deep else verdict.READ_BACK
    directory = stack.project.directory if stack.project.local else None
    with recorded(call, directory, world.engine.origin(stack.project.name)) as attempt:
        attempt.learn(f"{dump.path}: {how}", dump=str(dump.path), proof=how)
        call.hand_over(directory)
        try:
            made = dump_proof.verify(world, dump, stack, deep=deep)
        except DumpError as error:
            error.state = error.state or "The stack was not touched."
            raise
    result = (
        sentences.dump_read(units.several(made.tables, "table"))
        if made.rows is None
        else sentences.dump_restored(rows_text(made.rows))
    )
    parts = [sentences.dump_intact(dump.path, result), unexpected.backup_warning(made.unexpected)]
    document = {"path": str(dump.path), "size": dump.size, "tables": made.tables, "unexpected": list(made.unexpected)}
    call.result(
        {"dump": document, "proven_by": how, "tables": dict(made.rows or {})},
        "\n".join(paragraph(part) for part in parts if part),
    )


def _verify_copy(call: Call, restic: Restic, wanted: str, output: Path | None) -> None:
    """Prove a copy by what comes back from its repository."""
    directory, origin = stack_records(call)
    with recorded(call, directory, origin) as attempt:
        copy = wanted_copy(call, restic, wanted)
        attempt.learn(
            f"copy {copy.id}: {verdict.RESTORED}", copy=copy.id, repository=restic.location, proof=verdict.RESTORED
        )
        call.hand_over(directory)
        folders, _ = folders_of_backups(call, output)
        drill = fetch.drill(call.world(), restic, copy, folders[0], _image(call))
        attempt.learn(tables=len(drill.tables), rows=sum(drill.tables.values()))
    call.result(
        {"copy": copies.copy_document(copy), "proven_by": verdict.RESTORED, "tables": dict(drill.tables)},
        paragraph(copies.intact(copy.id, restic.location, rows_text(drill.tables))),
    )


def _find(call: Call, wanted: str, output: Path | None) -> Backup:
    try:
        folders, origin = folders_of_backups(call, output)
    except StackError:
        # Nobody can say where backups lie; one that is named by its folder needs no other.
        if Path(wanted).is_dir():
            return catalogue.load(Path(wanted))
        raise
    return wanted_backup(call, wanted, folders, origin, or_file=True)


def _image(call: Call) -> str:
    """Return the id of the image that the stack's database runs, empty where there is no stack."""
    with suppress(ChapError):
        return str(observe.find_stack(call.world().engine, call.where()).database.containers[0].image_id)
    return ""


@contextmanager
def _recorded(call: Call, backup: Backup, how: str) -> Iterator[Attempt]:
    """Write the proof of a backup down beside the files of the stack that it is of, where these are here."""
    directory = Path(backup.manifest.project.directory)
    with recorded(call, directory if audit.exists(directory) else None, backup.origin) as attempt:
        attempt.learn(f"{backup.id}: {how}", backup=backup.id, folder=str(backup.folder), proof=how)
        call.hand_over(directory if audit.exists(directory) else None)
        yield attempt


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
