"""Put a backup back: into a database beside the live one, proven there, and then the names are swapped.

The stack serves until the swap, so the downtime does not depend on the size of the data. The old database
stays under another name.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from compose_chap import (
    backup,
    evidence,
    lock,
    plainsql,
    process,
    proof,
    source,
    state,
    transaction,
    upgrade,
)
from compose_chap.backup import Backup
from compose_chap.baseline import Baseline, baseline_of
from compose_chap.quarantine import Quarantine
from compose_chap.change import KEPT_IMAGES, Change, describe, kept_tag, let_images_go
from compose_chap.chap import Chap
from compose_chap.dumpfile import Kind
from compose_chap.errors import (
    Cancelled,
    ChapError,
    DatabaseError,
    DumpError,
    EngineError,
    StackError,
)
from compose_chap.postgres import Database, Server, Session, identifier, literal
from compose_chap.source import Source
from compose_chap.stack import Reference, Role, Stack, release_key
from compose_chap.state import Edit, Journal
from compose_chap.verify import Check
from compose_chap.world import World


@dataclass(frozen=True)
class RestorePlan:
    """Everything a restore will do. `trust` lets a dump hold what no dump of CHAP has.

    With `images_after`, the version of the backup comes back with it: `edits` name its images, `expected` is it.
    """

    stack: Stack
    source: Source
    trust: bool
    edits: tuple[Edit, ...] = ()
    images_after: Mapping[str, Mapping[str, str]] | None = None
    expected: str = ""


@dataclass(frozen=True)
class Outlook:
    """What an operator should know before saying yes: in words, and who would be cut off from the database."""

    notes: tuple[str, ...]
    sessions: tuple[Session, ...]


@dataclass(frozen=True)
class Restored:
    """What a restore did; `kept` is the name of the database that was live before, empty where there was none."""

    run: str
    source: Path
    kept: str
    tables: Mapping[str, int]
    downtime: float
    checks: tuple[Check, ...]


def foresee(world: World, plan: RestorePlan) -> Outlook:
    """Look ahead, changing nothing. Raise DumpError or DatabaseError for what cannot be restored here."""
    stack, server = plan.stack, backup.server_of(world.engine, plan.stack)
    live, running, notes = stack.access.name, plan.expected, []
    api = stack.api.containers[0]
    if not running and api.running:
        running = Chap(world.engine, api.id).version()
    _refuse_newer_version(plan.source.version, running)
    if plan.source.backup:
        source.check_server(int(plan.source.backup.manifest["server"]["version"]) // 10000, server)
    source.check_room(plan.source, server)

    old, new = release_key(plan.source.version), release_key(running)
    if old and new and old < new:
        notes.append(
            f"The backup was made by CHAP {plan.source.version}. CHAP {running} will migrate it when it starts."
            " To bring the old version back too: --with-version"
        )
    if plan.source.backup and plan.source.backup.project != stack.project.name:
        notes.append(f"The backup was made of another project, {plan.source.backup.project}.")
    notes += _database_notes(plan, server, live)
    own = {address for service in stack.writers for one in service.containers for address in one.addresses}
    return Outlook(tuple(notes), tuple(one for one in server.sessions(live) if one.address not in own))


def _database_notes(plan: RestorePlan, server: Server, live: str) -> list[str]:
    there = server.databases()
    if live not in there:
        return [f"There is no database {live} now. Nothing will be kept of before, and no rows can be compared."]
    try:
        server.counts(live)
    except DatabaseError as error:
        return [f"The database {live} is damaged: its rows are not compared, it is kept as it is. {error.message}"]
    made_with = str(plan.source.backup.manifest["database"]["collation_version"]) if plan.source.backup else ""
    if made_with and made_with != there[live].collation_version_now:
        return [
            f"The server sorts text by version {there[live].collation_version_now or 'unknown'} of its locale, the"
            f" backup was made with {made_with}. All indexes are made anew, so that does no harm."
        ]
    return []


def execute(world: World, plan: RestorePlan, credentials: Mapping[str, str]) -> Restored:
    """Carry a restore out. On a failure before the swap the side database is dropped, after it all is swapped back.

    Raise RolledBack, NeedsPerson or Cancelled once the writers were stopped; before that any ChapError, and
    then nothing has changed.
    """
    stack = plan.stack
    baseline = baseline_of(world, stack)
    server = backup.server_of(world.engine, stack)
    with lock.one_interruption():
        journal = state.begin_run(
            stack.project.directory, "restore", {}, world.clock, source=str(plan.source.path), trusted=plan.trust
        )
        change = _change(plan, baseline, journal)
        try:
            _keep_images(world, stack, change, journal)
            make_side_database(world, server, plan, change, journal)
            change = replace(change, tables=server.counts(change.incoming))
            _compare(plan, change.tables)
            journal.learn(**change.to_facts())
            Quarantine(server, journal.id).remove()
        except BaseException as error:
            with lock.signals_held():
                raise _nothing_changed(world, server, change, journal, error) from None
        done = transaction.run(world, change, journal, credentials)
    kept = change.kept if baseline.has_data else ""
    return Restored(journal.id, plan.source.path, kept, change.tables, done.downtime, done.checks)


def _keep_images(world: World, stack: Stack, change: Change, journal: Journal) -> None:
    """Write down what the way back needs; where other images come, the present ones are kept from being pruned."""
    journal.learn(**change.to_facts())
    if change.recreate:
        for service in stack.writers:
            tag = kept_tag(stack.project.name, journal.id, service.name)
            world.engine.tag(service.containers[0].image_id, KEPT_IMAGES, tag)


def images_of(
    world: World, made: Backup, references: Mapping[str, Reference], platform: str
) -> dict[str, dict[str, str]]:
    """Return reference and id of the images that a backup was made with, by service; what is not here is pulled.

    Raise EngineError when one is neither here nor in the registry.
    """
    recorded = {one["service"]: str(one["id"]) for one in made.manifest["images"]}
    found = {}
    for name, reference in references.items():
        known = world.engine.image(recorded.get(name, "")) if recorded.get(name) else None
        image = known or upgrade.pull_one(world, reference, platform)
        found[name] = {"reference": str(reference), "id": image.id}
    return found


# Where the database itself is down


def stopped_database(stack: Stack) -> str:
    """Return the database service of a stack when it has no running container, empty when it runs."""
    services = stack.of(Role.DATABASE)
    if services and services[0].containers[0].running:
        return ""
    return services[0].name if services else stack.database_host


def start_database(world: World, stack: Stack) -> None:
    """Start the database service of a stack, made anew where its container is gone.

    Raise ChapError when it stays down.
    """
    name = stopped_database(stack)
    world.notify("start database", name)
    there = stack.of(Role.DATABASE)
    if there:
        world.engine.start(there[0].containers[0].id)
    else:
        finished = world.engine.compose(stack.project, "up", "-d", "--no-deps", name)
        process.check(finished, f"Starting {name}", hint="Look at it with docker compose ps -a.")
    for _ in range(240):
        found = [one for one in world.engine.containers(stack.project.name) if one.service == name and one.running]
        if found:
            admin = found[0].environment.get("POSTGRES_USER", "postgres")
            if Server(world.engine, found[0].id, admin).listening():
                return
        world.sleep(0.5)
    raise StackError(f"The database service {name} was started and does not answer.", hint="Look at its logs.")


def _change(plan: RestorePlan, baseline: Baseline, journal: Journal) -> Change:
    live = plan.stack.access.name
    described = describe(plan.stack)
    return Change(
        operation="restore",
        **described,
        kept=upgrade.kept_name(live, "before", journal.id),
        incoming=upgrade.kept_name(live, "incoming", journal.id),
        edits=plan.edits,
        recreate=bool(plan.images_after),
        images_after=plan.images_after or described["images"],
        expected=plan.expected or baseline.version,
        tables={},
        baseline=baseline,
    )


def _nothing_changed(
    world: World, server: Server, change: Change, journal: Journal, error: BaseException
) -> BaseException:
    """Remove what was made beside the live database, close the run, and return what to raise."""
    cancelled = isinstance(error, KeyboardInterrupt)
    said = "The live database was not touched; CHAP still runs on it."
    journal.give_room()
    try:
        remove_side_database(server, journal.id, change.incoming)
        let_images_go(world, journal.id, change.project.name)
        journal.end("cancelled" if cancelled else "failed", failure=evidence.scrubbed(str(error)))
        hint = ""
    except ChapError as second:
        # The journal stays open: what could not be removed now is removed by `recover`.
        said += f"\nWhat was made beside it could not be removed: {second.message}"
        hint = "When the database runs again: docker chap recover"
    if cancelled:
        return Cancelled("The restore was cancelled.", state=said, hint=hint)
    if isinstance(error, ChapError):
        error.state = said if hint else error.state or said
        error.hint = hint or error.hint
    return error


# The side database


def restore_role(run: str) -> str:
    """Return the name of the role that a restore works as: no superuser, and owner of the side database only."""
    return f"docker_chap_{run.lower()}"


def make_side_database(world: World, server: Server, plan: RestorePlan, change: Change, journal: Journal) -> None:
    """Restore a dump into the database `change.incoming`, and look at what came of it.

    Raise DumpError, DatabaseError or EngineError; what was made until then is removed by `remove_side_database`.
    """
    given, quarantine = plan.source, Quarantine(server, journal.id)
    total = given.size

    def progress(done: int) -> None:
        world.notify(journal.steps[-1], str(given.path), done, total)

    journal.begin("read dump")
    world.notify("read dump", str(given.path))
    if given.backup:
        proof.check_sums(world, given.backup)
    kind, path = source.bring(given, quarantine, progress)
    contents = None
    if kind is Kind.PLAIN:
        source.check_server(plainsql.server_major(source.head(given, quarantine, path)), server)
    else:
        contents = source.check_contents(quarantine, kind, path, trust=plan.trust)

    journal.begin("restore beside")
    world.notify("restore beside", change.incoming)
    role, password = restore_role(journal.id), secrets.token_urlsafe(24)
    server.query(
        f"SET log_statement = none; CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE"
        f" PASSWORD {literal(password)};"
    )
    server.create(change.incoming, replace(_like(server, change), owner=role))
    if contents:
        # PostgreSQL reads tar archives from one end to the other only.
        parallel = kind is not Kind.TAR
        quarantine.restore(path, contents.without_privileges(), change.incoming, role, password, parallel=parallel)
        if privileges := contents.privileges():
            # Privileges may name roles that this server does not have. The data are whole without them.
            quarantine.restore_what_fits(path, privileges, change.incoming, role, password)
    else:
        sql = plainsql.harmless_sql(source.lines(given, quarantine, path, progress), trust=plan.trust)
        quarantine.feed_psql(change.incoming, role, password, sql)

    journal.begin("check beside")
    world.notify("check beside", change.incoming)
    strange = foreign_objects(server, change.incoming)
    if strange and not plan.trust:
        raise DumpError(
            f"The dump holds what no dump of CHAP has: {', '.join(strange[:5])}.",
            hint="If you know where it comes from, and want these: --trust",
        )
    # An owner may give its database settings, and the dump ran as its owner.
    server.query(f"ALTER DATABASE {identifier(change.incoming)} RESET ALL;")
    server.query(f"REASSIGN OWNED BY {role} TO {identifier(change.owner)}; DROP OWNED BY {role};", change.incoming)
    server.query(f"DROP ROLE {role};")
    _refuse_newer(world, plan, server, change)


def remove_side_database(server: Server, run: str, incoming: str) -> None:
    """Remove everything that a restore made beside the live database. No error for what is not there.

    Raise ChapError when that cannot be done, as when the server is down.
    """
    Quarantine(server, run).remove()
    server.drop(incoming)
    server.query(f"DROP ROLE IF EXISTS {restore_role(run)};")


def _like(server: Server, change: Change) -> Database:
    there = server.databases()
    # Where the live database is gone, the server's own first one has the locale that it was made with.
    return there.get(change.live) or there["postgres"]


# Looking at what was restored

# Everything that can run code when somebody uses the tables. CHAP has none of it.
_FOREIGN = """
SELECT 'function ' || p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
UNION ALL SELECT 'rule ' || r.rulename FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
  JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
UNION ALL SELECT 'policy ' || polname FROM pg_policy
UNION ALL SELECT 'extension ' || extname FROM pg_extension WHERE extname <> 'plpgsql'
UNION ALL SELECT 'foreign server ' || srvname FROM pg_foreign_server
UNION ALL SELECT 'publication ' || pubname FROM pg_publication
UNION ALL SELECT 'operator ' || oprname FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
UNION ALL SELECT 'domain ' || typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
  WHERE typtype = 'd' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
UNION ALL SELECT 'cast ' || castsource::regtype || ' to ' || casttarget::regtype FROM pg_cast WHERE oid >= 16384
UNION ALL SELECT 'statistics ' || stxname FROM pg_statistic_ext
UNION ALL SELECT 'partitions of ' || partrelid::regclass FROM pg_partitioned_table WHERE partexprs IS NOT NULL
UNION ALL SELECT 'expression ' || said FROM (
  SELECT pg_get_expr(adbin, adrelid) AS said FROM pg_attrdef
  UNION ALL SELECT pg_get_constraintdef(c.oid) FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
    WHERE contype IN ('c', 'x') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  UNION ALL SELECT pg_get_expr(indexprs, indrelid) FROM pg_index WHERE indexprs IS NOT NULL
  UNION ALL SELECT pg_get_expr(indpred, indrelid) FROM pg_index WHERE indpred IS NOT NULL) AS expressions
  WHERE regexp_replace(said, '(nextval|now|lower|upper|length|char_length|timezone|CHECK|VALUES|ANY|IN|AND|OR|NOT)'
        || '\\s*\\(', '', 'gi') ~ '[A-Za-z_0-9"]\\s*\\(';
"""


def foreign_objects(server: Server, database: str) -> list[str]:
    """Return what a database holds that no database of CHAP has and that could run code."""
    return [row[0] for row in server.query(_FOREIGN, database)]


def _compare(plan: RestorePlan, tables: Mapping[str, int]) -> None:
    if not tables:
        raise DumpError(f"{plan.source.path} has no tables.", hint="Use another dump: docker chap backups")
    if plan.source.backup:
        proof.compare(tables, plan.source.backup.tables)


def _refuse_newer_version(made_by: str, running: str) -> None:
    """Refuse data of a newer CHAP than the one that runs: old code does not know what to do with it."""
    written, known = release_key(made_by), release_key(running)
    if written and known and written > known:
        raise DumpError(
            f"The backup was made by CHAP {made_by}, and CHAP {running} runs.",
            state="Nothing was changed.",
            hint=f"Upgrade first: docker chap upgrade v{made_by}. Or bring that version back with it: --with-version",
        )


def _refuse_newer(world: World, plan: RestorePlan, server: Server, change: Change) -> None:
    """Refuse a dump without a version that has columns which the running code does not know."""
    if plan.source.version or plan.images_after or plan.trust:
        return
    known = _known_columns(world, plan.stack)
    if not known:
        return
    columns = {f"{table}.{name}" for table, names in server.columns(change.incoming).items() for name in names}
    live = server.columns(change.live) if server.exists(change.live) else {}
    known |= {f"{table}.{name}" for table, names in live.items() for name in names}
    tables = {name.rpartition(".")[0] for name in known}
    if not {name.rpartition(".")[0] for name in columns} & tables:
        raise DumpError(f"{plan.source.path} has none of CHAP's tables: it is a dump of something else.")
    newer = sorted(name for name in columns - known if name.rpartition(".")[0] in tables)
    if newer:
        raise DumpError(
            f"The dump is from a newer CHAP: the one that runs does not know {', '.join(newer[:5])}.",
            hint="Upgrade first (docker chap upgrade), then restore.",
        )


def _known_columns(world: World, stack: Stack) -> set[str]:
    api = stack.api.containers[0]
    if not api.running:
        return set()
    with suppress(EngineError):
        return {f"public.{name}" for name in Chap(world.engine, api.id).model_columns()}
    return set()
