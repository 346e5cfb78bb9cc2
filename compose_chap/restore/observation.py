"""What a restore meets, asked before anything is changed, and what an operator should know before confirming."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from compose_chap.engine.world import World
from compose_chap.errors import DatabaseError
from compose_chap.image import release_key
from compose_chap.model import Stack
from compose_chap.postgres.server import Server, Session
from compose_chap.restore import source, version_guard
from compose_chap.restore.source import Source
from compose_chap.stack.chap import Chap, Overview
from compose_chap.stack.databases import refuse_irreversible, server_of
from compose_chap.stack.jobs import lost_jobs
from compose_chap.transaction.run.baseline import Baseline, baseline_of, other_sessions


@dataclass(frozen=True)
class Observed:
    """The state before a restore: of CHAP, of its jobs and the live database for people, and its other sessions.

    `rows` are those of the live database by table, None where there is none or it is damaged. Whether CHAP is ready is
    not in `baseline` yet.
    """

    baseline: Baseline
    jobs: str
    database: tuple[str, ...]
    sessions: tuple[Session, ...]
    rows: Mapping[str, int] | None


def observe(world: World, stack: Stack, wanted: Source) -> Observed:
    """Return what a restore of `wanted` meets, changing nothing. Raise DumpError or DatabaseError: impossible."""
    server, live = server_of(world.engine, stack), stack.access.name
    refuse_irreversible(server, live)
    # Each query starts a program in a container: in parallel, they take as long as the slowest.
    with ThreadPoolExecutor() as pool:
        baseline = pool.submit(baseline_of, world, stack, lambda: _overview(world, stack))
        of_database = pool.submit(_of_database, wanted, server, live)
        sessions, jobs = pool.submit(other_sessions, server, stack), pool.submit(lost_jobs, world, stack)
        source.check_room(wanted, server)
        if wanted.backup:
            source.check_server(wanted.backup.manifest.server.version // 10000, server)
    rows, known = of_database.result()
    return Observed(baseline.result(), jobs.result(), tuple(known), sessions.result(), rows)


def notes(world: World, stack: Stack, wanted: Source, expected: str, observed: Observed) -> tuple[str, ...]:
    """Return what to know before a restore after which the version `expected` runs, empty for the present one.

    Raise DumpError for a backup of a newer CHAP.
    """
    running = expected or version_guard.version_here(world, stack, wanted, observed.baseline)
    version_guard.refuse_version(wanted.version, running)
    known = []
    old, new = release_key(wanted.version), release_key(running)
    if old and new and old < new:
        known.append(
            f"The backup was made by CHAP {wanted.version}. CHAP {running} will migrate it when it starts."
            " To bring the old version back too: --with-version"
        )
    origin = world.engine.origin(stack.project.name)
    known += [*source.notes(wanted, origin, world.clock()), *observed.database]
    known += filter(None, [version_guard.not_known(world, stack, wanted, running, observed.baseline), observed.jobs])
    return tuple(known)


def is_ready(world: World, stack: Stack) -> bool:
    """Whether CHAP says that all its parts work, which takes it a second."""
    api = stack.api.containers[0]
    return api.running and Chap(world.engine, api.id).health().ready


def _overview(world: World, stack: Stack) -> Overview:
    api = stack.api.containers[0]
    return Chap(world.engine, api.id).introduction() if api.running else Overview.empty()


def _of_database(wanted: Source, server: Server, live: str) -> tuple[Mapping[str, int] | None, list[str]]:
    """Return the rows of the live database by table, and what to know of it."""
    databases = server.databases()
    if live not in databases:
        lost = f"There is no database {live} now: no previous data can be kept, and no rows can be compared."
        alone = f"{lost} A dump alone does not know the database's settings and privileges."
        return None, [lost if wanted.backup else alone]
    try:
        rows = server.counts(live)
    except DatabaseError as error:
        return None, [f"The database {live} is damaged: it is kept as it is, without comparing rows. {error.message}"]
    known = []
    in_backup = wanted.backup.tables if wanted.backup else {}
    if more := [f"{table} {rows[table] - of:+}" for table, of in in_backup.items() if rows.get(table, 0) > of]:
        known.append(f"The live data have more rows than the backup: {', '.join(more)}. They are kept, not merged.")
    made_with = wanted.backup.manifest.database.collation_version if wanted.backup else ""
    if made_with and made_with != databases[live].collation_version_now:
        known.append(
            f"The server sorts text by version {databases[live].collation_version_now or 'unknown'} of its locale, the"
            f" backup was made with {made_with}. This does no harm: all indexes are built again."
        )
    return rows, known
