"""Retention: which backups and kept databases may go. Nothing is removed that a rollback still needs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from compose_chap.backups import catalogue
from compose_chap.backups.catalogue import Backup
from compose_chap.engine.world import World
from compose_chap.model import Origin, Stack
from compose_chap.postgres.server import Server
from compose_chap.records import run_records
from compose_chap.transaction import change

_RUN_AT_END = re.compile(r"_(before|after)_(\d{8}t\d{6}z)(_failed)?$")


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
class PrunePlan:
    """What would go, and why each of the others stays."""

    backups: tuple[Backup, ...]
    databases: tuple[tuple[str, int], ...]
    image_runs: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not (self.backups or self.databases or self.image_runs)


def keep(backups: Sequence[Backup], retention: Retention) -> dict[str, str]:
    """Return the ids of the backups that retention keeps, with the reason. `backups` are oldest first."""
    # One with a fault never counts, so that it does not push a sound one out.
    sound = [one for one in backups if not one.fault]
    newest = sound[-1].id if sound else ""
    kept = {one.id: "nothing sound is newer" for one in backups if one.id > newest}
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


def plan(
    stack: Stack,
    origin: Origin,
    server: Server | None,
    folder: Path,
    retention: Retention,
    now: datetime,
    images: Sequence[str] = (),
) -> PrunePlan:
    """Return what may go of what has this origin. Without a `server` no kept database is looked at.

    What can still be undone keeps its backup, database and `images` (the tags of kept ones); a pinned backup always
    stays.
    """
    backups = catalogue.list_backups(folder, origin)
    kept = keep(backups, retention)
    needed = _undoable(run_records.standing_runs(stack.project.directory, origin))
    # By name: the folder that a run wrote down may have been spelled in another way.
    of_runs = {Path(run["facts"].get("backup", "")).name for run in needed}

    for one in backups:
        if one.pinned:
            kept[one.id] = "pinned"
        elif one.id in of_runs:
            kept[one.id] = "the last upgrade's"

    aside = {name: size for name, size in _sizes(server).items() if _is_kept(name, stack.access.name)}
    staying = {run["facts"].get("kept", "") for run in needed}
    databases = {
        name: size for name, size in aside.items() if name not in staying and _old(_run_of(name), retention, now)
    }
    runs = {tag.removeprefix(f"{stack.project.name}-")[:16] for tag in images}
    held = {run["id"] for run in needed} | {_run_of(name) for name in aside.keys() - databases.keys()}
    return PrunePlan(
        tuple(one for one in backups if one.id not in kept),
        tuple(databases.items()),
        tuple(sorted(run for run in runs - held if _old(run, retention, now))),
        tuple(kept.items()),
    )


def _undoable(standing: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs that can be undone one after the other: the last, and where restores came after it an upgrade."""
    since = next((at for at, run in enumerate(reversed(standing), 1) if run["operation"] != "restore"), 1)
    return list(standing[-since:])


def kept_since(database: str) -> datetime | None:
    """Return when a database was set aside, by its name; None for one that was not."""
    run = _run_of(database)
    return run_records.run_began(run) if run else None


def _sizes(server: Server | None) -> dict[str, int]:
    return {name: one.size for name, one in server.databases().items()} if server else {}


def _old(run: str, retention: Retention, now: datetime) -> bool:
    return now - run_records.run_began(run) >= timedelta(days=retention.databases_days)


def _run_of(kept: str) -> str:
    match = _RUN_AT_END.search(kept)
    return match[2].upper() if match else ""


def _is_kept(name: str, live: str) -> bool:
    # The very name that a run gave it: other applications may have databases with names of this kind.
    match = _RUN_AT_END.search(name)
    return match is not None and name.removesuffix("_failed") == change.kept_name(live, match[1], match[2])


def kept_databases(stack: Stack, server: Server) -> list[str]:
    """Return the databases that runs set aside, old and new."""
    return [name for name in server.databases() if _is_kept(name, stack.access.name)]


def execute(world: World, stack: Stack, server: Server | None, chosen: PrunePlan) -> None:
    """Remove what a plan chose, and what backups that were killed left behind."""
    for folder in {one.folder.parent for one in chosen.backups}:
        catalogue.remove_abandoned(folder)
    for one in chosen.backups:
        # Renamed first: a folder half removed must not look like a backup.
        doomed = one.folder.with_name(one.folder.name + catalogue.PARTIAL)
        one.folder.rename(doomed)
        shutil.rmtree(doomed)
    for name, _ in chosen.databases:
        if server:
            server.drop(name)
    for run in chosen.image_runs:
        change.let_images_go(world, run, stack.project.name)
