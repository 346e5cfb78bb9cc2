"""Put a backup back: into a database beside the live one, proven there, and then the names are swapped.

The stack serves until the swap, so the downtime does not depend on the size of the data. The old database
stays under another name.
"""

from __future__ import annotations

import gzip
import io
import secrets
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from compose_chap import backup, dumpfile, lock, state, transaction, upgrade
from compose_chap.backup import Backup
from compose_chap.change import Change, describe
from compose_chap.chap import Chap
from compose_chap.dumpfile import Kind, Packing
from compose_chap.errors import (
    Cancelled,
    ChapError,
    DumpError,
    EngineError,
)
from compose_chap.postgres import Database, Server, identifier, literal
from compose_chap.stack import Stack, release_key
from compose_chap.state import Edit, Journal
from compose_chap.baseline import Baseline, baseline_of
from compose_chap.verify import Check
from compose_chap.world import World

_MOST_JOBS = 4
_FAST = "-c synchronous_commit=off -c maintenance_work_mem=256MB"


@dataclass(frozen=True)
class Source:
    """What is to be restored: a file or folder, what kind of dump it is, and the backup it belongs to, if any."""

    path: Path
    kind: Kind
    packing: Packing
    backup: Backup | None = None

    @property
    def size(self) -> int:
        """Bytes to copy to the server."""
        if self.path.is_dir():
            return sum(part.stat().st_size for part in self.path.iterdir())
        return self.path.stat().st_size


@dataclass(frozen=True)
class RestorePlan:
    """Everything a restore will do. `trust` lets a dump hold what no dump of CHAP has."""

    stack: Stack
    source: Source
    trust: bool
    edits: tuple[Edit, ...] = ()
    images_after: Mapping[str, Mapping[str, str]] | None = None
    expected: str = ""


@dataclass(frozen=True)
class Restored:
    """What a restore did; `kept` is the name that the database has that was live before."""

    run: str
    source: Path
    kept: str
    tables: Mapping[str, int]
    downtime: float
    checks: tuple[Check, ...]


def recognise(asked: str, folder: Path) -> Source:
    """Return what an operator means: a backup's id, `latest`, its folder, or any dump file or folder of PostgreSQL.

    Raise DumpError when there is none, or when it is empty or no dump.
    """
    path = Path(asked)
    if path.is_file():
        return _recognise_file(path)
    if (path / "toc.dat").is_file():
        return Source(path, Kind.DIRECTORY, Packing.NONE)
    found = backup.find(asked, folder)
    return replace(_recognise_file(found.dump), backup=found)


def _recognise_file(path: Path) -> Source:
    try:
        with open(path, "rb") as file:
            head = file.read(1024)
        packing = dumpfile.packing(head)
        if packing is Packing.GZIP:
            with gzip.open(path) as unpacked:
                head = unpacked.read(1024)
    except (OSError, EOFError) as error:
        raise DumpError(f"Cannot read {path}: {error}.") from None
    # What is inside Zstandard is seen once the database's container has unpacked it.
    kind = Kind.CUSTOM if packing is Packing.ZSTD else dumpfile.kind(head, str(path))
    return Source(path, kind, packing)


def execute(world: World, plan: RestorePlan, credentials: Mapping[str, str]) -> Restored:
    """Carry a restore out. On a failure before the swap the side database is dropped, after it all is swapped back.

    Raise RolledBack, NeedsPerson or Cancelled once the writers were stopped; before that any ChapError, and
    then nothing has changed.
    """
    stack = plan.stack
    baseline = baseline_of(world, stack)
    journal = state.begin_run(
        stack.project.directory, "restore", {}, world.clock, source=str(plan.source.path), trusted=plan.trust
    )
    server = backup.server_of(world.engine, stack)
    try:
        change = _change(plan, baseline, journal)
        journal.learn(**change.to_facts())
        _make_side_database(world, server, plan, change, journal)
        change = replace(change, tables=server.counts(change.incoming))
        _compare(plan, change.tables)
        journal.learn(**change.to_facts())
    except BaseException as error:
        with lock.signals_held():
            remove_side_database(server, journal.id, change.incoming)
            journal.end("cancelled" if isinstance(error, KeyboardInterrupt) else "failed", failure=str(error))
        if isinstance(error, KeyboardInterrupt):
            raise Cancelled("The restore was cancelled.", state="The live database was not touched.") from None
        if isinstance(error, ChapError) and not error.state:
            error.state = "The live database was not touched; CHAP still runs on it."
        raise

    server.remove_file(f"docker-chap-{journal.id}")
    done = transaction.run(world, change, journal, credentials)
    return Restored(journal.id, plan.source.path, change.kept, change.tables, done.downtime, done.checks)


def _change(plan: RestorePlan, baseline: Baseline, journal: Journal) -> Change:
    live = plan.stack.access.name
    described = describe(plan.stack)
    return Change(
        operation="restore",
        **described,
        kept=upgrade.kept_name(live, "before", journal.id),
        incoming=upgrade.kept_name(live, "incoming", journal.id),
        edits=plan.edits,
        recreate=bool(plan.edits),
        images_after=plan.images_after or described["images"],
        expected=plan.expected or baseline.version,
        tables={},
        baseline=baseline,
    )


# The side database


def restore_role(run: str) -> str:
    """Return the name of the role that a restore works as: no superuser, and owner of the side database only."""
    return f"docker_chap_{run.lower()}"


def _make_side_database(world: World, server: Server, plan: RestorePlan, change: Change, journal: Journal) -> None:
    source, folder = plan.source, f"/tmp/docker-chap-{journal.id}"
    journal.begin("read dump")
    if source.backup:
        backup.verify(source.backup, None, world.notify)

    kind, path = _bring_to_server(world, server, source, folder)
    role, password = restore_role(journal.id), secrets.token_urlsafe(24)
    contents = None
    if kind is not Kind.PLAIN:
        contents = _contents(server, path, plan)

    journal.begin("restore beside")
    world.notify("restore beside", change.incoming)
    like = _like(server, change)
    server.query(f"CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {literal(password)};")
    server.create(change.incoming, replace(like, owner=role))

    if contents:
        _restore_archive(server, path, folder, contents, change.incoming, role, password)
    else:
        _restore_plain(world, server, source, path, change.incoming, role, password, plan.trust)

    journal.begin("check beside")
    world.notify("check beside", change.incoming)
    strange = foreign_objects(server, change.incoming)
    if strange and not plan.trust:
        raise DumpError(
            f"The dump holds what no dump of CHAP has: {', '.join(strange[:5])}.",
            hint="If you know where it comes from, and want these: --trust",
        )
    server.query(f"REASSIGN OWNED BY {role} TO {identifier(change.owner)}; DROP OWNED BY {role};", change.incoming)
    server.query(f"DROP ROLE {role};")
    _refuse_newer(world, plan, server, change)


def remove_side_database(server: Server, run: str, incoming: str) -> None:
    """Remove everything that a restore made beside the live database. No error for what is not there."""
    with suppress(ChapError):
        server.remove_file(f"docker-chap-{run}")
    with suppress(ChapError):
        server.drop(incoming)
    with suppress(ChapError):
        server.query(f"DROP ROLE IF EXISTS {restore_role(run)};")


def _like(server: Server, change: Change) -> Database:
    there = server.databases()
    # Where the live database is gone, the server's own first one has the locale that it was made with.
    return there.get(change.live) or there["postgres"]


def _bring_to_server(world: World, server: Server, source: Source, folder: str) -> tuple[Kind, str]:
    """Copy the dump into the server's container and unpack it there; return its kind and path."""
    total = source.size

    def progress(done: int) -> None:
        world.notify("read dump", str(source.path), done, total)

    if source.kind is Kind.PLAIN:
        return Kind.PLAIN, ""
    server.make_folder(folder)
    if source.kind is Kind.DIRECTORY:
        with io.BytesIO() if total < (1 << 20) else _spooled() as packed:
            _pack(source.path, packed)
            packed.seek(0)
            server.upload(packed, f"{folder}/directory.tar", progress)
        server.unpack_directory(f"{folder}/directory.tar", f"{folder}/dump")
        return Kind.DIRECTORY, f"{folder}/dump"

    with open(source.path, "rb") as file:
        server.upload(file, f"{folder}/dump", progress)
    if source.packing is Packing.NONE:
        return source.kind, f"{folder}/dump"
    program = "gzip" if source.packing is Packing.GZIP else "zstd"
    head = server.unpack(program, f"{folder}/dump", f"{folder}/unpacked")
    return dumpfile.kind(head, str(source.path)), f"{folder}/unpacked"


def _spooled() -> BinaryIO:
    import tempfile

    return tempfile.TemporaryFile()


def _pack(folder: Path, packed: BinaryIO) -> None:
    # A directory dump is flat; anything else in the folder, and any link, is left behind.
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.is_symlink():
                archive.add(path, arcname=path.name)


def _contents(server: Server, path: str, plan: RestorePlan) -> dumpfile.Contents:
    finished = server.tool("pg_restore", "--list", path)
    if finished.status != 0:
        raise DumpError(f"pg_restore cannot read {plan.source.path}: {finished.said}")
    contents = dumpfile.contents(finished.stdout)

    if contents.server_major > server.version() // 10000:
        raise DumpError(
            f"The dump is from PostgreSQL {contents.server_major}, the server is {server.version() // 10000}.",
            hint="PostgreSQL cannot put a dump into an older server.",
        )
    foreign = contents.foreign()
    if foreign and not plan.trust:
        kinds = ", ".join(f"{entry.kind} {entry.rest}" for entry in foreign[:5])
        raise DumpError(
            f"The dump holds what no dump of CHAP has: {kinds}.",
            hint="If you know where it comes from, and want these: --trust",
        )
    whole = server.tool("pg_restore", "-f", "/dev/null", path)
    if whole.status != 0:
        raise DumpError(f"{plan.source.path} is damaged: {whole.said}", hint="Use another: docker chap backups")
    return contents


def _restore_archive(
    server: Server, path: str, folder: str, contents: dumpfile.Contents, database: str, role: str, password: str
) -> None:
    server.upload(io.BytesIO(contents.without_privileges().encode()), f"{folder}/list", lambda done: None)
    jobs = min(_MOST_JOBS, server.processors())
    options = ["-U", role, "-d", database, "--no-owner", "--exit-on-error"]
    finished = server.tool(
        "pg_restore", *options, f"--jobs={jobs}", f"--use-list={folder}/list", path, password=password, options=_FAST
    )
    if finished.status != 0:
        raise DumpError(f"pg_restore could not restore the dump:\n{finished.said}")

    if privileges := contents.privileges():
        # Privileges may name roles that this server does not have. The data are whole without them.
        server.upload(io.BytesIO(privileges.encode()), f"{folder}/privileges", lambda done: None)
        server.tool(
            "pg_restore",
            "-U",
            role,
            "-d",
            database,
            "--no-owner",
            f"--use-list={folder}/privileges",
            path,
            password=password,
        )


def _restore_plain(
    world: World, server: Server, source: Source, path: str, database: str, role: str, password: str, trust: bool
) -> None:
    lines = server.lines_of(path) if path else _lines(world, source)
    server.feed_psql(database, role, password, dumpfile.harmless_sql(lines, trust=trust))


def _lines(world: World, source: Source) -> Iterator[bytes]:
    opened: BinaryIO = gzip.open(source.path) if source.packing is Packing.GZIP else open(source.path, "rb")  # type: ignore[assignment]
    done = 0
    with opened as file:
        for line in file:
            done += len(line)
            world.notify("restore beside", str(source.path), done, 0)
            yield line


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
    if plan.source.backup and dict(tables) != plan.source.backup.tables:
        recorded = plan.source.backup.tables
        wrong = [name for name in {*tables, *recorded} if tables.get(name) != recorded.get(name)]
        raise DumpError(f"The restored rows are not those that the manifest recorded, in: {', '.join(sorted(wrong))}.")


def _refuse_newer(world: World, plan: RestorePlan, server: Server, change: Change) -> None:
    """Refuse data of a newer CHAP than the one that runs: old code does not know what to do with it."""
    running = release_key(change.expected)
    made_by = plan.source.backup.manifest["chap"]["version"] if plan.source.backup else ""
    written = release_key(made_by)
    if running and written and written > running:
        raise DumpError(
            f"The backup was made by CHAP {made_by}, and CHAP {change.expected} runs.",
            hint=f"Upgrade first: docker chap upgrade v{made_by}. Or bring that version back with it: --with-version",
        )
    if made_by or plan.trust:
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
