"""The previous data made again from their dump, and what becomes of the new data where there is no room for both."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from compose_chap.backups import backup, catalogue, dump_file, dump_only, proof
from compose_chap.backups.catalogue import Backup
from compose_chap.engine.world import World
from compose_chap.errors import DumpError, StateError
from compose_chap.postgres import pg_tools
from compose_chap.postgres.server import Server
from compose_chap.records.files import durable
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.stack.observe import refreshed
from compose_chap.transaction.data.written import written_to
from compose_chap.transaction.run.change import Change
from compose_chap.transaction.run.facts import RunFacts, facts_of
from compose_chap.transaction.run.kept import side_name

# Beside the restored rows their indexes are sorted, and the log of the server grows.
_ROOM = 1.3


def back_up(world: World, change: Change, facts: RunFacts, reason: str) -> Backup:
    """Make a backup of what is live now, in the folder of the run's first backup. Raise what `backup.take` raises."""
    assert facts.backups  # an upgrade makes its backup first
    stack = replace(refreshed(world.engine, change.project.name), project=change.project)
    return backup.take(world, backup.Scope(stack, facts.project_files, reason), facts.backups)


def _save_new_data(world: World, change: Change, journal: Journal) -> Path:
    """Make a backup of the new data, or where that cannot be, a dump alone; return its path. Raise ChapError."""
    facts = facts_of(journal)
    try:
        return back_up(world, change, facts, f"the new data of {journal.id}").folder
    except (StateError, DumpError) as error:
        # The rows are what counts: files of the project may be gone meanwhile, and its estimate of the room too high.
        world.notify(Step.GO_BACK.value, f"a dump alone: {error.message}")
    assert facts.backups  # an upgrade makes its backup first
    try:
        folder = durable.private_folder(facts.backups)
        target = folder / f"{journal.id}-new-data.dump"
        dump_only.into_file(world.engine, refreshed(world.engine, change.project.name), target, world.notify)
    except StateError as error:
        hint = f"Make room in {facts.backups}, or write elsewhere: docker chap recover -o FOLDER"
        raise StateError(f"The new data could not be saved: {error.message}", hint=hint) from error
    return target


def restore(world: World, server: Server, change: Change, journal: Journal, *, cut_off: bool) -> None:
    """Make the kept database again from the dump. Safe to run again after it was cut off anywhere.

    Raise ChapError when the dump does not give every row; the live database is then as it was, except where the
    disk has no room for both: there it had to go first, and the dump is all there is. With `cut_off`, users may have
    written to the live database unobserved.
    """
    dump = facts_of(journal).kept_dump
    if dump is None:
        raise StateError("The journal does not say in which backup the previous data are.")
    made, side = catalogue.load(dump), side_name(change.kept)
    proof.check_sums(world, made)
    if not _make_side(server, change, side, made):
        _give_way(world, server, change, journal, cut_off=cut_off)
    # Where the new one went in an earlier try, this one has its settings, and all of the rows or none.
    if not server.counts(side):
        tell = partial(world.notify, Step.GO_BACK.value, f"restoring {made.id}")
        tell(0, 0)
        pg_tools.fill(server, side, dump_file.pieces(made.dump, tell))
    proof.compare(server.counts(side), made.tables)
    server.rename((side, change.kept))


def _make_side(server: Server, change: Change, side: str, made: Backup) -> bool:
    """Make an empty database that is like the new one. Return whether there is room for both."""
    present = server.databases()
    now = next((name for name in (change.live, change.failed) if name in present), "")
    if not now:
        return True
    server.drop(side)
    server.create(side, replace(present[now], owner=change.owner))
    server.carry(now, side)
    return server.free_space() >= made.manifest.database.size * _ROOM


def _give_way(world: World, server: Server, change: Change, journal: Journal, *, cut_off: bool) -> None:
    """Drop the new data. What users wrote to them is backed up before."""
    if server.exists(change.live):
        if written_to(server, change.live, change, journal, cut_off=cut_off).anything:
            world.notify(Step.GO_BACK.value, "backing up the new data: there is no room for both")
            journal.learn(new_data=str(_save_new_data(world, change, journal)))
        server.rename((change.live, change.failed))
    server.drop(change.failed)
