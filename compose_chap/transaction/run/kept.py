"""What runs keep, how it is called, and what of it may go: decided here, for `status`, `prune` and the runs alike.

A run keeps the previous database, or sets aside what did not prove good, under a name that ends with the run's id;
and the previous images under a tag of our own, so that neither `docker image prune` nor a moved tag takes them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
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

    PostgreSQL cuts names at 63 bytes, so a long live one gives way; two that begin alike are still told apart.
    """
    tail = f"_{word}_{run.lower()}"
    most = LONGEST_NAME - len(tail) - len(_FAILED)
    if len(live.encode()) > most:
        mark = hashlib.sha256(live.encode()).hexdigest()[:8]
        live = f"{clipped(live, most - len(mark) - 1)}_{mark}"
    return live + tail


def failed_name(kept: str) -> str:
    """Return the name that data take which did not prove good, until they are dropped."""
    return kept + _FAILED


def side_name(kept: str) -> str:
    """Return the name under which the kept data are restored, where they were kept as a dump."""
    return f"{kept}_side"


def run_of(database: str, live: str) -> str:
    """Return the id of the run that gave a database its name; empty for one that no run of CHAP's `live` named.

    A name that a person made up, or that belongs to another application's database, is not of a run.
    """
    match = _of_a_run(database, live)
    return match[2].upper() if match else ""


def databases_of_runs(databases: Iterable[str], live: str) -> list[str]:
    """Return which databases runs named: those that are kept, and what a restore is about to bring in."""
    return [name for name in databases if _of_a_run(name, live)]


def kept_databases(databases: Iterable[str], live: str) -> list[str]:
    """Return which databases runs kept or set aside, old and new."""
    return [name for name in databases if (match := _of_a_run(name, live)) and match[1] != INCOMING]


def kept_since(database: str, live: str) -> datetime | None:
    """Return when the run began that gave a database its name; None where none did."""
    run = run_of(database, live)
    return run_records.run_began(run) if run else None


def dated_ahead(databases: Iterable[str], live: str, now: datetime) -> list[str]:
    """Return a warning for each kept database whose name says a time in the future: by age it never goes."""
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
    """Return the runs that can be undone one after the other: the last, and where restores came after it an upgrade."""
    runs = list(standing)
    since = next((at for at, run in enumerate(reversed(runs), 1) if run["operation"] != "restore"), 1)
    return runs[-since:]


def droppable(
    databases: Iterable[str], live: str, needed: Iterable[Mapping[str, Any]], age: timedelta, now: datetime
) -> list[str]:
    """Return the kept databases that may go: as old as `age`, and not what one of the `needed` runs goes back to."""
    staying = {str(run["facts"].get("kept", "")) for run in needed}
    return [
        name for name in kept_databases(databases, live) if name not in staying and is_old(run_of(name, live), age, now)
    ]


def droppable_images(
    tags: Collection[str], project: str, held: Collection[str], age: timedelta, now: datetime
) -> list[str]:
    """Return the runs whose kept images may go: as old as `age`, and none of the `held` runs."""
    runs = {tag.removeprefix(f"{project}-")[:16] for tag in tags}
    return sorted(run for run in runs - set(held) if is_old(run, age, now))


def is_old(run: str, age: timedelta, now: datetime) -> bool:
    """Whether a run began so long ago. One that is dated in the future began just now."""
    return max(now - run_records.run_began(run), timedelta(0)) >= age


# Images


def keep_image(world: World, image_id: str, project: str, run: str, service: str) -> None:
    """Give an image that a run replaces a name of ours."""
    world.engine.tag(image_id, KEPT_IMAGES, f"{project}-{run}-{service}")


def kept_images(world: World, project: str) -> list[str]:
    """Return the tags under which previous images of a project are kept."""
    ours = re.compile(re.escape(f"{KEPT_IMAGES}:{project}-") + r"(\d{8}T\d{6}Z-.+)")
    return sorted(name.partition(":")[2] for name in world.engine.tags(KEPT_IMAGES) if ours.fullmatch(name))


def untag_kept_images(world: World, run: str, project: str) -> None:
    """Take our own names from the images that a run kept."""
    for name in world.engine.tags(KEPT_IMAGES):
        if name.startswith(f"{KEPT_IMAGES}:{project}-{run}-"):
            world.engine.untag(name)
