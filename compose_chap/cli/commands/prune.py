"""The command that removes old backups and kept databases: prune."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from compose_chap import units
from compose_chap.backups.catalogue import Backup
from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command
from compose_chap.cli.commands.copies import prune_repository
from compose_chap.cli.options import at_least, output_option, wait_lock_option, yes_option
from compose_chap.cli.recorded import guarded
from compose_chap.cli.screen import sentences
from compose_chap.cli.screen.databases import NOWHERE_ELSE, rows_text, set_aside_text
from compose_chap.cli.screen.layout import paragraph, table
from compose_chap.cli.store import Store, from_repository, limit_option
from compose_chap.errors import DatabaseError, UsageError
from compose_chap.operations import prune
from compose_chap.operations.prune import PrunePlan
from compose_chap.postgres.server import Server
from compose_chap.records import lock, retention
from compose_chap.schedule.folders import all_folders
from compose_chap.stack import observe
from compose_chap.stack.databases import server_of
from compose_chap.transaction.run import kept

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _number(name: str, default: int, text: str, least: int = 0) -> Callable[[_Function], _Function]:
    check = at_least(least)
    return click.option(name, type=int, callback=check, metavar="N", default=default, show_default=True, help=text)


@command("prune")
@_number("--keep-last", 3, "Keep the last N backups.")
@_number("--keep-daily", 7, "Keep the newest backup of each of the last N days.")
@_number("--keep-weekly", 4, "Keep the newest backup of each of the last N weeks.")
@_number("--keep-monthly", 6, "Keep the newest backup of each of the last N months.")
@_number("--keep-databases", 7, "Keep databases of earlier runs for N days.")
@_number("--floor", 1, "Never keep fewer than N backups.", least=1)
@click.option(
    "--set-aside",
    is_flag=True,
    help="With --yes, also remove databases whose rows may be nowhere else: what a rollback or a restore set aside.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed and why, but remove nothing.")
@from_repository
@limit_option()
@yes_option
@output_option
@wait_lock_option
@common
def prune_command(
    call: Call,
    keep_last: int,
    keep_daily: int,
    keep_weekly: int,
    keep_monthly: int,
    keep_databases: int,
    floor: int,
    set_aside: bool,
    dry_run: bool,
    store: Store,
    limit_upload: int,
    yes: bool,
    output: Path | None,
) -> None:
    """Remove old backups, kept databases and kept images.

    Pinned backups stay, the newest one, and everything that `docker chap rollback` or `docker chap restore --undo`
    still needs. Backups that a failed upgrade made for itself go first. What would be removed is shown first.
    Databases whose rows may be nowhere else are named with what they hold; with --yes, as in a schedule, they stay.
    With --from old copies in that repository are removed instead, by the same rules.
    """
    rules = retention.Retention(keep_last, keep_daily, keep_weekly, keep_monthly, floor, keep_databases)
    if store.named:
        prune_repository(call, store, rules, output, limit_upload, dry_run=dry_run, yes=yes)
        return
    if limit_upload:
        raise UsageError("--limit-upload is about copies.", hint="Name where they are: --from REPOSITORY")
    world, where = call.world(), call.where()
    find = partial(observe.find_local_stack, world.engine, where)
    stack = find()
    folders = all_folders(stack, output, where.environment)

    with guarded(call, world, stack, find) as (stack, attempt):
        server, origin = server_of(world.engine, stack), world.engine.origin(stack.project.name)
        images, databases = kept.kept_images(world, stack.project.name), server.databases()
        inventory = prune.Inventory.of(stack, origin, folders, databases, images)
        chosen = prune.plan(stack, inventory, rules, world.clock(), with_set_aside=set_aside or not yes)
        text = _text(chosen, inventory.backups, keep_databases, {} if yes else _held(server, chosen))
        for warning in chosen.warnings:
            call.tell(paragraph(sentences.warning(warning), sys.stderr))
        if not (chosen.empty or dry_run):
            if not (call.json or yes):
                call.tell(f"{text}\n")
            call.confirm(sentences.ASK_REMOVE, yes=yes)
            attempt.learn(_summary(chosen), **_facts(chosen))
            with lock.signals_ignored():
                prune.execute(world, stack, server, chosen)
            text = text.replace(sentences.WOULD_BE_REMOVED, sentences.REMOVED, 1)
    notes = [set_aside_text(name, units.size(databases[name].size)) for name in chosen.left]
    text = "\n\n".join([text, *map(paragraph, notes)])
    call.result(
        {
            "removed": not (chosen.empty or dry_run),
            **_facts(chosen),
            "kept": dict(chosen.kept),
            "warnings": list(chosen.warnings),
            "notes": notes,
        },
        text,
    )


def _held(server: Server, chosen: PrunePlan) -> dict[str, str]:
    """Return what the databases hold that would go and whose rows may be nowhere else."""
    return {
        name: f"{held}: {_rows(server, name)}" for name, held in chosen.set_aside.items() if name not in chosen.left
    }


def _rows(server: Server, database: str) -> str:
    # A damaged database may be just what somebody wants to remove.
    try:
        return rows_text(server.counts(database))
    except DatabaseError:
        return "its rows cannot be counted"


def _text(chosen: PrunePlan, backups: Sequence[Backup], days: int, held: Mapping[str, str]) -> str:
    """Return what would go by which rule, with the sum, and what stays and why; folders only if there are several.

    `backups` are all that were looked at. `held` is what the databases hold that would go and whose rows may be nowhere
    else.
    """
    apart = len({backup.folder.parent for backup in backups}) > 1

    def folder(backup: Backup) -> str:
        return str(backup.folder.parent) if apart else ""

    going = [
        ["backup", backup.id, units.size(backup.size), folder(backup), chosen.reasons.get(backup.id, "")]
        for backup in chosen.backups
    ]
    old, last = sentences.older_than_days(days), sentences.older_than_last(retention.KEPT)
    going += [["database", name, units.size(size), "", old] for name, size in chosen.databases]
    going += [["images", f"of run {run}", "", "", sentences.DATA_GONE] for run in chosen.image_runs]
    if chosen.records:
        going.append(["records", f"of {len(chosen.records)} runs", "", "", last])
    reasons = dict(chosen.kept)
    staying = [["backup", backup.id, folder(backup), reasons[backup.id]] for backup in backups if backup.id in reasons]
    staying += [["database", name, "", why] for name, why in chosen.kept_databases]
    parts = []
    if going:
        images = sentences.IMAGES_FREE_TOO if chosen.image_runs else ""
        parts.append(f"{sentences.WOULD_BE_REMOVED}: {units.size(chosen.size)}{images}\n{table(going)}")
    else:
        parts.append(sentences.NOTHING_TO_REMOVE)
    if held:
        parts.append(f"{NOWHERE_ELSE}\n{table([list(row) for row in held.items()])}")
    if staying:
        parts.append(f"{sentences.STAYS}\n{table(staying)}")
    return "\n\n".join(parts)


def _facts(chosen: prune.PrunePlan) -> dict[str, Any]:
    return {
        "backups": [backup.id for backup in chosen.backups],
        "databases": [name for name, _ in chosen.databases],
        "image_runs": list(chosen.image_runs),
        "records": list(chosen.records),
    }


def _summary(chosen: prune.PrunePlan) -> str:
    counts = {
        "backup": len(chosen.backups),
        "kept database": len(chosen.databases),
        "kept image set": len(chosen.image_runs),
        "record": len(chosen.records),
    }
    return "removed " + ", ".join(f"{count} {what}" + "s" * (count > 1) for what, count in counts.items() if count)
