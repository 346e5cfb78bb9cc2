"""Restore a backup into a side database, prove it there, and then swap its name with the live one.

The stack serves until the swap, so the downtime does not depend on the size of the data. The old database
stays under another name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from compose_chap.backups import proof
from compose_chap.backups.catalogue import Backup
from compose_chap.check import Check
from compose_chap.edit import Edit
from compose_chap.engine import pull
from compose_chap.engine.engine import UP_ALONE
from compose_chap.engine.world import World
from compose_chap.errors import DatabaseError, DumpError, StackError
from compose_chap.image import Reference, release_key
from compose_chap.model import Role, Stack
from compose_chap.postgres.database_schema import MARK_TABLE
from compose_chap.postgres.server import Server, Session
from compose_chap.processes import process
from compose_chap.records import lock, run_records
from compose_chap.records.run_records import Journal
from compose_chap.restore import fitness, side_database, source, version_guard
from compose_chap.restore.source import Source
from compose_chap.stack.databases import refuse_irreversible, server_of
from compose_chap.stack.jobs import lost_jobs
from compose_chap.transaction import forward, prepare
from compose_chap.transaction.run import kept
from compose_chap.transaction.run.baseline import Baseline, baseline_of, other_sessions
from compose_chap.transaction.run.change import Change, describe

# Seconds that a started database may take to answer: it may have to replay its log.
_DATABASE_STARTS = 120.0


@dataclass(frozen=True)
class RestorePlan:
    """Everything a restore will do. `trust` allows unexpected objects in a dump, `empty` a dump without rows.

    With `images_after`, the version of the backup is restored too: `edits` name its images, `expected` is the version.
    """

    stack: Stack
    source: Source
    trust: bool
    edits: tuple[Edit, ...] = ()
    images_after: Mapping[str, Mapping[str, str]] | None = None
    expected: str = ""
    empty: bool = False


@dataclass(frozen=True)
class Outlook:
    """What an operator should know before confirming: notes, and the sessions that will be disconnected.

    `baseline` is the state of the stack now, which the restore preserves; `rows` are those of the live database by
    table, None where there is none or it is damaged.
    """

    notes: tuple[str, ...]
    sessions: tuple[Session, ...]
    baseline: Baseline
    rows: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Restored:
    """The result of a restore; `kept` is the name of the previous live database, empty if there was none."""

    run: str
    source: Path
    kept: str
    tables: Mapping[str, int]
    downtime: float
    checks: tuple[Check, ...]


def foresee(world: World, plan: RestorePlan, asked: Future[Baseline] | None = None) -> Outlook:
    """Return the outlook of a restore, changing nothing. Raise DumpError or DatabaseError when it is impossible.

    `asked` is the baseline where it is being asked for already.
    """
    stack, server = plan.stack, server_of(world.engine, plan.stack)
    live, notes = stack.access.name, []
    refuse_irreversible(server, live)
    # Each query starts a program in a container: in parallel, they take as long as the slowest.
    with ThreadPoolExecutor() as pool:
        asked = asked or pool.submit(baseline_of, world, stack)
        of_database = pool.submit(_database_notes, plan, server, live)
        sessions, jobs = pool.submit(other_sessions, server, stack), pool.submit(lost_jobs, world, stack)
        source.check_room(plan.source, server)
        if plan.source.backup:
            source.check_server(plan.source.backup.manifest.server.version // 10000, server)
    baseline = asked.result()
    running = plan.expected or version_guard.version_here(world, stack, plan.source, baseline)
    version_guard.refuse_version(plan.source.version, running)

    old, new = release_key(plan.source.version), release_key(running)
    if old and new and old < new:
        notes.append(
            f"The backup was made by CHAP {plan.source.version}. CHAP {running} will migrate it when it starts."
            " To bring the old version back too: --with-version"
        )
    rows, about_rows = of_database.result()
    origin = world.engine.origin(stack.project.name)
    notes += [*source.notes(plan.source, origin, world.clock()), *about_rows]
    notes += filter(None, [version_guard.not_known(world, stack, plan.source, running, baseline), jobs.result()])
    return Outlook(tuple(notes), sessions.result(), baseline, rows)


def _database_notes(plan: RestorePlan, server: Server, live: str) -> tuple[Mapping[str, int] | None, list[str]]:
    """Return the rows of the live database by table, and what to know of it."""
    databases = server.databases()
    if live not in databases:
        lost = f"There is no database {live} now: no previous data can be kept, and no rows can be compared."
        alone = f"{lost} A dump alone does not know the database's settings and privileges."
        return None, [lost if plan.source.backup else alone]
    try:
        rows = server.counts(live)
    except DatabaseError as error:
        return None, [f"The database {live} is damaged: it is kept as it is, without comparing rows. {error.message}"]
    notes = []
    in_backup = plan.source.backup.tables if plan.source.backup else {}
    if more := [f"{table} {rows[table] - of:+}" for table, of in in_backup.items() if rows.get(table, 0) > of]:
        notes.append(f"The live data have more rows than the backup: {', '.join(more)}. They are kept, not merged.")
    made_with = plan.source.backup.manifest.database.collation_version if plan.source.backup else ""
    if made_with and made_with != databases[live].collation_version_now:
        notes.append(
            f"The server sorts text by version {databases[live].collation_version_now or 'unknown'} of its locale, the"
            f" backup was made with {made_with}. This does no harm: all indexes are built again."
        )
    return rows, notes


def execute(world: World, plan: RestorePlan, baseline: Baseline, credentials: Mapping[str, str]) -> Restored:
    """Restore. On a failure before the swap the side database is dropped, after it everything is swapped back.

    Raise RolledBack, NeedsPerson or Cancelled once the writers were stopped; before that any ChapError, and
    then nothing has changed.
    """
    stack = plan.stack
    server = server_of(world.engine, stack)
    origin = world.engine.origin(stack.project.name).to_json()
    about = {"from": baseline.version, "to": plan.expected or baseline.version, "trusted": plan.trust}
    about |= {"stack": origin, "source": str(plan.source.path)}
    with lock.single_interruption():
        journal = run_records.begin_run(stack.project.directory, "restore", {}, world.clock, **about)
        change = planned = _change(plan, server, baseline, journal)

        def clean_up() -> None:
            side_database.remove(server, journal.id, planned.incoming)
            kept.untag_kept_images(world, journal.id, planned.project.name)

        with prepare.preparing(planned, journal, clean_up, _UNCHANGED):
            _protect_images(world, stack, change, journal)
            with side_database.made(world, server, plan.source, change, journal, trust=plan.trust) as made:
                if not plan.images_after:
                    change = replace(
                        change, repairs=fitness.mends(world, plan.stack, plan.source, server, change, trust=plan.trust)
                    )
                _compare(plan, made.tables)
                # What was mended may have taken a table away.
                tables = server.counts(change.incoming) if change.repairs else made.tables
                accepted = fitness.judge(world, plan.stack, server, change, trust=plan.trust)
            change = replace(change, tables=tables, accepted=accepted)
            journal.learn(**change.to_facts())
        done = forward.run(world, change, journal, credentials)
    kept_database = change.kept if server.exists(change.kept) else ""
    checks = (*done.checks, *_left_out(made.left_out, change.live))
    return Restored(journal.id, plan.source.path, kept_database, change.tables, done.downtime, checks)


def _left_out(names: Sequence[str], live: str) -> tuple[Check, ...]:
    message = f"Not everything came back that belongs to database {live}: {', '.join(names)}."
    hint = "Set them again with psql: ALTER DATABASE … SET …, GRANT …"
    return (Check("properties", "warn", message, hint=hint),) if names else ()


def _protect_images(world: World, stack: Stack, change: Change, journal: Journal) -> None:
    """Record what the way back needs; if the images change, protect the current ones from being pruned."""
    journal.learn(**change.to_facts())
    if change.recreate:
        for service in stack.writers:
            kept.protect_image(world, service.containers[0].image_id, stack.project.name, journal.id, service.name)


def images_of(
    world: World, made: Backup, references: Mapping[str, Reference], platform: str
) -> dict[str, dict[str, str]]:
    """Return reference and id of the images that a backup was made with, by service; missing images are pulled.

    Raise EngineError when an image is neither on this engine nor in the registry.
    """
    recorded = {image.service: image.id for image in made.manifest.images}
    images = {}
    for name, reference in references.items():
        known = world.engine.image(recorded.get(name, "")) if recorded.get(name) else None
        image = known or pull.pull(world, reference, platform)
        images[name] = {"reference": str(reference), "id": image.id}
    return images


# When the database itself is down


def stopped_database(stack: Stack) -> str:
    """Return the database service of a stack when it has no running container, empty when it runs.

    Raise StackError when a connection pooler hides which server it is.
    """
    services = stack.of(Role.DATABASE)
    if not services and not stack.pooler:
        return stack.database_host
    return "" if stack.database.containers[0].running else stack.database.name


def start_database(world: World, stack: Stack) -> None:
    """Start the database service of a stack; a missing container is created.

    Raise ChapError when it stays down.
    """
    name = stopped_database(stack)
    world.notify("start database", name)
    services = stack.of(Role.DATABASE)
    if services:
        world.engine.start(services[0].containers[0].id)
    else:
        finished = world.engine.compose(stack.project, *UP_ALONE, name)
        hint = "Is its image gone? Pull or load the very version that wrote the data: a newer one cannot read them.\n"
        hint += "Is the database outside of this project? Then restore it where it runs."
        process.check(finished, f"Starting {name}", hint=hint)

    def listening(waited: float) -> bool | None:
        running = [
            container
            for container in world.engine.containers(stack.project.name)
            if container.service == name and container.running
        ]
        admin = running[0].environment.get("POSTGRES_USER", "postgres") if running else ""
        return bool(running) and Server(world.engine, running[0].id, admin).listening() or None

    if not world.until(listening, _DATABASE_STARTS):
        raise StackError(
            f"The database service {name} was started and does not answer.",
            hint=f"See what it wrote last: docker compose -p {stack.project.name} logs --tail 50 {name}",
        )


def _change(plan: RestorePlan, server: Server, baseline: Baseline, journal: Journal) -> Change:
    live = plan.stack.access.name
    described = describe(plan.stack, server)
    return Change(
        operation="restore",
        **described,
        kept=kept.kept_name(live, kept.BEFORE, journal.id),
        incoming=kept.kept_name(live, kept.INCOMING, journal.id),
        edits=plan.edits,
        recreate=bool(plan.images_after),
        images_after=plan.images_after or described["images"],
        expected=plan.expected or baseline.version,
        tables={},
        baseline=baseline,
    )


_UNCHANGED = prepare.Unchanged(
    "The live database was not touched; CHAP still runs on it.",
    "What the restore had made could not be removed",
    "When the database runs again",
)


def _compare(plan: RestorePlan, tables: Mapping[str, int]) -> None:
    if not tables:
        raise DumpError(f"{plan.source.path} has no tables.")
    if plan.source.backup:
        proof.compare(tables, plan.source.backup.tables)
    elif not plan.empty and not any(rows for table, rows in tables.items() if table != MARK_TABLE):
        raise DumpError(
            f"{plan.source.path} has {len(tables)} tables and not one row: it was made without data (pg_dump -s?).",
            hint="Use another backup. To list them: docker chap backups\nIf you want an empty CHAP: --allow-empty",
        )
