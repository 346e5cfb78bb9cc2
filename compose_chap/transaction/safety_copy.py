"""Keep the old data through a change: as a copy inside the server, or, where that cannot be, as a second proven dump.

The copy comes back by renaming it. A dump takes its time, but it needs no room in the server and no moment in
which nobody else is connected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from compose_chap.backups import backup, catalogue, proof
from compose_chap.backups.catalogue import Backup
from compose_chap.engine.world import World
from compose_chap.errors import DatabaseError, StuckSessions
from compose_chap.postgres import pg_tools
from compose_chap.postgres.server import Server
from compose_chap.records.run_records import Journal
from compose_chap.stack.databases import refuse_irreversible
from compose_chap.transaction import verify
from compose_chap.transaction.change import Change
from compose_chap.transaction.facts import facts_of
from compose_chap.transaction.kept import side_name

# Beside the restored rows their indexes are sorted, and the log of the server grows.
_ROOM = 1.3


def keep(world: World, change: Change, server: Server, journal: Journal) -> None:
    """Keep the live data, to which nobody of CHAP writes any more. Raise ChapError when neither way is open."""
    # Where it cannot be renamed the way back is closed. Here there is still nothing to go back from.
    refuse_irreversible(server, change.live)
    if not change.by_dump:
        try:
            server.copy(change.live, change.kept, change.owner)
            return
        except StuckSessions:
            raise
        except DatabaseError as error:
            # A disk that filled up since it was looked at.
            server.drop(change.kept)
            world.notify("keep", f"no copy: {error.message}")
    else:
        server.empty(change.live)
    made = _dump(world, change, server, journal)
    journal.learn(kept_dump=str(made.folder), backup=str(made.folder), old_tables=made.tables)


def _dump(world: World, change: Change, server: Server, journal: Journal) -> Backup:
    """Return a backup of exactly what is live now: the one made before, if nothing was written since."""
    facts = facts_of(journal)
    assert facts.backup and facts.backups  # an upgrade makes its backup first
    first = catalogue.load(facts.backup)
    if change.mark and server.mark() == change.mark and not first.fault:
        return first
    stack = replace(verify.refreshed(world, change.project.name), project=change.project)
    made = backup.take(
        world,
        stack,
        facts.sources,
        facts.backups,
        f"the last rows before {journal.id}",
    )
    # CHAP is stopped and cannot say what it is; it is what it was a moment ago.
    return catalogue.amend(made, chap=first.manifest.chap)


def bring_back(world: World, change: Change, server: Server, journal: Journal) -> None:
    """Make the kept database anew from the dump that was kept. Safe to run again after it was cut off anywhere.

    Raise ChapError when the dump does not give every row; the live database is then as it was, except where the
    disk has no room for both: there it had to go first, and the dump is all there is.
    """
    dump = facts_of(journal).kept_dump
    assert dump  # the plan of the way back says so
    made = catalogue.load(dump)
    proof.check_sums(world, made)
    side, there = side_name(change.kept), server.databases()
    now = change.live if change.live in there else change.failed
    if now in there:
        server.drop(side)
        server.create(side, replace(there[now], owner=change.owner))
        server.carry(now, side)
        if server.free_space() < made.manifest.database.size * _ROOM:
            if now == change.live:
                server.rename((change.live, change.failed))
            server.drop(change.failed)
    # Where the migrated one went in an earlier try, this one has its settings, and all of the rows or none.
    if not server.counts(side):
        world.notify("go back", f"restoring {made.id}")
        pg_tools.fill(server, side, _pieces(world, made))
    proof.compare(server.counts(side), made.tables)
    server.rename((side, change.kept))


def _pieces(world: World, made: Backup) -> Iterator[bytes]:
    size, done = made.dump.stat().st_size, 0
    with open(made.dump, "rb") as file:
        while data := file.read(1 << 18):
            yield data
            done += len(data)
            world.notify("go back", f"restoring {made.id}", done, size)
