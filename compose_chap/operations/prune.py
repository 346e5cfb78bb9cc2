"""Retention: which backups and kept databases may be removed. A rollback's needs are never removed."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from compose_chap.backups import catalogue
from compose_chap.backups.backup import remove_abandoned
from compose_chap.backups.catalogue import Backup
from compose_chap.backups.verdict import RESTORED
from compose_chap.engine.world import World
from compose_chap.model import Origin, Stack
from compose_chap.postgres.server import Database, Server
from compose_chap.records import lock, order, run_records
from compose_chap.records import retention as retained
from compose_chap.records.retention import Retention
from compose_chap.transaction.run import kept


@dataclass(frozen=True)
class Inventory:
    """What a stack has: its backups, oldest first, the databases of its server, the tags of kept images.

    `runs` are the records of effective runs, oldest first; `of_failed` are the backups of failed runs,
    `history` the records of all runs, `in_use` the backups that are being copied elsewhere.
    """

    backups: tuple[Backup, ...]
    runs: tuple[Mapping[str, Any], ...]
    databases: Mapping[str, Database]
    images: tuple[str, ...]
    of_failed: frozenset[str] = frozenset()
    history: tuple[dict[str, Any], ...] = ()
    in_use: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        stack: Stack,
        origin: Origin,
        folders: Sequence[Path],
        databases: Mapping[str, Database],
        images: Iterable[str] = (),
    ) -> Inventory:
        """Return it for the stack that has this origin, and its backups in these folders.

        Raise StateError when not all of them can be read: nothing is removed while nobody knows what else exists.
        """
        runs = run_records.effective_runs(stack.project.directory, origin)
        history = tuple(run_records.history(stack.project.directory, origin))
        backups, of_failed = tuple(catalogue.list_backups(folders, origin)), _of_failed_runs(history)
        in_use = frozenset(backup.id for backup in backups if lock.in_use(backup.folder))
        return cls(backups, tuple(runs), databases, tuple(images), of_failed, history, in_use)


@dataclass(frozen=True)
class PrunePlan:
    """What would be removed, and why the rest stays: ids of backups and names of databases, with the reason.

    `reasons` says for each removed backup why no rule keeps it, `warnings` lists dates in the future. `records`
    are the runs of which nothing is kept any more. `set_aside` are the databases that are old enough to go and whose
    rows may be nowhere else, with what they hold: they are removed only where a person decides that.
    """

    backups: tuple[Backup, ...]
    databases: tuple[tuple[str, int], ...]
    image_runs: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    kept_databases: tuple[tuple[str, str], ...] = ()
    records: tuple[str, ...] = ()
    set_aside: Mapping[str, str] = field(default_factory=dict)

    @property
    def left(self) -> tuple[str, ...]:
        """The databases that stay only because nobody decided."""
        going = {name for name, _ in self.databases}
        return tuple(name for name in self.set_aside if name not in going)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not (self.backups or self.databases or self.image_runs or self.records)

    @property
    def size(self) -> int:
        """The bytes of the backups and databases that would go. Images share layers: what they free is not known."""
        return sum(backup.size for backup in self.backups) + sum(size for _, size in self.databases)


def kept_by_retention(
    backups: Sequence[Backup], retention: Retention, of_failed: Collection[str] = ()
) -> dict[str, str]:
    """Return the ids of the backups that retention keeps, with the reason. `backups` are oldest first.

    Each folder keeps what the rules say, for another disk shall not lose its backups to newer ones on the server's
    own. Backups in `of_failed`, made by failed runs, count only if there is no other, unless they were test-restored.
    """
    kept: dict[str, str] = {}
    for folder in dict.fromkeys(backup.folder.parent for backup in backups):
        kept |= _kept_in_folder([backup for backup in backups if backup.folder.parent == folder], retention, of_failed)
    return kept


def _kept_in_folder(backups: Sequence[Backup], retention: Retention, of_failed: Collection[str]) -> dict[str, str]:
    # A faulty backup never counts, so that it does not displace a sound one.
    sound = [backup for backup in backups if not backup.fault]
    kept = {backup.id: "no good backup is newer" for backup in catalogue.Listing([*backups], []).newer_faulty}
    lesser = {backup.id for backup in sound if backup.id in of_failed and backup.proof.best != RESTORED}
    return kept | retained.kept_by_rule({backup.id: backup.created_at for backup in sound}, retention, lesser)


def _of_failed_runs(runs: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Return the ids of the backups that failed runs made."""
    made = (Path(run["facts"].get("backup") or "").name for run in runs if run["result"] != "done")
    return frozenset(filter(None, made))


def plan(
    stack: Stack, inventory: Inventory, retention: Retention, now: datetime, *, with_set_aside: bool = False
) -> PrunePlan:
    """Return the plan. Runs that can still be undone keep their backup, database and images; pinned backups stay.

    Databases whose rows may be nowhere else go only `with_set_aside`.
    """
    staying = kept_by_retention(inventory.backups, retention, inventory.of_failed)
    needed = kept.needed_runs(inventory.runs)
    # By name: the folder that a run wrote down may have been spelled in another way.
    of_runs = {Path(run["facts"].get("backup", "")).name for run in needed}

    for backup in inventory.backups:
        if backup.pinned:
            staying[backup.id] = "pinned"
        elif backup.id in of_runs:
            staying[backup.id] = "a rollback needs it"
        elif backup.id in inventory.in_use:
            staying[backup.id] = "it is being copied"

    live, age = stack.access.name, timedelta(days=retention.databases_days)
    old = kept.droppable(inventory.databases, live, needed, age, now)
    set_aside = {
        name: held for name, held in kept.set_aside(inventory.databases, live, inventory.history).items() if name in old
    }
    going = [name for name in old if with_set_aside or name not in set_aside]
    # Images stay as long as the data that they belong to.
    needed_runs = {
        kept.run_of(name, live) for name in kept.kept_databases(inventory.databases, live) if name not in going
    }
    needed_runs |= {str(run["id"]) for run in needed}
    dated = {backup.id: backup.created_at for backup in inventory.backups}
    removed = [backup for backup in inventory.backups if backup.id not in staying]
    return PrunePlan(
        tuple(removed),
        tuple((name, inventory.databases[name].size) for name in going),
        tuple(kept.droppable_images(inventory.images, stack.project.name, needed_runs, age, now)),
        tuple((backup.id, staying[backup.id]) for backup in inventory.backups if backup.id in staying),
        (*order.warnings("Backup", dated, now), *kept.dated_ahead(inventory.databases, live, now)),
        {backup.id: _reason(backup, inventory.of_failed) for backup in removed},
        tuple(_kept_databases(inventory.databases, live, going, needed, set_aside, retention.databases_days)),
        tuple(retained.old_runs(inventory.history, {str(run["id"]) for run in needed})),
        set_aside,
    )


def _reason(backup: Backup, of_failed: Collection[str]) -> str:
    if backup.fault:
        return "bad, and a good one is newer"
    return "made by a run that failed" if backup.id in of_failed else "no rule keeps it"


def _kept_databases(
    databases: Iterable[str],
    live: str,
    going: Collection[str],
    needed: Iterable[Mapping[str, Any]],
    set_aside: Collection[str],
    days: int,
) -> Iterator[tuple[str, str]]:
    of_runs = {str(run["facts"].get("kept", "")) for run in needed}
    for name in kept.kept_databases(databases, live):
        if name in of_runs:
            yield name, "a rollback needs it"
        elif name not in going:
            yield name, "its rows may be nowhere else" if name in set_aside else f"kept for {days} days"


def execute(world: World, stack: Stack, server: Server, chosen: PrunePlan) -> None:
    """Remove what the plan says, and the leftovers of killed backups."""
    for folder in {backup.folder.parent for backup in chosen.backups}:
        remove_abandoned(folder)
    for backup in chosen.backups:
        # Rename first: a half removed folder must not look like a backup.
        doomed = backup.folder.with_name(backup.folder.name + catalogue.PARTIAL)
        backup.folder.rename(doomed)
        shutil.rmtree(doomed)
    for name, _ in chosen.databases:
        server.drop(name)
    for run in chosen.image_runs:
        kept.untag_kept_images(world, run, stack.project.name)
    for run in chosen.records:
        retained.remove_run(stack.project.directory, run)
