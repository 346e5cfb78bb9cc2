"""The commands about backups: backup, backups, verify, prune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from compose_chap.cli_options import Call, common, output_option, yes_option


@click.command("backup")
@output_option
@common
def backup_command(call: Call, output: Path | None) -> None:
    """Make a backup, and prove it."""
    from compose_chap import backup, lock, observe, screen, state

    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    sources = _sources(where, stack)
    folder = backup.folder_for(stack, output, where.environment)
    with lock.locked(stack.project.directory, "backup", world.clock()):
        state.refuse_open_run(stack.project.directory)
        made = backup.take(world.engine, stack, sources, folder, "by hand", clock=world.clock, notify=world.notify)
    rows = sum(made.tables.values())
    call.result(
        {"backup": _backup_json(made)},
        f"Backup {made.id} is complete and was read back: {rows} rows in {len(made.tables)} tables,"
        f" {screen.size(made.size)}.\n{made.folder}",
    )


@click.command("backups")
@output_option
@common
def backups_command(call: Call, output: Path | None) -> None:
    """List the backups."""
    from compose_chap import backup, observe, screen

    world, where = call.world(), call.where()
    folder = backup.folder_for(observe.find_stack(world.engine, where), output, where.environment)
    found = backup.list_backups(folder)
    rows = [
        [
            one.id,
            screen.age(one.created_at, world.clock()),
            screen.size(one.size),
            one.manifest["chap"]["version"] or "unknown",
            one.manifest["reason"],
        ]
        for one in found
    ]
    text = screen.table(rows, ["BACKUP", "AGE", "SIZE", "CHAP", "REASON"]) if rows else f"No backups in {folder}."
    call.result({"folder": str(folder), "backups": [_backup_json(one) for one in found]}, text)


@click.command("verify")
@click.argument("backup_", metavar="BACKUP", default="latest")
@output_option
@common
def verify_command(call: Call, backup_: str, output: Path | None) -> None:
    """Prove a backup once more: checksums, and the dump read whole."""
    from compose_chap import backup, observe

    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    found = backup.find(backup_, backup.folder_for(stack, output, where.environment))
    backup.verify(found, backup.server_of(world.engine, stack), world.notify)
    call.result(
        {"backup": _backup_json(found)}, f"Backup {found.id} is whole: every checksum fits, the dump was read back."
    )


@click.command("prune")
@click.option("--keep-last", default=3, show_default=True, help="How many of the last backups stay.")
@click.option("--keep-daily", default=7, show_default=True, help="For how many days the newest backup stays.")
@click.option("--keep-weekly", default=4, show_default=True, help="For how many weeks the newest backup stays.")
@click.option("--keep-monthly", default=6, show_default=True, help="For how many months the newest backup stays.")
@click.option("--keep-databases", default=7, show_default=True, help="For how many days kept databases stay.")
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
    dry_run: bool,
    yes: bool,
    output: Path | None,
) -> None:
    """Remove old backups and kept databases, never what a rollback still needs."""
    from compose_chap import backup, lock, observe, prune, screen, state

    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    folder = backup.folder_for(stack, output, where.environment)
    retention = prune.Retention(keep_last, keep_daily, keep_weekly, keep_monthly, databases_days=keep_databases)

    with lock.locked(stack.project.directory, "prune", world.clock()):
        state.refuse_open_run(stack.project.directory)
        server = backup.server_of(world.engine, stack)
        chosen = prune.plan(stack, server, folder, retention, world.clock())
        lines = [f"backup    {one.id}  {screen.size(one.size)}" for one in chosen.backups]
        lines += [f"database  {name}  {screen.size(bytes_)}" for name, bytes_ in chosen.databases]
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
    return {"folder": str(one.folder), "size": one.size, **one.manifest}
