"""The commands about backups: backup, backups, verify, prune."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from compose_chap import units
from compose_chap.cli_options import Call, common, output_option, yes_option
from compose_chap.errors import ChapError, DumpError, UsageError

_Function = TypeVar("_Function", bound=Callable[..., Any])


@click.command("backup")
@output_option
@click.option("--reason", default="by hand", metavar="TEXT", help="Why, for the list of backups.")
@click.option("--with-dhis2", is_flag=True, help="DHIS2's database too.")
@click.option("--with-volumes", is_flag=True, help="Logs, runs and the data of model services too.")
@click.option("--dump-only", metavar="FILE", help="Nothing but a dump of CHAP's database, - for a pipe.")
@common
def backup_command(
    call: Call, output: Path | None, reason: str, with_dhis2: bool, with_volumes: bool, dump_only: str | None
) -> None:
    """Make a backup, and prove it by reading it back.

    CHAP goes on serving. The backup holds the database, the Compose files with all that they include, and the
    instructions to restore by hand. It lies in backups/ beside the main Compose file.
    """
    from compose_chap import backup, lock, observe, screen, state

    if dump_only and (output or with_dhis2 or with_volumes):
        raise UsageError("--dump-only writes one dump, and goes with none of -o, --with-dhis2, --with-volumes.")
    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    world.notify("check", stack.project.name)
    if dump_only:
        _dump_only(call, world, stack, dump_only)
        return
    sources = _sources(where, stack)
    folder = backup.folder_for(stack, output, where.environment)
    with lock.locked(stack.project.directory, "backup", world.clock()):
        state.refuse_open_run(stack.project.directory)
        made = backup.take(
            world.engine,
            stack,
            sources,
            folder,
            reason,
            clock=world.clock,
            notify=world.notify,
            with_dhis2=with_dhis2,
            with_volumes=with_volumes,
        )
    rows = sum(made.tables.values())
    call.result(
        {"backup": _backup_json(made)},
        screen.paragraph(
            f"Backup {made.id} is complete and was read back: {rows} rows in {len(made.tables)} tables,"
            f" {units.size(made.size)}, in {units.duration(made.manifest['seconds']['all'])}."
        )
        + f"\n{made.folder}",
    )


def _dump_only(call: Call, world: Any, stack: Any, asked: str) -> None:
    from compose_chap import backup, screen

    if asked == "-":
        if sys.stdout.isatty():
            raise UsageError("A dump is not for a terminal.", hint="Write it to a file: --dump-only FILE")
        try:
            backup.take_dump_only(world.engine, stack, None, sys.stdout.buffer.write, world.notify)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise DumpError("The reader of the pipe went away.", state="The dump is not whole.") from None
        return
    target = Path(asked).absolute()
    tables, size = backup.take_dump_only(world.engine, stack, target, None, world.notify)
    call.result(
        {"dump": {"file": str(target), "size": size, "tables": tables}},
        screen.paragraph(
            f"The dump was read back: {sum(tables.values())} rows in {len(tables)} tables, {units.size(size)}."
        )
        + f"\n{target}",
    )


@click.command("backups")
@click.option("--pin", metavar="BACKUP", help="Keep a backup whatever prune says.")
@click.option("--unpin", metavar="BACKUP", help="Let prune take it again.")
@output_option
@common
def backups_command(call: Call, pin: str | None, unpin: str | None, output: Path | None) -> None:
    """List the backups, or pin one.

    A backup that is pinned is never removed by `docker chap prune`.
    """
    from compose_chap import backup, screen

    folder, project = _folder(call, output)
    for asked, pinned in ((pin, True), (unpin, False)):
        if asked:
            backup.pin(backup.find(asked, folder, project), pinned)
    found, now = backup.list_backups(folder), call.clock()
    rows = [
        [
            one.id,
            units.age(one.created_at, now),
            units.size(one.size),
            one.manifest["chap"]["version"] or "unknown",
            f"{one.proof[1]} {units.age(one.proof[0], now)}",
            one.manifest["reason"] + (", pinned" if one.pinned else ""),
        ]
        + ([one.project] if any(other.project != project for other in found) else [])
        for one in found
    ]
    heads = ["BACKUP", "AGE", "SIZE", "CHAP", "PROVEN", "REASON", "PROJECT"]
    text = screen.table(rows, heads[: len(rows[0])]) if rows else f"No backups in {folder}."
    call.result({"folder": str(folder), "backups": [_backup_json(one) for one in found]}, text)


@click.command("verify")
@click.argument("asked", metavar="BACKUP", default="latest")
@click.option("--deep", is_flag=True, help="Restore it into a PostgreSQL that is thrown away, and compare all counts.")
@output_option
@common
def verify_command(call: Call, asked: str, deep: bool, output: Path | None) -> None:
    """Prove a backup once more.

    Every checksum is compared, and PostgreSQL reads the dump from its first byte to its last. Without BACKUP it is the
    newest one. This works on another machine too, without the stack.
    """
    from compose_chap import backup, proof, screen

    folder, project = _folder(call, output)
    found = backup.find(asked, folder, project)
    world = call.world()
    said = f"Backup {found.id} is whole: every checksum fits"
    tables: dict[str, int] = {}
    if deep:
        tables, how = proof.verify_deep(world, found, _image(call)), proof.RESTORED
        said += f", and restoring it gave all {sum(tables.values())} rows in {len(tables)} tables"
    else:
        with _reader(call, found) as server:
            if server:
                proof.verify(world, found, server)
                how, said = proof.READ_BACK, f"{said}, the dump was read back"
            else:
                proof.check_sums(world, found)
                how, said = "checksums", f"{said}. It was not read back: no PostgreSQL is here to do it"
    call.result({"backup": _backup_json(found), "proven_by": how, "tables": tables}, screen.paragraph(f"{said}."))


def _image(call: Call) -> str:
    """Return the id of the image that the stack's database runs, empty where there is no stack."""
    from compose_chap import observe

    with suppress(ChapError):
        return str(observe.find_stack(call.world().engine, call.where()).database.containers[0].image_id)
    return ""


@contextmanager
def _reader(call: Call, found: Any) -> Iterator[Any]:
    """Hand out the stack's PostgreSQL; where that does not run one of the backup's own image; None without both."""
    from compose_chap import backup, observe, proof

    world, server = call.world(), None
    with suppress(ChapError):
        server = backup.server_of(world.engine, observe.find_stack(world.engine, call.where()))
    image = ""
    with suppress(ChapError):
        image = proof.image_of(found) if world.engine.image(proof.image_of(found)) else ""
    if server or not image:
        yield server
        return
    with proof.throwaway(world, image) as other:
        yield other


def _folder(call: Call, output: Path | None) -> tuple[Path, str]:
    """Return where the backups lie, and the project's name; empty where no stack is found, as on another machine."""
    from compose_chap import backup, observe

    where = call.where()
    try:
        stack = observe.find_stack(call.world().engine, where)
        return backup.folder_for(stack, output, where.environment), stack.project.name
    except ChapError:
        return backup.folder_beside(where.directory or where.folder, output, where.environment), where.name


def _number(name: str, default: int, text: str, least: int = 0) -> Callable[[_Function], _Function]:
    kind = click.IntRange(least)
    return click.option(name, type=kind, metavar="N", default=default, show_default=True, help=text)


@click.command("prune")
@_number("--keep-last", 3, "The last N backups stay.")
@_number("--keep-daily", 7, "The newest backup of each of the last N days stays.")
@_number("--keep-weekly", 4, "The newest backup of each of the last N weeks stays.")
@_number("--keep-monthly", 6, "The newest backup of each of the last N months stays.")
@_number("--keep-databases", 7, "Kept databases stay for N days.")
@_number("--floor", 1, "Never fewer than N backups stay.", least=1)
@click.option("--dry-run", is_flag=True, help="Show what would go, and remove nothing.")
@yes_option
@output_option
@common
def prune_command(
    call: Call,
    keep_last: int,
    keep_daily: int,
    keep_weekly: int,
    keep_monthly: int,
    keep_databases: int,
    floor: int,
    dry_run: bool,
    yes: bool,
    output: Path | None,
) -> None:
    """Remove old backups and kept databases.

    A pinned backup stays, and the last one, and everything that `docker chap rollback` or `docker chap restore --undo`
    still needs. What would go is shown first.
    """
    from compose_chap import backup, lock, observe, prune, state

    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    folder = backup.folder_for(stack, output, where.environment)
    retention = prune.Retention(keep_last, keep_daily, keep_weekly, keep_monthly, floor, keep_databases)

    with lock.locked(stack.project.directory, "prune", world.clock()):
        state.refuse_open_run(stack.project.directory)
        server = backup.server_of(world.engine, stack)
        chosen = prune.plan(stack, server, folder, retention, world.clock())
        lines = [f"backup    {one.id}  {units.size(one.size)}" for one in chosen.backups]
        lines += [f"database  {name}  {units.size(bytes_)}" for name, bytes_ in chosen.databases]
        text = "\n".join(lines) or "Nothing to remove."
        if not (chosen.empty or dry_run):
            if not call.json:
                click.echo(text, err=True)
            call.confirm("Remove these for good?", yes=yes)
            prune.execute(world, stack, server, chosen)
            text = f"Removed:\n{text}"
    call.result(
        {
            "removed": not (chosen.empty or dry_run),
            "backups": [one.id for one in chosen.backups],
            "databases": [name for name, _ in chosen.databases],
            "kept": dict(chosen.kept),
        },
        text,
    )


def _sources(where: Any, stack: Any) -> tuple[Path, ...]:
    from compose_chap import observe

    return tuple(observe.read_model(where, stack.project).sources)


def _backup_json(one: Any) -> dict[str, Any]:
    when, how = one.proof
    return {
        **one.manifest,
        "folder": str(one.folder),
        "size": one.size,
        "pinned": one.pinned,
        "proven_at": when.isoformat(),
        "proven_by": how,
    }
