"""The commands about backups: backup, backups, verify."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compose_chap import units
from compose_chap.cli.call import Call, common, filled, output_option
from compose_chap.errors import ChapError, DumpError, StackError, UsageError
from compose_chap.model import Origin

if TYPE_CHECKING:
    from compose_chap.backups.catalogue import Backup
    from compose_chap.backups.dump_only import DumpOnly


@click.command("backup")
@output_option
@click.option("--reason", default="by hand", metavar="TEXT", help="Why, for the list of backups.")
@click.option("--with-dhis2", is_flag=True, help="DHIS2's database too.")
@click.option("--with-volumes", is_flag=True, help="Logs, runs and the data of model services too.")
@click.option("--dump-only", type=filled, metavar="FILE", help="Nothing but a dump of CHAP's database, - for a pipe.")
@common
def backup_command(
    call: Call, output: Path | None, reason: str, with_dhis2: bool, with_volumes: bool, dump_only: str | None
) -> None:
    """Make a backup, and prove it by reading it back.

    CHAP goes on serving. The backup holds the database, the Compose files with all that they include, and the
    instructions to restore by hand. It lies in backups/ beside the main Compose file.
    """
    from compose_chap.backups import backup, catalogue
    from compose_chap.cli.screen import render
    from compose_chap.postgres import unexpected
    from compose_chap.records import engine_lock, run_records
    from compose_chap.stack import observe

    if dump_only and (output or with_dhis2 or with_volumes):
        raise UsageError("--dump-only writes one dump, and goes with none of -o, --with-dhis2, --with-volumes.")
    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    world.notify("check", stack.project.name)
    if dump_only:
        _dump_only(call, world, stack, dump_only)
        return
    sources = tuple(observe.read_model(where, stack).sources)
    folder = catalogue.folder_for(stack, output, where.environment)
    with engine_lock.locked(world, stack, "backup"):
        if stack.project.here:
            run_records.refuse_open_run(stack.project.directory)
        made = backup.take(
            world,
            stack,
            sources,
            folder,
            reason,
            with_dhis2=with_dhis2,
            with_volumes=with_volumes,
        )
    _warn(call, _warnings(made))
    rows = sum(made.tables.values())
    state_of = "was read back" if made.fault else "is complete and was read back"
    said = (
        f"Backup {made.id} {state_of}: {rows} rows in {len(made.tables)} tables,"
        f" {units.size(made.size)}, in {units.duration(made.manifest['seconds']['all'])}."
    )
    parts = [said, unexpected.told(made.manifest["foreign"])]
    text = "\n".join(render.paragraph(part) for part in parts if part)
    call.result({"backup": _backup_json(made)}, f"{text}\n{made.folder}")


def _warnings(made: Backup) -> Iterator[str]:
    if made.lost_tables:
        yield (
            f"The database has lost {', '.join(made.lost_tables)}, so this backup lacks them too, and `latest` does not"
            " mean it. Keep the earlier ones: docker chap backups --pin ID"
        )
    if absent := made.manifest["project"]["absent"]:
        yield (
            f"The Compose files are not in it: they are not on this machine ({', '.join(absent)})."
            " Back up on the server itself to keep them too."
        )
    if absent := made.manifest["absent_tables"]:
        yield f"Not in this backup, though an earlier one or CHAP has them: {', '.join(absent)}."


def _warn(call: Call, warnings: Iterable[str]) -> None:
    from compose_chap.cli.screen import render

    for warning in warnings:
        call.tell(render.paragraph(f"Warning: {warning}", sys.stderr))


def _dump_only(call: Call, world: Any, stack: Any, asked: str) -> None:
    from compose_chap.backups import dump_only
    from compose_chap.cli.screen import render

    if asked == "-":
        if sys.stdout.isatty():
            raise UsageError("A dump is not for a terminal.", hint="Write it to a file: --dump-only FILE")
        made = dump_only.into(world.engine, stack, _write_out, world.notify)
        _warn(call, _dump_warnings(made))
        return
    target = Path(asked).absolute()
    if target.is_dir():
        raise UsageError(f"{target} is a folder.", state="Nothing was written.", hint="Give a file: --dump-only FILE")
    made = dump_only.into_file(world.engine, stack, target, world.notify)
    _warn(call, _dump_warnings(made))
    said = f"The dump was read back: {sum(made.tables.values())} rows in {len(made.tables)} tables,"
    text = render.paragraph(f"{said} {units.size(made.size)}.") + f"\n{target}"
    call.result({"dump": {"file": str(target), **vars(made)}}, text)


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
            "The reader of the pipe went away." if gone else f"Cannot write the dump: {error.strerror}.",
            state="The dump is not whole.",
            hint="Run the command again." if gone else "Make room, or write elsewhere. Then run the command again.",
        ) from None


def _dump_warnings(made: DumpOnly) -> Iterator[str]:
    from compose_chap.postgres import unexpected

    if made.lost_tables:
        yield (
            f"The database has lost {', '.join(made.lost_tables)}, so this dump lacks them too."
            " Keep the backups of before: docker chap backups --pin ID"
        )
    if told := unexpected.told(made.foreign):
        yield told


@click.command("backups")
@click.option("--pin", metavar="BACKUP", help="Keep a backup whatever prune says.")
@click.option("--unpin", metavar="BACKUP", help="Let prune take it again.")
@output_option
@common
def backups_command(call: Call, pin: str | None, unpin: str | None, output: Path | None) -> None:
    """List the backups, or pin one.

    A backup that is pinned is never removed by `docker chap prune`.
    """
    from compose_chap.backups import catalogue
    from compose_chap.cli.screen import render

    folder, origin = _folder(call, output)
    for asked, pinned in ((pin, True), (unpin, False)):
        if asked:
            catalogue.pin(catalogue.find(asked, folder, origin), pinned)
    found, now = catalogue.list_backups(folder), call.clock()
    rows = [
        [
            one.id,
            units.age(one.created_at, now),
            units.size(one.size),
            one.manifest["chap"]["version"] or "unknown",
            f"{one.proof.how} {units.age(one.proof.at, now)}",
            one.manifest["reason"]
            + (", pinned" if one.pinned else "")
            + (", needs --trust" if one.manifest.get("foreign") else ""),
        ]
        + ([str(one.origin)] if not all(origin.owns(other.origin) for other in found) else [])
        for one in found
    ]
    heads = ["BACKUP", "AGE", "SIZE", "CHAP", "PROVEN", "REASON", "STACK"]
    text = render.table(rows, heads[: len(rows[0])]) if rows else f"No backups in {folder}."
    if faults := [f"{one.id} is not to be relied on. {one.fault}" for one in found if one.fault]:
        text += "\n\n" + "\n".join(render.paragraph(fault) for fault in faults)
    call.result({"folder": str(folder), "backups": [_backup_json(one) for one in found]}, text)


@click.command("verify")
@click.argument("asked", metavar="[BACKUP]", default="latest")
@click.option("--deep", is_flag=True, help="Restore it into a PostgreSQL that is thrown away, and compare all counts.")
@output_option
@common
def verify_command(call: Call, asked: str, deep: bool, output: Path | None) -> None:
    """Prove a backup once more.

    Every checksum is compared, and PostgreSQL reads the dump from its first byte to its last. Without BACKUP it is
    `latest`, the newest one without a known fault. This works on another machine too, without the stack.
    """
    from compose_chap.backups import catalogue, proof
    from compose_chap.cli.screen import render
    from compose_chap.postgres import unexpected

    found = _find(call, asked, output)
    world = call.world()
    said = f"Backup {found.id} is whole: every checksum fits"
    tables: dict[str, int] = {}
    if deep:
        tables, how = proof.verify_deep(world, found, _image(call)), catalogue.RESTORED
        said += f", and restoring it gave all {sum(tables.values())} rows in {len(tables)} tables."
    else:
        with _reader(call, found) as server:
            how = proof.verify(world, found, server)
        read = ", the dump was read back." if server else ". It was not read back: no PostgreSQL is here to do it."
        said += read
    if found.fault:
        said += f" It is not to be relied on all the same. {found.fault}"
        said += f" Prove it: docker chap verify {found.id} --deep" if found.proof.by == catalogue.RESTORED else ""
    parts = [said, unexpected.told(found.manifest.get("foreign", ()))]
    text = "\n".join(render.paragraph(part) for part in parts if part)
    call.result({"backup": _backup_json(found), "proven_by": how, "tables": tables}, text)


def _find(call: Call, asked: str, output: Path | None) -> Backup:
    from compose_chap.backups import catalogue
    from compose_chap.cli.screen import render

    try:
        folder, origin = _folder(call, output)
    except StackError:
        # Nobody can say where backups lie; one that is named by its folder needs no other.
        if Path(asked).is_dir():
            return catalogue.load(Path(asked))
        raise
    found = catalogue.find(asked, folder, origin, sound=True)
    for note in catalogue.passed_over(asked, found, folder, origin):
        call.tell(render.paragraph(f"Note:  {note}", sys.stderr))
    return found


def _image(call: Call) -> str:
    """Return the id of the image that the stack's database runs, empty where there is no stack."""
    from compose_chap.stack import observe

    with suppress(ChapError):
        return str(observe.find_stack(call.world().engine, call.where()).database.containers[0].image_id)
    return ""


@contextmanager
def _reader(call: Call, found: Any) -> Iterator[Any]:
    """Hand out the stack's PostgreSQL; where that does not run one of the backup's own image; None without both."""
    from compose_chap.backups import proof
    from compose_chap.stack import observe
    from compose_chap.stack.databases import server_of

    world, server = call.world(), None
    with suppress(ChapError):
        server = server_of(world.engine, observe.find_stack(world.engine, call.where()))
    image = ""
    with suppress(ChapError):
        image = proof.image_of(found) if world.engine.image(proof.image_of(found)) else ""
    if server or not image:
        yield server
        return
    with proof.throwaway_server(world, image) as other:
        yield other


def _folder(call: Call, output: Path | None) -> tuple[Path, Origin]:
    """Return where the backups lie, and of which stack; of any where none is found, as on another machine."""
    from compose_chap.backups import catalogue
    from compose_chap.stack import observe

    where, engine = call.where(), call.world().engine
    try:
        stack = observe.find_stack(engine, where)
        origin = engine.origin(stack.project.name)
    except ChapError:
        return catalogue.folder_beside(where.directory or where.folder, output, where.environment), Origin(where.name)
    return catalogue.folder_for(stack, output, where.environment), origin


def _backup_json(one: Any) -> dict[str, Any]:
    bad = one.proof.how == "bad"
    return {
        **one.manifest,
        "folder": str(one.folder),
        "size": one.size,
        "pinned": one.pinned,
        "proven_at": None if bad else one.proof.at.isoformat(),
        "proven_by": None if bad else one.proof.how,
        "fault": one.fault,
    }
