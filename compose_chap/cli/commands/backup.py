"""The command that takes a backup, or only a dump."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import click

from compose_chap import units
from compose_chap.backups import backup, dump_only
from compose_chap.backups.catalogue import Backup
from compose_chap.backups.dump_only import DumpOnly
from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command
from compose_chap.cli.options import allow_unmounted_option, detach_option, output_file, output_option, wait_lock_option
from compose_chap.cli.recorded import guarded, recorded
from compose_chap.cli.screen import sentences
from compose_chap.cli.screen.backups import backup_document
from compose_chap.cli.screen.databases import rows_text
from compose_chap.cli.screen.layout import paragraph
from compose_chap.cli.values import files
from compose_chap.engine.world import World
from compose_chap.errors import DumpError, UsageError
from compose_chap.model import Stack
from compose_chap.postgres.untrusted import unexpected
from compose_chap.records.files.mounted import refuse_unmounted
from compose_chap.schedule.folders import folder_for
from compose_chap.stack import observe


@command("backup")
@output_option
@click.option("--reason", default="by hand", metavar="TEXT", help="Why, shown in the list of backups.")
@click.option("--with-dhis2", is_flag=True, help="Include DHIS2's database.")
@click.option("--with-volumes", is_flag=True, help="Include logs, runs and the data of model services.")
@click.option(
    "--dump-only",
    type=output_file,
    shell_complete=files,
    metavar="FILE",
    help="Write only a dump of CHAP's database; - for a pipe.",
)
@allow_unmounted_option
@wait_lock_option
@detach_option
@common
def backup_command(
    call: Call,
    output: Path | None,
    reason: str,
    with_dhis2: bool,
    with_volumes: bool,
    dump_only: str | None,
    allow_unmounted: bool,
) -> None:
    """Make a backup, and check it by reading it back.

    CHAP keeps running. The backup holds the database, the Compose files with all that they include, and the
    instructions to restore by hand. It is written to backups/ beside the main Compose file.
    """
    if dump_only and (output or with_dhis2 or with_volumes):
        raise UsageError("--dump-only writes one dump; it cannot be used with -o, --with-dhis2 or --with-volumes.")
    world, where = call.world(), call.where()
    find = partial(observe.find_stack, world.engine, where)
    stack = find()
    world.notify("check", stack.project.name)
    if dump_only:
        _dump_only(call, world, stack, dump_only)
        return
    sources = tuple(observe.read_model(where, stack).contents)
    folder = folder_for(stack, output, where.environment)
    if not allow_unmounted:
        refuse_unmounted(folder)
    with world.parallel(1) as (pool, _):
        # Making the lock takes the engine a moment. Meanwhile is asked what is then remembered.
        pool.submit(backup.acquaint, world.engine, stack)
        with guarded(call, world, stack, find) as (stack, attempt):
            call.hand_over(stack.project.directory if stack.project.local else None)
            world.notify("backup", stack.access.name)
            made = backup.take(world, backup.Scope(stack, sources, reason, with_dhis2, with_volumes), folder)
            attempt.learn(made.id, backup=made.id, folder=str(made.folder), **made.figures)
    _warn(call, _warnings(made))
    took = units.duration(made.manifest.seconds.get("all", 0))
    rows, size = rows_text(made.tables), units.size(made.size)
    summary = sentences.backup_made(made.id, rows, size, took, complete=not made.fault)
    parts = [summary, unexpected.backup_warning(made.manifest.unexpected)]
    text = "\n".join(paragraph(part) for part in parts if part)
    call.result({"backup": backup_document(made)}, f"{text}\n{made.folder}")


def _warnings(made: Backup) -> Iterator[str]:
    if lost := made.manifest.lost_tables:
        yield sentences.tables_lost(lost, sentences.THIS_BACKUP)
    if absent := made.manifest.project.absent:
        yield sentences.files_not_included(absent)
    if absent := made.manifest.absent_tables:
        yield sentences.tables_not_included(absent)


def _warn(call: Call, warnings: Iterable[str]) -> None:
    for warning in warnings:
        call.tell(paragraph(sentences.warning(warning), sys.stderr))


def _dump_only(call: Call, world: World, stack: Stack, wanted: str) -> None:
    """Write a dump, and write that down: nothing else would show that the data left."""
    piped, target = wanted == "-", Path(wanted).absolute()
    if piped and sys.stdout.isatty():
        raise UsageError("A dump cannot be written to a terminal.", hint="Write it to a file: --dump-only FILE")
    if not piped and target.is_dir():
        raise UsageError(f"{target} is a folder.", state="Nothing was written.", hint="Give a file: --dump-only FILE")
    where = "standard output" if piped else str(target)
    directory = stack.project.directory if stack.project.local else None
    # Not as a backup: what counts those counts no dump.
    with recorded(call, directory, world.engine.origin(stack.project.name), "dump", unlocked=True) as attempt:
        attempt.learn(f"to {where}", dump=where)
        if piped:
            made = dump_only.into(world.engine, stack, _write_out, world.notify)
        else:
            made = dump_only.into_file(world.engine, stack, target, world.notify)
        attempt.learn(size=made.size, tables=len(made.tables), rows=sum(made.tables.values()))
    _warn(call, _dump_warnings(made))
    if piped:
        return
    summary = sentences.dump_made(rows_text(made.tables), units.size(made.size))
    text = paragraph(summary) + f"\n{target}"
    facts = {"tables": made.tables, "size": made.size, "foreign": made.unexpected, "lost_tables": made.lost_tables}
    call.result({"dump": {"file": str(target), **facts}}, text)


def _write_out(data: bytes) -> None:
    """Write to standard output, whatever reads it. Raise DumpError when it takes no more."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        # What is left in the buffer would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        gone = isinstance(error, BrokenPipeError)
        raise DumpError(
            "The program that reads the pipe has ended." if gone else f"Cannot write the dump: {error.strerror}.",
            state="The dump is incomplete.",
            hint="Run the command again." if gone else "Make room, or write elsewhere. Then run the command again.",
        ) from None


def _dump_warnings(made: DumpOnly) -> Iterator[str]:
    if made.lost_tables:
        yield sentences.tables_lost(made.lost_tables, sentences.THIS_DUMP)
    if warning := unexpected.backup_warning(made.unexpected):
        yield warning
