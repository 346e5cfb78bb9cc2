"""The side database, into which a dump is restored by a role that can touch nothing else."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from compose_chap.backups import proof
from compose_chap.engine.world import World
from compose_chap.errors import DatabaseError
from compose_chap.postgres import dump_format
from compose_chap.postgres.dump_format import Contents, Kind
from compose_chap.postgres.server import Server, identifier, literal
from compose_chap.postgres.untrusted import room, script_errors, unexpected
from compose_chap.postgres.untrusted.sandbox import Quarantine
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.restore import plain_dump, source
from compose_chap.restore.source import Source
from compose_chap.transaction.run.change import Change

# Disk space to leave for the rest of the server while a dump is restored.
_LEAST_ROOM = 256 << 20


@dataclass(frozen=True)
class Made:
    """What came of a dump: the rows of each table, and the properties and privileges that could not be restored."""

    tables: Mapping[str, int]
    left_out: tuple[str, ...]


def restore_role(run: str) -> str:
    """Return the name of the role of a restore: no superuser, and owner of the side database only."""
    return f"docker_chap_{run.lower()}"


@dataclass(frozen=True)
class _Ready:
    """A dump as an archive in the quarantine: its kind, path, contents, and what of it was left out."""

    kind: Kind
    path: str
    contents: Contents
    left_out: frozenset[str] = frozenset()


@contextmanager
def made(
    world: World, server: Server, dump: Source, change: Change, journal: Journal, *, trust: bool
) -> Iterator[Made]:
    """Restore a dump into the database `change.incoming`, check the result, and yield its facts.

    At the end of the block, which may check it further, it becomes its owner's. When the live database is gone, its
    properties come from the backup. Raise DumpError, DatabaseError or EngineError; then `remove` cleans up.
    """
    quarantine = Quarantine(server, journal.id)
    journal.begin(Step.READ_DUMP)
    world.notify("read dump", str(dump.path))
    role, password = restore_role(journal.id), secrets.token_urlsafe(24)
    with ThreadPoolExecutor() as pool:
        # Neither needs the dump, and each waits for a program in the container.
        creating = pool.submit(_create, server, change, dump, role, password)
        pool.submit(server.processors)
        ready = _bring(world, quarantine, dump, change.live, trust=trust)
    lost = creating.result()

    journal.begin(Step.RESTORE_BESIDE)
    world.notify("restore beside", change.incoming)
    with _watch_free_space(world, server, role):
        left_out = ready.left_out | _restore(quarantine, ready, change.incoming, role, password)

    journal.begin(Step.CHECK_BESIDE)
    world.notify("check beside", change.incoming)
    of_itself = _take_back(server, change.incoming)
    unexpected.refuse([*of_itself, *unexpected.objects(server, change.incoming)], trust=trust)
    missing_properties = _set_properties(server, change, role, lost) if lost else ()
    with ThreadPoolExecutor() as pool:
        # Both take a while, and nothing that is checked needs them.
        removing = pool.submit(quarantine.remove)
        pool.submit(quarantine.analyze, change.incoming, role, password)
        yield Made(server.counts(change.incoming), (*sorted(left_out), *missing_properties))
    removing.result()
    owned = f"REASSIGN OWNED BY {role} TO {identifier(change.owner)}; DROP OWNED BY {role};"
    server.command(f"{owned} DROP ROLE {role};", change.incoming)


def _create(server: Server, change: Change, dump: Source, role: str, password: str) -> Mapping[str, Any] | None:
    """Create the role, and the empty side database as its own; return the properties of a live one that is gone."""
    server.command(
        f"SET log_statement = none; CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE"
        f" PASSWORD {literal(password)};"
    )
    databases = server.databases(templates=True)
    lost = asdict(dump.backup.manifest.database) if dump.backup and change.live not in databases else None
    # When the live database is gone, template1 has the locale of the server.
    like = replace(databases.get(change.live) or databases["template1"], owner=role)
    if lost:
        # The backup has the exact locale, if this server supports it.
        with suppress(DatabaseError):
            server.create(change.incoming, replace(proof.like(server, lost), owner=like.owner))
            return lost
    server.create(change.incoming, like)
    return lost


def _bring(world: World, quarantine: Quarantine, dump: Source, live: str, *, trust: bool) -> _Ready:
    """Bring the dump into the database's container, as an archive that was looked at."""

    def progress(done: int) -> None:
        world.notify(Step.READ_DUMP.value, str(dump.path), done, dump.size)

    def jailed(doing: str, done: int) -> None:
        world.notify(Step.READ_DUMP.value, doing, done, 0)

    with ThreadPoolExecutor(1) as pool:
        # Nothing looks at what comes into the container before the sums are right.
        quiet = replace(world, notify=lambda *_: None)
        sums = pool.submit(proof.check_sums, quiet, dump.backup) if dump.backup else None
        try:
            quarantine.make()
            kind, path = source.bring(dump, quarantine, progress)
        finally:
            if sums:
                sums.result()
    left_out: frozenset[str] = frozenset()
    if kind is Kind.PLAIN:
        source.check_server(dump_format.server_major(source.head(dump, quarantine, path)), quarantine.server)
        pieces = source.pieces(dump, quarantine, path, progress)
        made = plain_dump.archive(world, quarantine, pieces, live, jailed, trust=trust)
        kind, path, left_out = Kind.CUSTOM, made.path, frozenset(made.left_out)
    return _Ready(kind, path, source.check_contents(quarantine, dump, kind, path, trust=trust), left_out)


def _restore(quarantine: Quarantine, ready: _Ready, database: str, role: str, password: str) -> set[str]:
    """Restore the archive as the role, and return what could not be restored."""
    left_out: set[str] = set()
    # PostgreSQL reads tar archives sequentially.
    parallel = ready.kind is not Kind.TAR
    contents = unexpected.make_extensions(quarantine, ready.path, ready.contents, database, role)
    quarantine.restore(ready.path, contents.without_privileges(), database, role, password, parallel=parallel)
    if privileges := contents.privileges():
        # Privileges may name roles that this server does not have. The data are complete without them.
        left_out |= quarantine.restore_privileges(ready.path, privileges, database, role, password)
    if contents.default_privileges():
        left_out.add(script_errors.DEFAULT_PRIVILEGES)
    return left_out


_OF_ITSELF = """
SELECT 'PRIVILEGES ON DATABASE' FROM pg_database WHERE datname = {name} AND datacl IS NOT NULL
UNION ALL SELECT 'COMMENT ON DATABASE' FROM pg_database
  WHERE datname = {name} AND shobj_description(oid, 'pg_database') IS NOT NULL
UNION ALL SELECT 'SETTINGS OF DATABASE' FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase
  WHERE datname = {name}
UNION ALL SELECT 'ATTRIBUTES OF DATABASE' FROM pg_database
  WHERE datname = {name} AND (datistemplate OR datconnlimit <> -1 OR NOT datallowconn)
"""


def _take_back(server: Server, database: str) -> list[str]:
    """Reset database properties that the dump may have set, before the administrator connects; return what was set.

    The dump ran as the owner, and settings of a database apply to everybody who connects, even a superuser.
    """
    done = [str(name) for (name,) in server.query(_OF_ITSELF.format(name=literal(database)))]
    name = identifier(database)
    server.command(
        f"ALTER DATABASE {name} RESET ALL;\n"
        f"ALTER DATABASE {name} IS_TEMPLATE false CONNECTION LIMIT -1 ALLOW_CONNECTIONS true;"
    )
    # One would outlive its session, and block the rename.
    return [*done, *(["PREPARED TRANSACTION"] if server.roll_back_prepared(database) else [])]


@contextmanager
def _watch_free_space(world: World, server: Server, role: str) -> Iterator[None]:
    """End the sessions of `role` in the block before the disk is full: without space for its log the server stops."""
    with room.asking(server) as free:
        least = min(_LEAST_ROOM, free() // 4)
        with room.watched(free, least, lambda: server.end_sessions(role), world.limit):
            yield


def remove(server: Server, run: str, incoming: str) -> None:
    """Remove everything that a restore made besides the live database. No error for what is missing.

    Raise ChapError when that fails, for example because the server is down.
    """
    Quarantine(server, run).remove()
    server.roll_back_prepared(incoming)
    server.drop(incoming)
    role = restore_role(run)
    # Even DROP ROLE IF EXISTS needs a right that our role may lack.
    server.command(f"SELECT 'DROP ROLE {role}' FROM pg_roles WHERE rolname = {literal(role)} \\gexec\n")


# Properties of a database besides its content

_PRIVILEGES = ("CREATE", "CONNECT", "TEMPORARY")
_SETTING = re.compile(r"[a-z_]{1,63}")
_LISTS = ("search_path", "temp_tablespaces", "local_preload_libraries")


def _set_properties(server: Server, change: Change, role: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Set comment, privileges and settings from a manifest on the side database, and return those that failed.

    A manifest is not trusted. So the unprivileged role sets them: no setting that needs a superuser.
    """
    refused = []
    for name, statement in _properties(identifier(change.incoming), facts):
        try:
            if not statement:
                raise DatabaseError("It is not in the backup.")
            server.command(f"SET SESSION AUTHORIZATION {role}; {statement};")
        except DatabaseError:
            refused.append(name)
    return tuple(refused)


def _properties(database: str, facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each property in a manifest: its name for people, and the statement that sets it, empty for none."""
    if facts["comment"]:
        yield "comment", f"COMMENT ON DATABASE {database} IS {literal(str(facts['comment']))}"
    if facts["privileges"]:
        yield "privileges of PUBLIC", f"REVOKE ALL ON DATABASE {database} FROM PUBLIC"
    for fact in facts["privileges"]:
        role = "PUBLIC" if fact["role"] == "PUBLIC" else identifier(str(fact["role"]))
        known = fact["privilege"] in _PRIVILEGES
        statement = f"GRANT {fact['privilege']} ON DATABASE {database} TO {role}" if known else ""
        yield f"privilege {fact['privilege']} of {fact['role']}", statement
    for setting in facts["settings"]:
        name, value = str(setting["name"]), setting["value"]
        settable = not setting["role"] and value is not None and _SETTING.fullmatch(name)
        label = f"setting {name}" + (f" of {setting['role']}" if setting["role"] else "")
        yield label, f"ALTER DATABASE {database} SET {name} = {_value(name, str(value))}" if settable else ""


def _value(name: str, value: str) -> str:
    # The names in a list are stored with quotes already.
    parts = re.findall(r'"[^"]*"|[^,\s"]+', value) if name in _LISTS else []
    return ", ".join(literal(part.strip('"')) for part in parts) or literal(value)
