"""The only way back: after an error, a Ctrl-C, a kill or a power cut.

It relies only on the journal and the present state, so it can be interrupted anywhere and run again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from compose_chap import compose_labels
from compose_chap.check import Check
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, DatabaseError, StateError
from compose_chap.postgres.server import Server
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.stack import drift
from compose_chap.stack.observe import refreshed
from compose_chap.transaction import hooks, verify, wait
from compose_chap.transaction.containers import (
    containers_of,
    has_own,
    may_be_changed,
    recreate,
    start_service,
    start_what_ran,
    stop_services,
    wait_for_server,
)
from compose_chap.transaction.data.previous_data import previous_data_of
from compose_chap.transaction.data.written import Written, written_to
from compose_chap.transaction.file_changes import Reverted, file_changes_of
from compose_chap.transaction.run import kept
from compose_chap.transaction.run.change import Change, begin
from compose_chap.transaction.run.facts import RunFacts, facts_of

# A Compose file of our own, beside what is kept of the run.
_ON_TOP = "images-of-before.yml"


def undo(world: World, change: Change, journal: Journal, *, cut_off: bool = False) -> list[Check]:
    """Restore the previous files, data, images and containers, verify that, and return the checks.

    With `cut_off`, the run was interrupted, and what it had started may have served for days. Safe to run again after
    an interruption. Raise ChapError when the old state cannot be reached or proven.
    """
    # The operator's patience (--wait) is for the new version, not for the old one.
    world = replace(world, patience=max(world.patience, World.patience))
    journal.release_reserve()
    if not journal.began(Step.STOP) and _still_serves(world, change, journal):
        return _back_while_serving(world, change, journal)
    with suppress(StateError):
        # A full disk must not block this: everything it needs is in the journal already.
        begin(world, journal, Step.GO_BACK)
    server = wait_for_server(world, change)
    world.notify("stop again", ", ".join(change.writers))
    stop_services(world, change, change.writers, hooks.of(world, change.project), forgiving=True)
    server.end_own_sessions()
    server.allow_connections(*change.databases)

    world.notify("files back")
    file_changes = file_changes_of(change)
    reverted = file_changes.revert(world, journal)
    world.notify("data back", change.live)
    previous = previous_data_of(change, facts_of(journal))
    changed = may_be_changed(world, change, journal.steps)
    # Containers that others made may have served, and nobody saw since when.
    cut_off = cut_off or (changed and not journal.began(Step.START_API))
    drops = previous.come_back(world, server, journal, changed=changed, cut_off=cut_off)
    facts = facts_of(journal)
    written = written_to(server, change.failed, change, journal, cut_off=cut_off)

    start_what_ran(world, change)
    left = reverted.left if file_changes.name_others(world, reverted.left) else ()
    world.notify("containers back", ", ".join(change.writers))
    checks = _chap_back(world, change, journal, server, left)
    checks += _configuration_checks(change, facts.configurations, configurations_of(world, change))
    checks += _failed_data(server, change, written, facts.new_data)
    # Not before the old state is verified: until then, this may be the only copy of the old data.
    checks += _drop(server, drops if written.anything else (*drops, previous.disposable))
    if changed and not journal.began(Step.START_API):
        checks += _started_by_others(server, change, facts)
    if left:
        raise _for_a_person(change, left, "CHAP runs again as before, on the old data and with the old images.")
    checks += _left_to_others(reverted)
    kept.untag_kept_images(world, journal.id, change.project.name)
    return checks


def _chap_back(
    world: World, change: Change, journal: Journal, server: Server, files_left: Sequence[Path]
) -> list[Check]:
    """Start CHAP as it was, and return the checks. Raise ChapError when it does not start or a check fails."""
    try:
        _containers_back(world, change, journal, files_left=bool(files_left))
        world.notify("verify back")
        return verify.raise_if_failed(look(world, change, server, facts_of(journal).old_tables))
    except ChapError as error:
        if files_left:
            now = f"The old data are back, but CHAP is not ready: {error.message}"
            raise _for_a_person(change, files_left, now) from error
        raise


def _still_serves(world: World, change: Change, journal: Journal) -> bool:
    """Whether the run, which stopped nothing, and all others left CHAP's containers to serve as they did."""
    # Before a checkout moves, whoever creates containers creates them as they were.
    return not journal.began(Step.CHECKOUT) or all(has_own(world, change, name) for name in change.writers)


def _back_while_serving(world: World, change: Change, journal: Journal) -> list[Check]:
    """Put back what was changed beside a CHAP that serves, and look at it, without stopping anything."""
    file_changes_of(change).revert(world, journal)
    # Pull, build, backup and a side database leave the running stack alone. Only a restart of the engine stops it.
    server = wait_for_server(world, change)
    server.end_own_sessions()
    plan = previous_data_of(change, facts_of(journal)).way_back(server.databases(), journal.steps, changed=False)
    if change.baseline.version:
        hooked = hooks.of(world, change.project)
        for name in change.writers:
            start_service(world, change, name, hooked, forgiving=True)
    try:
        checks = look(world, change, server, {})
    except ChapError as error:
        # The run had no part in this: it is named, and does not stand in the way.
        checks = [Check("ready", "error", error.message, error.hint)]
    kept.untag_kept_images(world, journal.id, change.project.name)
    return [*checks, *_drop(server, plan.drops)]


def _failed_data(server: Server, change: Change, written: Written, saved_in: Path | None) -> list[Check]:
    """Report where the new data are kept, or `saved_in` which backup: nothing that a user wrote is lost."""
    if saved_in:
        message = f"There was no room for the new data. They are in the backup {saved_in}, with what users wrote."
        return [Check("written_meanwhile", "warn", message, details={"backup": str(saved_in)})]
    if not written.anything or not server.exists(change.failed):
        return []
    message = (
        f"What was written in the meantime is kept in database {change.failed}. After a week `docker chap prune`"
        " offers to remove it; the nightly work leaves it."
    )
    details = {"tables": written.added, "changed": written.changed}
    return [Check("written_meanwhile", "warn", message, details=details)]


def _drop(server: Server, names: Sequence[str]) -> list[Check]:
    """Drop databases that hold nothing new; return a warning for each that could not be removed."""
    checks = []
    for name in filter(None, names):
        try:
            server.drop(name)
        except DatabaseError as error:
            message = f"The database {name} holds nothing new and could not be removed: {error.message}"
            checks.append(Check("failed_data", "warn", message, "When nothing holds it any more: docker chap prune"))
    return checks


def _started_by_others(server: Server, change: Change, facts: RunFacts) -> list[Check]:
    """Return a warning where others created containers of CHAP before the data were kept, so that none came back."""
    if change.incoming or facts.kept_dump or server.exists(change.failed):
        return []
    message = (
        "Someone else created CHAP's containers during the run, before the data were kept. If they ran the new version,"
        f" it has changed the database {change.live}."
    )
    backup = facts.backup.name if facts.backup else "latest"
    return [
        Check("data", "warn", message, f"Look at the data. Those from before the run: docker chap restore {backup}")
    ]


def _left_to_others(reverted: Reverted) -> list[Check]:
    checks = []
    if reverted.set_aside:
        message = (
            f"Changed by someone else in the meantime, and kept in the run's records: {', '.join(reverted.set_aside)}."
        )
        checks.append(Check("checkout", "warn", message))
    if reverted.left:
        message = f"Changed by someone else in the meantime, and left as it is: {', '.join(map(str, reverted.left))}."
        checks.append(Check("files", "warn", message))
    return checks


def _for_a_person(change: Change, files: Sequence[Path], now: str) -> StateError:
    images = "\n".join(f"  {name}: {change.images[name]['reference']}" for name in change.writers)
    named = ", ".join(map(str, files))
    return StateError(
        f"{named} was changed by someone else in the meantime, and was left as it is. {now}",
        hint=f"Let {named} name these images again:\n{images}",
    )


def _containers_back(world: World, change: Change, journal: Journal, *, files_left: bool) -> None:
    """Start the previous containers, or recreate them from the files.

    If somebody changed the files to other images, our own file on top of them names the previous images.
    """
    start_change = change
    if files_left:
        services = {name: {"image": change.images[name]["reference"]} for name in change.writers}
        on_top = journal.evidence(_ON_TOP, json.dumps({"services": services}, indent=1))
        start_change = replace(change, project=replace(change.project, files=(*change.project.files, on_top)))
    hooked = hooks.of(world, start_change.project)
    for name in change.writers:
        containers = containers_of(world, change.project, name)
        if has_own(world, change, name):
            start_service(world, change, name, hooked, forgiving=True)
        else:
            # Compose would leave a container alone that has the right image, and with it the mention of our file.
            stale = not files_left and any(
                _ON_TOP in container.labels.get(compose_labels.CONFIG_FILES, "") for container in containers
            )
            recreate(world, start_change, [name], change.images, force=stale)


def configurations_of(world: World, change: Change) -> dict[str, dict[str, Any]]:
    """Return the configuration of each writer's container, without secrets."""
    return {
        name: drift.configuration(world.engine.creation(value.id)[0])
        for name in change.writers
        for value in containers_of(world, change.project, name)[:1]
    }


def _configuration_checks(
    change: Change, before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> list[Check]:
    """Return a warning for recreated containers that differ, for example because a shell variable is not set here."""
    differences = {name: drift.changes(before.get(name, {}), now.get(name, {})) for name in change.writers}
    if not any(differences.values()):
        return []
    message = ". ".join(f"{name}: {', '.join(names_)}" for name, names_ in differences.items() if names_)
    again = change.project.by_hand("up", "-d", "--no-deps", *(name for name, names_ in differences.items() if names_))
    hint = f"Set the variables that were set in the shell that started CHAP, then run: {again}"
    return [Check("settings", "warn", f"Not every setting is as before. {message}.", hint)]


def look(world: World, change: Change, server: Server, tables: Mapping[str, int]) -> list[Check]:
    """Verify the old state: everything if CHAP was healthy before, else only the rows.

    Raise ChapError when CHAP does not start.
    """
    baseline = change.baseline
    stack = refreshed(world.engine, change.project.name)
    if baseline.ready:
        wait.wait_for_api(world, stack, workers=True)
        checks = verify.as_before(verify.check_api(world, stack, baseline.version, tables), baseline.schema)
        checks += verify.forgiving(verify.check_everything(world, stack, baseline.version, baseline, {}))
    elif tables:
        # It was not healthy before either: only its data can be checked.
        checks = [verify.compare_rows(tables, server.counts(change.live)).named("rows")]
    else:
        checks = []
    return checks
