"""Retention: which backups and kept databases may go. Nothing is removed that a rollback still needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from compose_chap.backups import catalogue
from compose_chap.backups.catalogue import Backup
from compose_chap.engine.world import World
from compose_chap.model import Origin, Stack
from compose_chap.postgres.server import Database, Server
from compose_chap.records import order, run_records
from compose_chap.transaction.run import kept


@dataclass(frozen=True)
class Retention:
    """How many backups stay: the last ones, and the newest of each day, week and month; never fewer than `floor`."""

    last: int = 3
    daily: int = 7
    weekly: int = 4
    monthly: int = 6
    floor: int = 1
    databases_days: int = 7


@dataclass(frozen=True)
class Inventory:
    """What there is of a stack: its backups, oldest first, the databases of its server, the tags of kept images.

    `runs` are the records of those that stand, oldest first.
    """

    backups: tuple[Backup, ...]
    runs: tuple[Mapping[str, Any], ...]
    databases: Mapping[str, Database]
    images: tuple[str, ...]

    @classmethod
    def of(
        cls,
        stack: Stack,
        origin: Origin,
        folder: Path,
        databases: Mapping[str, Database],
        images: Iterable[str] = (),
    ) -> Inventory:
        """Return it for the stack that has this origin, and its backups in this folder. Raise StateError."""
        runs = run_records.effective_runs(stack.project.directory, origin)
        return cls(tuple(catalogue.list_backups(folder, origin)), tuple(runs), databases, tuple(images))


@dataclass(frozen=True)
class PrunePlan:
    """What would go, why each of the others stays, and what of them is dated in the future."""

    backups: tuple[Backup, ...]
    databases: tuple[tuple[str, int], ...]
    image_runs: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not (self.backups or self.databases or self.image_runs)


def keep(backups: Sequence[Backup], retention: Retention) -> dict[str, str]:
    """Return the ids of the backups that retention keeps, with the reason. `backups` are oldest first."""
    # One with a fault never counts, so that it does not push a sound one out.
    sound = [backup for backup in backups if not backup.fault]
    newer = backups[backups.index(sound[-1]) + 1 :] if sound else backups
    kept = {backup.id: "nothing sound is newer" for backup in newer}
    newest_first = list(reversed(sound))

    for one in newest_first[: max(retention.last, retention.floor)]:
        kept[one.id] = "one of the last"
    for count, pattern, word in (
        (retention.daily, "%Y-%m-%d", "day"),
        (retention.weekly, "%G-%V", "week"),
        (retention.monthly, "%Y-%m", "month"),
    ):
        periods: dict[str, str] = {}
        for one in newest_first:
            periods.setdefault(one.created_at.strftime(pattern), one.id)
        for identity in list(periods.values())[:count]:
            kept.setdefault(identity, f"newest of its {word}")
    return kept


def plan(stack: Stack, inventory: Inventory, retention: Retention, now: datetime) -> PrunePlan:
    """Return what may go. What can still be undone keeps its backup, database and images; a pinned backup stays."""
    staying = keep(inventory.backups, retention)
    needed = kept.needed_runs(inventory.runs)
    # By name: the folder that a run wrote down may have been spelled in another way.
    of_runs = {Path(run["facts"].get("backup", "")).name for run in needed}

    for backup in inventory.backups:
        if backup.pinned:
            staying[backup.id] = "pinned"
        elif backup.id in of_runs:
            staying[backup.id] = "the last upgrade's"

    live, age = stack.access.name, timedelta(days=retention.databases_days)
    going = kept.droppable(inventory.databases, live, needed, age, now)
    # Images stay as long as data that they belong to.
    held = {kept.run_of(name, live) for name in kept.kept_databases(inventory.databases, live) if name not in going}
    held |= {str(run["id"]) for run in needed}
    dated = {backup.id: backup.created_at for backup in inventory.backups}
    return PrunePlan(
        tuple(backup for backup in inventory.backups if backup.id not in staying),
        tuple((name, inventory.databases[name].size) for name in going),
        tuple(kept.droppable_images(inventory.images, stack.project.name, held, age, now)),
        tuple(staying.items()),
        (*order.warnings("Backup", dated, now), *kept.dated_ahead(inventory.databases, live, now)),
    )


def execute(world: World, stack: Stack, server: Server, chosen: PrunePlan) -> None:
    """Remove what a plan chose, and what backups that were killed left behind."""
    for folder in {backup.folder.parent for backup in chosen.backups}:
        catalogue.remove_abandoned(folder)
    for backup in chosen.backups:
        # Renamed first: a folder half removed must not look like a backup.
        doomed = backup.folder.with_name(backup.folder.name + catalogue.PARTIAL)
        backup.folder.rename(doomed)
        shutil.rmtree(doomed)
    for name, _ in chosen.databases:
        server.drop(name)
    for run in chosen.image_runs:
        kept.untag_kept_images(world, run, stack.project.name)
