"""PostgreSQL's own tools, run inside the database's container: psql, pg_dump, pg_restore.

Everything goes through the server's local socket as the role that the image made at its first start, so no
password leaves the container. Names of databases and roles are quoted here and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from compose_chap.engine.engine import Engine, Execution
from compose_chap.engine.process import Finished
from compose_chap.errors import DatabaseError
from compose_chap.postgres import statements

# Every row comes as a line of JSON, in which no value can look like the end of something. This one is not JSON.
_NEXT_ANSWER = "--"

# An official image trusts its local socket; where an operator changed that, the container knows the password.
# Our sessions have a name, by which a later run ends those that a killed one left.
_APPLICATION = "docker-chap"
WITH_PASSWORD = (
    *("sh", "-c"),
    f'export PGPASSWORD="${{PGPASSWORD-${{POSTGRES_PASSWORD-}}}}" PGAPPNAME={_APPLICATION}; exec "$@"',
    "sh",
)

# A database may say where names are looked up, and its owner may be nobody to trust. What a client says counts more.
_NAMES = {"PGOPTIONS": "-c search_path=pg_catalog"}


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
        self._version = 0

    # Questions

    def query(self, select: str, database: str = "postgres") -> list[list[Any]]:
        """Return the rows of a query, values as JSON has them. Names without a schema are PostgreSQL's own.

        Raise DatabaseError with psql's words.
        """
        return self.answers(select, database=database)[0]

    def answers(self, *selects: str, database: str = "postgres") -> list[list[list[Any]]]:
        """Return the rows of each of several queries, asked at once: to start a program in a container takes longer."""
        questions = (f"SELECT row_to_json(answer) FROM (\n{select}\n) AS answer;\n" for select in selects)
        # A line ends at the line feed alone: JSON takes other ends of lines as they are.
        lines = self._run(f"\\echo {_NEXT_ANSWER}\n".join(questions), database).split("\n")[:-1]
        answers: list[list[list[Any]]] = [[]]
        for line in lines:
            if line == _NEXT_ANSWER:
                answers.append([])
            else:
                answers[-1].append(_row(line))
        return answers

    def command(self, sql: str, database: str = "postgres") -> None:
        """Run statements (psql's `\\gexec` included) that answer nothing. Raise DatabaseError with psql's words."""
        self._run(sql, database)

    def _run(self, sql: str, database: str) -> str:
        finished = self._psql(sql, database)
        if finished.status != 0:
            raise DatabaseError(f"PostgreSQL refused: {first_error(finished.stderr)}")
        return finished.stdout

    def ready(self) -> bool:
        """Whether the server answers queries now."""
        return self._psql("SELECT 1;", "postgres").status == 0

    def listening(self) -> bool:
        """Whether the server is fully up: at its first start the official image runs one without TCP for a while."""
        return self.engine.run(self.container, ["pg_isready", "-q", "-h", "127.0.0.1"]).status == 0 and self.ready()

    def version(self) -> int:
        """Return the server's version as PostgreSQL numbers it: 170006 for 17.6."""
        # Another version is another container, so it is asked once.
        if not self._version:
            self._version = int(self.query("SELECT current_setting('server_version_num')")[0][0])
        return self._version

    def databases(self) -> dict[str, Database]:
        """Return every database of the server except templates, by name."""
        # PostgreSQL 15 began to record collation versions and to name the provider of a database's locale.
        new = self.version() >= 150000
        # One whose files are gone has no size.
        rows = self.query(
            "SELECT d.datname, pg_get_userbyid(d.datdba), coalesce(pg_database_size(d.oid), 0),"
            " pg_encoding_to_char(d.encoding),"
            " d.datcollate, d.datctype,"
            + (
                " d.datlocprovider, coalesce(d.datcollversion, ''),"
                " coalesce(pg_database_collation_actual_version(d.oid), ''),"
                if new
                else " 'c', '', '',"
            )
            + " coalesce(shobj_description(d.oid, 'pg_database'), '')"
            " FROM pg_database d WHERE NOT d.datistemplate ORDER BY 1"
        )
        return {row[0]: Database(*row) for row in rows}

    def properties(self, database: str) -> dict[str, list[Any]]:
        """Return privileges and settings of a database; a setting of an extension or application shows no value."""
        privileges, settings = self.answers(
            "SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type"
            f" FROM pg_database d, aclexplode(d.datacl) a WHERE d.datname = {literal(database)} ORDER BY 1, 2",
            "SELECT coalesce(r.rolname, ''), split_part(entry, '=', 1), substr(entry, strpos(entry, '=') + 1)"
            " FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase"
            f" LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) AS entry"
            f" WHERE d.datname = {literal(database)} ORDER BY 1, 2",
        )
        return {
            "privileges": [{"role": role, "privilege": privilege} for role, privilege in privileges],
            # A name with a dot is nobody knows whose, and may hold a password.
            "settings": [
                {"role": role, "name": name, "value": None if "." in name else value} for role, name, value in settings
            ],
        }

    def exists(self, database: str) -> bool:
        """Whether the server has a database of this name."""
        return bool(self.query(f"SELECT 1 FROM pg_database WHERE datname = {literal(database)}"))

    def counts(self, database: str) -> dict[str, int]:
        """Return the number of rows of every table, by `schema.table`."""
        finished = self._psql(statements.COUNT, database)
        if finished.status != 0:
            raise DatabaseError(f"Counting rows failed: {first_error(finished.stderr)}")
        return counted(finished.stdout)

    def columns(self, database: str) -> dict[str, list[str]]:
        """Return the columns of every table, by `schema.table`, in their order."""
        rows = self.query(
            "SELECT n.nspname || '.' || c.relname, a.attname FROM pg_attribute a JOIN"
            " (SELECT c.oid, c.relname, c.relnamespace" + statements.TABLES + ") c ON c.oid = a.attrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE a.attnum > 0 AND NOT a.attisdropped"
            " ORDER BY 1, a.attnum",
            database,
        )
        tables: dict[str, list[str]] = {}
        for table, column in rows:
            tables.setdefault(table, []).append(column)
        return tables

    def sessions(self, database: str) -> list[Session]:
        """Return who is connected to a database, this connection left out."""
        rows = self.query(
            "SELECT pid, coalesce(usename, ''), application_name, coalesce(host(client_addr), 'local'),"
            " coalesce(state, '') FROM pg_stat_activity"
            f" WHERE datname = {literal(database)} AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        return [Session(*row) for row in rows]

    def activity(self, database: str) -> str:
        """Return something that differs whenever work was done in a database since it was last asked."""
        rows = self.query(
            "SELECT tup_inserted, tup_updated, tup_deleted, pg_database_size(datname), (SELECT string_agg("
            "pid || md5(query), ',' ORDER BY pid) FROM pg_stat_activity a WHERE a.datname = d.datname"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state = 'active')"
            f" FROM pg_stat_database d WHERE datname = {literal(database)}"
        )
        return json.dumps(rows)

    def mark(self) -> str:
        """Return what is the same later exactly when no transaction wrote anything in between; empty while one does."""
        # Only a transaction that writes gets a number: oldest that runs, next to be given, those between.
        found = str(self.query("SELECT txid_current_snapshot()")[0][0])
        oldest, following, _ = found.split(":")
        return found if oldest == following else ""

    def working(self, database: str) -> bool:
        """Whether somebody's statement runs in a database right now."""
        return any(session.state == "active" for session in self.sessions(database))

    def free_space(self, place: str = "") -> int:
        """Return the bytes that are free in a place of the container, if not told where the server keeps its data."""
        script = 'df -Pk "${1:-${PGDATA:-/var/lib/postgresql/data}}" | tail -n 1'
        finished = self.engine.run(self.container, ["sh", "-c", script, "sh", place])
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
        self.command(
            f"CREATE DATABASE {identifier(database)} TEMPLATE template0 ENCODING {literal(like.encoding)}"
            f" LC_COLLATE {literal(like.collate)} LC_CTYPE {literal(like.ctype)} OWNER {identifier(like.owner)};"
        )

    def copy(self, database: str, to: str, owner: str) -> None:
        """Copy a database inside the server, settings and privileges included; nobody may be connected to it."""
        strategy = " STRATEGY FILE_COPY" if self.version() >= 150000 else ""
        self.command(
            _disconnect(database)
            + f"CREATE DATABASE {identifier(to)} TEMPLATE {identifier(database)}{strategy} OWNER {identifier(owner)};"
            # In the same session: CHAP is down meanwhile, and another one takes a moment to begin.
            + statements.CARRY.format(old=literal(database), new=literal(to))
        )

    def carry(self, database: str, to: str) -> None:
        """Give a database the settings, privileges, comment and connection limit of another one."""
        self.command(statements.CARRY.format(old=literal(database), new=literal(to)))

    def end_own_sessions(self) -> None:
        """End what a run that was killed still does in the server, and wait until it has ended."""
        ours = f"application_name = {literal(_APPLICATION)} AND pid <> pg_backend_pid()"
        for _ in range(100):
            if not self.query(f"SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}"):
                return
            self.command("SELECT pg_sleep(0.1);")
        raise DatabaseError("A session of an earlier run does not end.", hint="Restart the database's container.")

    def end_sessions(self, role: str) -> None:
        """End the sessions of a role."""
        self.command(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {literal(role)};")

    def rename(self, *pairs: tuple[str, str]) -> None:
        """Rename databases, (from, to) in order, all of them or none; their sessions are ended."""
        renames = [_disconnect(old) for old, _ in pairs] + ["BEGIN;"]
        renames += [f"ALTER DATABASE {identifier(old)} RENAME TO {identifier(new)};" for old, new in pairs]
        self.command("\n".join([*renames, "COMMIT;"]))

    def drop(self, database: str) -> None:
        """Drop a database that is no longer live, also one that its owner made a template. No error when it is gone."""
        self.command(
            _disconnect(database) + "SELECT format('ALTER DATABASE %I IS_TEMPLATE false', datname) FROM pg_database"
            f" WHERE datistemplate AND datname = {literal(database)} \\gexec\n"
            f"DROP DATABASE IF EXISTS {identifier(database)};"
        )

    # Programs

    def processors(self) -> int:
        """Return how many processors the server may use."""
        said = self.engine.run(self.container, ["nproc"]).stdout.strip()
        return int(said) if said.isdigit() else 1

    def tool(self, name: str, *arguments: str) -> Finished:
        """Run one of PostgreSQL's tools, ended when this process ends."""
        return self.engine.run(self.container, [*WITH_PASSWORD, name, *arguments])

    def session(self, database: str) -> AbstractContextManager[Execution]:
        """Run psql while a block runs; it reads SQL as it is sent, and writes a line for each row."""
        return self.engine.execute(self.container, self._psql_command(database), watched=False, environment=_NAMES)

    def _psql(self, sql: str, database: str) -> Finished:
        return self.engine.run(self.container, self._psql_command(database), given=sql.encode(), environment=_NAMES)

    def _psql_command(self, database: str) -> list[str]:
        return [*WITH_PASSWORD, "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", self.admin, "-d", database]


def _disconnect(database: str) -> str:
    return (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = {literal(database)} AND pid <> pg_backend_pid() \\g /dev/null\n"
    )


def _row(line: str) -> list[Any]:
    # Columns need no names of their own, and two may have the same.
    try:
        row = json.loads(line, object_pairs_hook=lambda pairs: [value for _, value in pairs])
        if isinstance(row, list):
            return row
    except ValueError:
        pass
    raise DatabaseError(f"PostgreSQL answered what is not JSON: {line[:80]!r}.")


def counted(text: str) -> dict[str, int]:
    """Return the rows of each table by what psql answered to COUNT."""
    return {str(name): int(rows) for name, rows in map(_row, text.split("\n")[:-1])}


def first_error(stderr: str) -> str:
    """Return the line of what a tool of PostgreSQL wrote that says best why it failed."""
    lines: Sequence[str] = [line for line in stderr.splitlines() if line.strip()]
    # A warning may speak of errors too, as that of a collation's version does, and stands before the true one.
    told = [line for line in lines if not re.search(r"\b(WARNING|NOTICE|HINT|DETAIL):", line)]
    errors = [line for line in told if re.search(r"error|fatal|invalid|could not|not found", line, re.I)]
    return (errors or told or lines or ["it gave no reason"])[0]
