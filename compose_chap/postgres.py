"""PostgreSQL's own tools, run inside the database's container: psql, pg_dump, pg_restore.

Everything goes through the server's local socket as the role that the image made at its first start, so no
password leaves the container. Names of databases and roles are quoted here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from compose_chap.engine import Engine, Execution
from compose_chap.errors import DatabaseError, DumpError, EngineError
from compose_chap.process import Finished

# Units and records end with characters that no value of ours contains, so nothing needs to be unescaped.
_FIELD, _RECORD = "\x1f", "\x1e"

# An official image trusts its local socket; where an operator changed that, the container knows the password.
# Our sessions have a name, by which a later run ends those that a killed one left.
_APPLICATION = "docker-chap"
_WITH_PASSWORD = (
    *("sh", "-c"),
    f'export PGPASSWORD="${{PGPASSWORD-${{POSTGRES_PASSWORD-}}}}" PGAPPNAME={_APPLICATION}; exec "$@"',
    "sh",
)

_TABLES = """
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
"""

# psql runs each row of the first query as a statement of its own: one round trip for all tables.
_COUNT = (
    "SELECT format('SELECT %L, count(*) FROM %I.%I', n.nspname || '.' || c.relname, n.nspname, c.relname)"
    + _TABLES
    + "ORDER BY 1 \\gexec\n"
)

# What neither CREATE DATABASE … TEMPLATE nor pg_dump carries over: settings, privileges, comment, limit.
# Settings that are lists of names are stored quoted already (see variable_is_guc_list_quote in PostgreSQL).
_CARRY = r"""
WITH old AS (SELECT * FROM pg_database WHERE datname = {old}), setting AS (
  SELECT coalesce(r.rolname, '') AS role, split_part(entry, '=', 1) AS name,
         substr(entry, strpos(entry, '=') + 1) AS value
  FROM pg_db_role_setting s JOIN old ON s.setdatabase = old.oid LEFT JOIN pg_roles r ON r.oid = s.setrole,
       unnest(s.setconfig) AS entry)
SELECT CASE WHEN role = '' THEN format('ALTER DATABASE %I SET ', {new}::text)
            ELSE format('ALTER ROLE %I IN DATABASE %I SET ', role, {new}::text) END
       || name || ' = ' || CASE WHEN name IN ('search_path', 'temp_tablespaces', 'session_preload_libraries',
          'local_preload_libraries', 'shared_preload_libraries', 'unix_socket_directories')
          AND value <> '' THEN value ELSE quote_literal(value) END
FROM setting
UNION ALL SELECT format('COMMENT ON DATABASE %I IS %L', {new}::text, shobj_description(oid, 'pg_database'))
FROM old WHERE shobj_description(oid, 'pg_database') IS NOT NULL
UNION ALL SELECT format('ALTER DATABASE %I CONNECTION LIMIT %s', {new}::text, datconnlimit)
FROM old WHERE datconnlimit >= 0
UNION ALL SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', {new}::text) FROM old WHERE datacl IS NOT NULL
UNION ALL SELECT format('GRANT %s ON DATABASE %I TO %s%s', a.privilege_type, {new}::text,
       CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
       CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM old, aclexplode(old.datacl) AS a
\gexec
"""


def identifier(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a string for SQL, whatever `standard_conforming_strings` says."""
    quoted = "'" + text.replace("'", "''") + "'"
    return " E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


@dataclass(frozen=True)
class Database:
    """A database of the server: its size in bytes, when files of it changed is not known to PostgreSQL."""

    name: str
    owner: str
    size: int
    encoding: str
    collate: str
    ctype: str
    provider: str
    collation_version: str
    collation_version_now: str
    comment: str


@dataclass(frozen=True)
class Session:
    """Somebody's connection to a database."""

    pid: int
    role: str
    application: str
    address: str
    state: str


class Server:
    """The PostgreSQL server in one container, spoken to as its administrator."""

    def __init__(self, engine: Engine, container: str, admin: str) -> None:
        self.engine = engine
        self.container = container
        self.admin = admin

    # Questions

    def query(self, sql: str, database: str = "postgres") -> list[list[str]]:
        """Run SQL (psql's `\\gexec` included) and return the rows as text. Raise DatabaseError with psql's words."""
        finished = self._psql(sql, database)
        if finished.status != 0:
            raise DatabaseError(f"PostgreSQL refused: {_first_error(finished.stderr)}")
        return _rows(finished.stdout)

    def ready(self) -> bool:
        """Whether the server answers queries now."""
        return self._psql("SELECT 1;", "postgres").status == 0

    def version(self) -> int:
        """Return the server's version as PostgreSQL numbers it: 170006 for 17.6."""
        return int(self.query("SHOW server_version_num;")[0][0])

    def databases(self) -> dict[str, Database]:
        """Return every database of the server except templates, by name."""
        # PostgreSQL 15 began to record collation versions and to name the provider of a database's locale.
        new = self.version() >= 150000
        rows = self.query(
            "SELECT d.datname, pg_get_userbyid(d.datdba), pg_database_size(d.oid), pg_encoding_to_char(d.encoding),"
            " d.datcollate, d.datctype,"
            + (
                " d.datlocprovider, coalesce(d.datcollversion, ''),"
                " coalesce(pg_database_collation_actual_version(d.oid), ''),"
                if new
                else " 'c', '', '',"
            )
            + " coalesce(shobj_description(d.oid, 'pg_database'), '')"
            " FROM pg_database d WHERE NOT d.datistemplate ORDER BY 1;"
        )
        return {row[0]: Database(row[0], row[1], int(row[2]), *row[3:]) for row in rows}

    def exists(self, database: str) -> bool:
        """Whether the server has a database of this name."""
        return bool(self.query(f"SELECT 1 FROM pg_database WHERE datname = {literal(database)};"))

    def counts(self, database: str) -> dict[str, int]:
        """Return the number of rows of every table, by `schema.table`."""
        finished = self._psql(_COUNT, database)
        if finished.status != 0:
            raise DatabaseError(f"Counting rows failed: {_first_error(finished.stderr)}")
        return _counts(finished.stdout)

    def columns(self, database: str) -> dict[str, list[str]]:
        """Return the columns of every table, by `schema.table`, in their order."""
        rows = self.query(
            "SELECT n.nspname || '.' || c.relname, a.attname FROM pg_attribute a JOIN"
            " (SELECT c.oid, c.relname, c.relnamespace" + _TABLES + ") c ON c.oid = a.attrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE a.attnum > 0 AND NOT a.attisdropped"
            " ORDER BY 1, a.attnum;",
            database,
        )
        tables: dict[str, list[str]] = {}
        for table, column in rows:
            tables.setdefault(table, []).append(column)
        return tables

    def sessions(self, database: str) -> list[Session]:
        """Return who is connected to a database, this connection left out."""
        rows = self.query(
            "SELECT pid, coalesce(usename, ''), application_name, coalesce(client_addr::text, 'local'),"
            " coalesce(state, '') FROM pg_stat_activity"
            f" WHERE datname = {literal(database)} AND pid <> pg_backend_pid() AND backend_type = 'client backend';"
        )
        return [Session(int(row[0]), *row[1:]) for row in rows]

    def activity(self, database: str) -> str:
        """Return something that differs whenever work was done in a database since it was last asked."""
        rows = self.query(
            "SELECT tup_inserted, tup_updated, tup_deleted, pg_database_size(datname), (SELECT string_agg("
            "pid || md5(query), ',' ORDER BY pid) FROM pg_stat_activity a WHERE a.datname = d.datname"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state = 'active')"
            f" FROM pg_stat_database d WHERE datname = {literal(database)};"
        )
        return _FIELD.join(rows[0]) if rows else ""

    def working(self, database: str) -> bool:
        """Whether somebody's statement runs in a database right now."""
        return any(session.state == "active" for session in self.sessions(database))

    def free_space(self) -> int:
        """Return the bytes that are free where the server keeps its data."""
        script = 'df -Pk "${PGDATA:-/var/lib/postgresql/data}" | tail -n 1'
        finished = self.engine.run(self.container, ["sh", "-c", script])
        try:
            return int(finished.stdout.split()[-3]) * 1024
        except (IndexError, ValueError):
            raise DatabaseError(f"Cannot tell the free space of the database: {finished.said}") from None

    # Changes to whole databases

    def create(self, database: str, like: Database) -> None:
        """Create an empty database with the encoding, locale and owner of another one.

        Raise DatabaseError for a locale of another provider than the C library, which CHAP never has.
        """
        if like.provider != "c":
            raise DatabaseError(f"Database '{like.name}' has an ICU or builtin locale. This tool does not know those.")
        self.query(
            f"CREATE DATABASE {identifier(database)} TEMPLATE template0 ENCODING {literal(like.encoding)}"
            f" LC_COLLATE {literal(like.collate)} LC_CTYPE {literal(like.ctype)} OWNER {identifier(like.owner)};"
        )

    def copy(self, database: str, to: str, owner: str) -> None:
        """Copy a database inside the server, settings and privileges included; nobody may be connected to it."""
        strategy = " STRATEGY FILE_COPY" if self.version() >= 150000 else ""
        self.query(
            _disconnect(database)
            + f"CREATE DATABASE {identifier(to)} TEMPLATE {identifier(database)}{strategy} OWNER {identifier(owner)};"
        )
        self.carry(database, to)

    def carry(self, database: str, to: str) -> None:
        """Give a database the settings, privileges, comment and connection limit of another one."""
        self.query(_CARRY.format(old=literal(database), new=literal(to)))

    def end_own_sessions(self) -> None:
        """End what a run that was killed still does in the server, and wait until it has ended."""
        ours = f"application_name = {literal(_APPLICATION)} AND pid <> pg_backend_pid()"
        for _ in range(100):
            if not self.query(f"SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours};"):
                return
            self.query("SELECT pg_sleep(0.1);")
        raise DatabaseError("A session of an earlier run does not end.", hint="Restart the database's container.")

    def rename(self, *pairs: tuple[str, str]) -> None:
        """Rename databases, (from, to) in order, all of them or none; their sessions are ended."""
        statements = [_disconnect(old) for old, _ in pairs] + ["BEGIN;"]
        statements += [f"ALTER DATABASE {identifier(old)} RENAME TO {identifier(new)};" for old, new in pairs]
        self.query("\n".join([*statements, "COMMIT;"]))

    def drop(self, database: str) -> None:
        """Drop a database that is no longer live. No error when it is gone."""
        self.query(_disconnect(database) + f"DROP DATABASE IF EXISTS {identifier(database)};")

    # Dumps

    def compression(self) -> str:
        """Return the fastest compression that the server's pg_dump knows: `zstd:1` or `gzip:1`, else `1`."""
        said = self.engine.run(self.container, ["pg_dump", "--version"]).stdout
        major = re.search(r"(\d+)", said)
        if not major or int(major[1]) < 16:
            return "1"
        # Zstandard is a choice of whoever built the server, and only pg_dump itself can tell.
        probe = self.tool(
            "pg_dump", "-U", self.admin, "-d", "postgres", "-Fc", "-Z", "zstd:1", "-s", "--no-sync", "-f", "/dev/null"
        )
        return "zstd:1" if probe.status == 0 else "gzip:1"

    @contextmanager
    def snapshot(self, database: str) -> Iterator[Snapshot]:
        """Hold one moment of a database still: what is dumped and what is counted in the block is the same data."""
        command = [*_WITH_PASSWORD, *self._psql_command(database)]
        with self.engine.execute(self.container, command, watched=False) as execution:
            yield Snapshot(execution)

    def dump(self, database: str, snapshot: str, compression: str, sink: Callable[[bytes], None]) -> None:
        """Write a dump in custom format, as of an exported snapshot, to `sink` piece by piece.

        Raise DatabaseError unless pg_dump itself ended well; what `sink` was given is then no dump.
        """
        command = ["pg_dump", "-U", self.admin, "-d", database, "-Fc", "-Z", compression, f"--snapshot={snapshot}"]
        with self.engine.execute(self.container, [*_WITH_PASSWORD, *command]) as execution:
            for data in execution.output():
                sink(data)
            status = execution.status()
        if status != 0:
            raise DatabaseError(f"pg_dump failed (exit status {status}): {_first_error(execution.stderr.decode())}")

    def read_back(self, dump: BinaryIO, progress: Callable[[int], None]) -> None:
        """Have pg_restore read an archive from its first byte to its last. Raise DatabaseError when it cannot.

        Listing is not enough: the list stands at the front, and a truncated archive still has it.
        """
        with self.engine.execute(self.container, ["pg_restore", "-f", "/dev/null"], watched=False) as execution:
            try:
                _send(execution, dump, progress)
            finally:
                execution.end_input()
                for _ in execution.output():
                    pass
            status = execution.status()
        if status != 0:
            raise DatabaseError(f"pg_restore cannot read the dump: {_first_error(execution.stderr.decode())}")

    def upload(self, file: BinaryIO, path: str, progress: Callable[[int], None]) -> None:
        """Copy a file into the server's container, readable by root alone."""
        command = ["sh", "-c", 'umask 077; cat > "$1"', "sh", path]
        with self.engine.execute(self.container, command, watched=False) as execution:
            sent = _send(execution, file, progress)
            execution.end_input()
            for _ in execution.output():
                pass
            status = execution.status()
        arrived = self.engine.run(self.container, ["sh", "-c", 'wc -c < "$1"', "sh", path]).stdout.strip()
        if status != 0 or arrived != str(sent):
            raise DatabaseError(
                f"Only {arrived or 0} of {sent} bytes could be copied into the database's container:"
                f" {_first_error(execution.stderr.decode())}",
                hint="Is its disk full? Look with: docker system df",
            )

    def remove_file(self, pattern: str) -> None:
        """Remove files in the container's /tmp whose name begins with `pattern`."""
        self.engine.run(self.container, ["sh", "-c", 'rm -rf "/tmp/$1"*', "sh", pattern])

    def make_folder(self, path: str) -> None:
        """Make a folder in the server's container that root alone can enter."""
        self._demand(["mkdir", "-m", "700", path])

    def unpack(self, program: str, path: str, to: str) -> bytes:
        """Unpack a file in the server's container with `gzip` or `zstd`, and return its first 1024 bytes."""
        script = (
            'command -v "$1" >/dev/null || { echo "the database image has no $1" >&2; exit 1; }; "$1" -dc "$2" > "$3"'
        )
        self._demand(["sh", "-c", script, "sh", program, path, to])
        with self.engine.execute(self.container, ["head", "-c", "1024", to]) as execution:
            return b"".join(execution.output())

    def unpack_directory(self, archive: str, to: str) -> None:
        """Unpack a flat tar archive in the server's container into a new folder."""
        self._demand(["sh", "-c", 'mkdir "$2" && tar -C "$2" --no-same-owner -xf "$1"', "sh", archive, to])

    def lines_of(self, path: str) -> Iterator[bytes]:
        """Yield the lines of a file in the server's container."""
        with self.engine.execute(self.container, ["cat", path]) as execution:
            rest = b""
            for data in execution.output():
                *lines, rest = (rest + data).split(b"\n")
                yield from (line + b"\n" for line in lines)
            if rest:
                yield rest

    def processors(self) -> int:
        """Return how many processors the server may use."""
        said = self.engine.run(self.container, ["nproc"]).stdout.strip()
        return int(said) if said.isdigit() else 1

    def feed_psql(self, database: str, role: str, password: str, lines: Iterable[bytes]) -> None:
        """Run SQL in one transaction as a role without power, psql itself as a user without power.

        Raise DumpError with psql's words when any of it fails; what `lines` raises passes through.
        """
        options = ["-XqAt1", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1"]
        command = ["psql", *options, "-U", role, "-d", database]
        environment = {"PGPASSWORD": password, "PGAPPNAME": _APPLICATION}
        with self.engine.execute(
            self.container, command, watched=False, environment=environment, user="nobody"
        ) as execution:
            try:
                for batch in _batches(lines):
                    execution.send(batch)
            except EngineError:
                # It ended early: its own words say why.
                pass
            execution.end_input()
            for _ in execution.output():
                pass
            status = execution.status()
        if status != 0:
            raise DumpError(f"psql could not restore the dump: {_first_error(execution.stderr.decode())}")

    def _demand(self, command: Sequence[str]) -> None:
        finished = self.engine.run(self.container, command)
        if finished.status != 0:
            raise DatabaseError(f"In the database's container: {finished.said}")

    def tool(self, name: str, *arguments: str, password: str = "", options: str = "") -> Finished:
        """Run one of PostgreSQL's tools, ended when this process ends.

        `password` is for a role of our own, `options` are settings of its sessions, as in PGOPTIONS.
        """
        environment = {"PGPASSWORD": password} if password else {}
        environment |= {"PGOPTIONS": options} if options else {}
        return self.engine.run(self.container, [*_WITH_PASSWORD, name, *arguments], environment=environment)

    def _psql(self, sql: str, database: str) -> Finished:
        command = [*_WITH_PASSWORD, *self._psql_command(database)]
        return self.engine.run(self.container, command, given=sql.encode())

    def _psql_command(self, database: str) -> list[str]:
        options = ["-XqAt", "-F", _FIELD, "-R", _RECORD, "-v", "ON_ERROR_STOP=1"]
        return ["psql", *options, "-U", self.admin, "-d", database]


class Snapshot:
    """A transaction that stays open: its exported id for pg_dump, and the row counts at that moment."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._output = execution.output()
        execution.send(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();\n")
        self.id = self._read_until(_RECORD).strip(_RECORD + "\n")
        # The server counts while pg_dump runs. The transaction stays open until the answer is read.
        execution.send(_COUNT.encode())

    def counts(self) -> dict[str, int]:
        """Return the rows of every table at the moment of the snapshot, and let the moment go."""
        self._execution.end_input()
        text = "".join(data.decode() for data in self._output)
        if self._execution.status() != 0:
            raise DatabaseError(f"Counting rows failed: {_first_error(self._execution.stderr.decode())}")
        return _counts(text)

    def _read_until(self, end: str) -> str:
        text = ""
        for data in self._output:
            text += data.decode()
            if "\n" in text or end in text:
                return text
        raise DatabaseError(f"PostgreSQL gave no snapshot: {_first_error(self._execution.stderr.decode())}")


def _send(execution: Execution, file: BinaryIO, progress: Callable[[int], None]) -> int:
    sent = 0
    while data := file.read(1 << 18):
        execution.send(data)
        sent += len(data)
        progress(sent)
    return sent


def _batches(lines: Iterable[bytes]) -> Iterator[bytes]:
    batch, size = [], 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if size > 1 << 17:
            yield b"".join(batch)
            batch, size = [], 0
    yield b"".join(batch)


def _disconnect(database: str) -> str:
    return (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = {literal(database)} AND pid <> pg_backend_pid() \\g /dev/null\n"
    )


def _rows(text: str) -> list[list[str]]:
    text = text.removesuffix("\n")
    return [record.split(_FIELD) for record in text.split(_RECORD)] if text else []


def _counts(text: str) -> dict[str, int]:
    # Every table was a query of its own, and psql ends each with a line end.
    return {name: int(rows) for name, rows in (line.split(_FIELD) for line in text.splitlines())}


def _first_error(stderr: str) -> str:
    lines: Sequence[str] = [line for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"error|fatal|invalid|could not|not found", line, re.I)]
    return (errors or lines or ["it gave no reason"])[0]
