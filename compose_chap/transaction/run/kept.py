"""What runs keep, its names, and what may be dropped: decided here for `status`, `prune` and the runs alike.

A run keeps the previous database, or sets aside data that failed verification, under a name that ends with the run's
id; and the previous images under our own tags, so that neither `docker image prune` nor a moved tag removes them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from compose_chap.engine.world import World
from compose_chap.model import LONGEST_NAME
from compose_chap.records import order, run_records
from compose_chap.units import clipped

KEPT_IMAGES = "docker-chap/kept"

# What a rollback goes back to, what it came from, and what a restore is about to bring in.
BEFORE, AFTER, INCOMING = "before", "after", "incoming"

_FAILED = "_failed"
_OF_A_RUN = re.compile(rf"_({BEFORE}|{AFTER}|{INCOMING})_(\d{{8}}t\d{{6}}z)({_FAILED})?\Z")


# Databases


def kept_name(live: str, word: str, run: str) -> str:
    """Return the name of a database that a run keeps or brings in; `word` is BEFORE, AFTER or INCOMING.

    PostgreSQL truncates names at 63 bytes, so a long live name is shortened, with a digest to keep it unique.
    """
    tail = f"_{word}_{run.lower()}"
    most = LONGEST_NAME - len(tail) - len(_FAILED)
    if len(live.encode()) > most:
        mark = hashlib.sha256(live.encode()).hexdigest()[:8]
        live = f"{clipped(live, most - len(mark) - 1)}_{mark}"
    return live + tail


def failed_name(kept: str) -> str:
    """Return the name for data that failed verification, until they are dropped."""
    return kept + _FAILED


def side_name(kept: str) -> str:
    """Return the name under which kept data are restored from a dump."""
    return f"{kept}_side"


def run_of(database: str, live: str) -> str:
    """Return the id of the run that named a database; empty when no run on CHAP's database `live` did.

    Names made up by a person, or of another application's database, do not count.
    """
    match = _of_a_run(database, live)
    return match[2].upper() if match else ""


def databases_of_runs(databases: Iterable[str], live: str) -> list[str]:
    """Return the databases that runs named: kept ones, and those that a restore is about to bring in."""
    return [name for name in databases if _of_a_run(name, live)]


def kept_databases(databases: Iterable[str], live: str) -> list[str]:
    """Return the databases that runs kept or set aside, of old and new versions."""
    return [name for name in databases if (match := _of_a_run(name, live)) and match[1] != INCOMING]


def kept_since(database: str, live: str) -> datetime | None:
    """Return when the run that named a database began; None if no run did."""
    run = run_of(database, live)
    return run_records.run_began(run) if run else None


def set_aside(databases: Iterable[str], live: str, runs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the kept databases whose rows may be nowhere else, each with what it holds, for people.

    These are all but the previous data of an upgrade, which stand in its backup, and which the live data were made
    of. `runs` are the records of the stack's runs: a database of a run that is not known is taken for such a one.
    """
    known = {str(run["id"]): run for run in runs}
    held = {name: _held(name, live, known.get(run_of(name, live))) for name in kept_databases(databases, live)}
    return {name: what for name, what in held.items() if what}


def _held(database: str, live: str, run: Mapping[str, Any] | None) -> str:
    """Return what a kept database holds that may be nowhere else, empty for nothing."""
    match = _of_a_run(database, live)
    if match and match[3]:
        return "what was written before a run failed"
    if match and match[1] == AFTER:
        return "the newer data, from before a rollback"
    if run and run["operation"] == "upgrade" and run["result"] == "done":
        return ""
    return f"the data from before the {run['operation']}" if run else "the data from before a run"


def dated_ahead(databases: Iterable[str], live: str, now: datetime) -> list[str]:
    """Return a warning for each kept database whose name has a time in the future: it never gets old."""
    dated = {name: run_records.run_began(run_of(name, live)) for name in databases_of_runs(databases, live)}
    hint = " When you no longer need it: docker chap prune --keep-databases 0"
    return [text + hint for text in order.warnings("Database", dated, now)]


def _of_a_run(database: str, live: str) -> re.Match[str] | None:
    match = _OF_A_RUN.search(database)
    if match and database.removesuffix(match[3] or "") == kept_name(live, match[1], match[2]):
        with suppress(ValueError):  # digits that are no time
            run_records.run_began(match[2].upper())
            return match
    return None


# What may go


def needed_runs(standing: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the runs that can be undone one after the other: the last run, and an upgrade with restores after it."""
    runs = list(standing)
    since = next((at for at, run in enumerate(reversed(runs), 1) if run["operation"] != "restore"), 1)
    return runs[-since:]


def droppable(
    databases: Iterable[str], live: str, needed: Iterable[Mapping[str, Any]], age: timedelta, now: datetime
) -> list[str]:
    """Return the kept databases that may be dropped: as old as `age`, and not needed to undo a `needed` run."""
    staying = {str(run["facts"].get("kept", "")) for run in needed}
    return [
        name for name in kept_databases(databases, live) if name not in staying and is_old(run_of(name, live), age, now)
    ]


def undecided(
    databases: Collection[str], live: str, runs: Sequence[dict[str, Any]], age: timedelta, now: datetime
) -> dict[str, str]:
    """Return the databases that are old enough to go, and whose rows may be nowhere else: a person has to decide.

    `runs` are the records of all runs of the stack, oldest first. Each comes with what it holds, for people.
    """
    old = droppable(databases, live, needed_runs(order.effective(runs)), age, now)
    return {name: held for name, held in set_aside(databases, live, runs).items() if name in old}


def droppable_images(
    tags: Collection[str], project: str, needed: Collection[str], age: timedelta, now: datetime
) -> list[str]:
    """Return the runs whose kept images may be removed: as old as `age`, and not among the `needed` runs."""
    runs = {tag.removeprefix(f"{project}-")[:16] for tag in tags}
    return sorted(run for run in runs - set(needed) if is_old(run, age, now))


def is_old(run: str, age: timedelta, now: datetime) -> bool:
    """Whether a run is at least `age` old. A run dated in the future counts as new."""
    return max(now - run_records.run_began(run), timedelta(0)) >= age


# Images


def protect_image(world: World, image_id: str, project: str, run: str, service: str) -> None:
    """Tag an image that a run replaces, so that it is not pruned."""
    world.engine.tag(image_id, KEPT_IMAGES, f"{project}-{run}-{service}")


def kept_images(world: World, project: str) -> list[str]:
    """Return the tags under which previous images of a project are kept."""
    ours = re.compile(re.escape(f"{KEPT_IMAGES}:{project}-") + r"(\d{8}T\d{6}Z-.+)")
    return sorted(name.partition(":")[2] for name in world.engine.tags(KEPT_IMAGES) if ours.fullmatch(name))


def untag_kept_images(world: World, run: str, project: str) -> None:
    """Remove our own tags from the images that a run kept."""
    for name in world.engine.tags(KEPT_IMAGES):
        if name.startswith(f"{KEPT_IMAGES}:{project}-{run}-"):
            world.engine.untag(name)
