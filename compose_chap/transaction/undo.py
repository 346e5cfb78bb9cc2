"""The one way back: after an error, a Ctrl-C, a kill and a power cut alike.

It reads only the journal and the world, so it can be cut off anywhere and run again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from compose_chap.check import Check
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, DatabaseError, StateError
from compose_chap.postgres.server import Server
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.stack import drift
from compose_chap.transaction import data_plan, hooks, kept, safety_copy, verify
from compose_chap.transaction.change import (
    CONFIG_FILES,
    Change,
    begin,
    containers_of,
    move_data,
    recreate,
    start_service,
    start_what_ran,
    stop_writers,
    wait_for_server,
)
from compose_chap.transaction.facts import Answered, data_back, facts_of, kind_of
from compose_chap.transaction.sources import sources_of

# A Compose file of our own, beside what is kept of the run.
_ON_TOP = "images-of-before.yml"


def undo(world: World, change: Change, journal: Journal, *, cut_off: bool = False) -> list[Check]:
    """Bring files, data, images and containers back to what they were, verify that, and return the checks.

    With `cut_off` the run did not get here by itself: what it had started may have served for days. Safe to run
    again after it was cut off anywhere. Raise ChapError when the old state cannot be reached or proven.
    """
    # The patience that an operator has with the new version is not what the old one is measured by.
    world = replace(world, patience=max(world.patience, World.patience))
    journal.release_reserve()
    with suppress(StateError):
        # A full disk must not stand in the way: all that this needs is in the journal already.
        begin(world, journal, Step.GO_BACK)
    server = wait_for_server(world, change)
    stop_writers(world, change, hooks.of(world, change.project), forgiving=True)
    server.end_own_sessions()
    server.allow_connections(*change.databases)

    sources = sources_of(change)
    reverted = sources.revert(world, journal)
    _data_back(world, server, change, journal)
    if facts_of(journal).kept_dump:
        journal.learn(data_came_back=True)
    facts = facts_of(journal)
    aside = _set_aside(server, change, facts.new_tables or change.tables or facts.old_tables)
    changed = _changed(server, change, facts.answered)
    # What it did in its time nobody looked at.
    served = cut_off or journal.began(Step.START_WORKER)
    start_what_ran(world, change)
    amiss = reverted.left if sources.name_others(world, reverted.left) else ()
    try:
        _containers_back(world, change, journal, files_amiss=bool(amiss))
        checks = verify.raise_if_failed(look(world, change, server, facts_of(journal).old_tables))
    except ChapError as error:
        if amiss:
            raise _for_a_person(change, amiss, f"The old data are back; CHAP is not: {error.message}") from error
        raise
    checks += _settings_back(change, facts.settings, settings_of(world, change))
    if aside or changed or served:
        if server.exists(change.failed):
            said = f"What was written meanwhile is kept in the database {change.failed}, until docker chap prune."
            checks.append(Check("written_meanwhile", "warn", said, details={"tables": aside, "changed": changed}))
    elif name := data_plan.disposable(kind_of(change, journal), change.names):
        try:
            server.drop(name)
        except DatabaseError as error:
            said = f"The database {name} holds nothing new and could not be removed: {error.message}"
            checks.append(Check("failed_data", "warn", said, "When nothing holds it any more: docker chap prune"))
    if amiss:
        raise _for_a_person(change, amiss, "CHAP runs again as before, on the old data and with the old images.")
    if reverted.set_aside:
        said = f"Changed by someone else meanwhile, and kept in the run's records: {', '.join(reverted.set_aside)}."
        checks.append(Check("checkout", "warn", said))
    if reverted.left:
        said = f"Changed by someone else meanwhile, and left so: {', '.join(map(str, reverted.left))}."
        checks.append(Check("files", "warn", said))
    kept.untag_kept_images(world, journal.id, change.project.name)
    return checks


def _for_a_person(change: Change, files: Sequence[Path], now: str) -> StateError:
    images = "\n".join(f"  {name}: {change.images[name]['reference']}" for name in change.writers)
    named = ", ".join(map(str, files))
    return StateError(
        f"{named} was changed by someone else meanwhile, and was left as it is. {now}",
        hint=f"Let {named} name these images again:\n{images}",
    )


def _data_back(world: World, server: Server, change: Change, journal: Journal) -> None:
    plan = data_back(change, journal, server.databases())
    if plan.from_dump:
        safety_copy.bring_back(world, change, server, journal)
        plan = data_back(change, journal, server.databases())
    move_data(server, plan)


def _containers_back(world: World, change: Change, journal: Journal, *, files_amiss: bool) -> None:
    """Start the containers of before, or make them anew from the files.

    Where somebody's changes of the files name other images, a file of our own on top of them names those of before.
    """
    given = change
    if files_amiss:
        services = {name: {"image": change.images[name]["reference"]} for name in change.writers}
        on_top = journal.evidence(_ON_TOP, json.dumps({"services": services}, indent=1))
        given = replace(change, project=replace(change.project, files=(*change.project.files, on_top)))
    hooked = hooks.of(world, given.project)
    for name in change.writers:
        there = containers_of(world, change.project, name)
        if {one.id for one in there} == set(change.containers[name]):
            start_service(world, change, name, hooked, forgiving=True)
        else:
            # Compose would leave a container alone that has the right image, and with it the mention of our file.
            stale = not files_amiss and any(_ON_TOP in one.labels.get(CONFIG_FILES, "") for one in there)
            recreate(world, given, [name], change.images, anew=stale)


def settings_of(world: World, change: Change) -> dict[str, dict[str, Any]]:
    """Return what each writer's container was made with, secrets left out."""
    return {
        name: drift.configuration(world.engine.creation(value.id)[0])
        for name in change.writers
        for value in containers_of(world, change.project, name)[:1]
    }


def _settings_back(
    change: Change, before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> list[Check]:
    """Tell of a container that was made anew in another shell: a variable that is not set here changes its ports."""
    found = {name: drift.changes(before.get(name, {}), now.get(name, {})) for name in change.writers}
    if not any(found.values()):
        return []
    said = ". ".join(f"{name}: {', '.join(told)}" for name, told in found.items() if told)
    hint = "Set what was set in the shell that started CHAP, then run: docker compose up -d --no-deps "
    names = " ".join(name for name, told in found.items() if told)
    return [Check("settings", "warn", f"Not every setting is as before. {said}.", hint + names)]


def look(world: World, change: Change, server: Server, tables: Mapping[str, int]) -> list[Check]:
    """Return how the old state stands: everything that can be asked where CHAP was well before, else the rows alone.

    Raise ChapError when CHAP does not start.
    """
    baseline = change.baseline
    stack = verify.refreshed(world, change.project.name)
    if baseline.ready:
        verify.wait_for_api(world, stack, workers=True)
        checks = verify.as_before(verify.check_api(world, stack, baseline.version, tables), baseline.schema)
        checks += verify.forgiving(verify.check_whole(world, stack, baseline.version, baseline, {}))
    elif tables:
        # It was not well before either: only what it had can be asked of it.
        checks = [verify.compare_rows(tables, server.counts(change.live))]
    else:
        checks = []
    return checks


def _set_aside(server: Server, change: Change, old: Mapping[str, int]) -> dict[str, int]:
    """Return how many rows, by table, the data that failed have more than the old ones when these were counted.

    To be asked before anything is started: what is written to the old data from then on would hide the difference.
    """
    there = server.databases()
    if change.failed not in there or change.live not in there:
        return {}
    old = old or server.counts(change.live)
    since = rows_since(old, server.counts(change.failed))
    # What is in a table that only the new version has was made of the old rows.
    return {table: rows for table, rows in since.items() if rows > 0 and table in old}


def _changed(server: Server, change: Change, answered: Answered | None) -> dict[str, int]:
    """Return how many rows of each table of the data that failed are not as they were when its API first answered.

    A row that was changed counts as a new one does. What CHAP itself writes at its start does not.
    """
    if not answered or not server.exists(change.failed):
        return {}
    newer = server.newer_rows(change.failed, answered.since)
    gone = {name: rows - newer[name][0] for name, rows in answered.tables.items() if name in newer}
    return {
        name: since or gone.get(name, 0)
        for name, (_, since) in newer.items()
        if name not in verify.NOBODYS and (since or gone.get(name, 0) > 0)
    }


def rows_since(old: Mapping[str, int], new: Mapping[str, int]) -> dict[str, int]:
    """Return how many rows more each table has now, fewer as a negative number; those that CHAP adds do not count."""
    more = {table: new.get(table, 0) - old.get(table, 0) for table in sorted({*old, *new})}
    return {table: rows for table, rows in more.items() if rows < 0 or (rows and table not in verify.NOBODYS)}
