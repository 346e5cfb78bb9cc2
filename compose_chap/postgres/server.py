"""The PostgreSQL server inside the database's container: queries, and changes to whole databases.

Everything goes through the server's local socket as its administrator, so no password leaves the container. Names of
databases and roles are quoted only here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from compose_chap.errors import DatabaseError, StuckSessions
from compose_chap.postgres import reach, statements
from compose_chap.postgres.psql import Psql, counted
from compose_chap.postgres.reach import first_error

# Waits, as PostgreSQL itself does before it renames a database, and fails when somebody is still connected.
_WAIT_UNTIL_UNUSED = """
DO $$ BEGIN
  FOR tried IN 1..50 LOOP
    PERFORM pg_stat_clear_snapshot();
    IF NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = {name} AND backend_type = 'client backend') THEN
      RETURN;
    END IF;
    PERFORM pg_sleep(0.1);
  END LOOP;
  RAISE EXCEPTION 'the database is being accessed by other users';
END $$;
"""

CLONES_FROM = 180000  # the version from which on a copy can share its blocks with the original

# A server may need a while to end a session that is in the middle of something.
_TRIES = 4


def identifier(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a string for SQL, whatever `standard_conforming_strings` says."""
    quoted = "'" + text.replace("'", "''") + "'"
    return " E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


@dataclass(frozen=True)
class Database:
    """A database of the server; `size` is in bytes."""

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


class Server(Psql):
    """The PostgreSQL server in one container, used as its administrator."""

    # Queries

    def listening(self) -> bool:
        """Whether the server is fully up: at first start the official image runs a temporary server without TCP."""
        return self.tool("pg_isready", "-q", "-h", "127.0.0.1").status == 0 and self.ready()

    def databases(self, *, templates: bool = False) -> dict[str, Database]:
        """Return every database of the server, by name, with `templates` those too."""
        # PostgreSQL 15 began to record collation versions and to name the provider of a database's locale.
        new = self.version() >= 150000
        # A database whose files are gone has no size.
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
            + f" FROM pg_database d WHERE {templates} OR NOT d.datistemplate ORDER BY 1"
        )
        return {row[0]: Database(*row) for row in rows}

    def properties(self, database: str) -> dict[str, list[Any]]:
        """Return privileges and settings of a database; settings of extensions or applications without the value."""
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
            # A name with a dot belongs to some extension or application, and may hold a password.
            "settings": [
                {"role": role, "name": name, "value": None if "." in name else value} for role, name, value in settings
            ],
        }

    def exists(self, database: str) -> bool:
        """Whether the server has a database of this name."""
        return bool(self.query(f"SELECT 1 FROM pg_database WHERE datname = {literal(database)}"))

    def counts(self, database: str) -> dict[str, int]:
        """Return the number of rows of every table, by `schema.table`."""
        finished = self.psql(statements.COUNT, database)
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
        """Return the connections to a database, except this one."""
        rows = self.query(
            "SELECT pid, coalesce(usename, ''), application_name, coalesce(host(client_addr), 'local'),"
            " coalesce(state, '') FROM pg_stat_activity"
            f" WHERE datname = {literal(database)} AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        return [Session(*row) for row in rows]

    def activity(self, database: str) -> str:
        """Return a value that changes whenever work was done in a database."""
        rows = self.query(
            "SELECT tup_inserted, tup_updated, tup_deleted, pg_database_size(datname), (SELECT string_agg("
            "pid || md5(query), ',' ORDER BY pid) FROM pg_stat_activity a WHERE a.datname = d.datname"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state = 'active')"
            f" FROM pg_stat_database d WHERE datname = {literal(database)}"
        )
        return json.dumps(rows)

    def moment(self) -> int:
        """Return the number of the next transaction that writes."""
        return int(self.query("SELECT txid_snapshot_xmax(txid_current_snapshot())")[0][0])

    def newer_rows(self, database: str, since: int) -> dict[str, tuple[int, int]]:
        """Return the rows of every table, and how many of them were written at or after a `moment`."""
        finished = self.psql(statements.NEWER.format(since=since % (1 << 32)), database)
        if finished.status != 0:
            raise DatabaseError(f"Counting rows failed: {first_error(finished.stderr)}")
        rows = [json.loads(line) for line in finished.stdout.split("\n")[:-1]]
        return {name: (all_, newer) for name, all_, newer in rows}

    def prepared_transactions(self, database: str) -> list[str]:
        """Return the prepared transactions of a database, each with its owner: they block it without a connection."""
        rows = self.query(f"SELECT gid, owner FROM pg_prepared_xacts WHERE database = {literal(database)} ORDER BY 1")
        return [f"{gid} of {owner}" for gid, owner in rows]

    def mark(self) -> str:
        """Return a value that changes whenever a transaction that wrote ends; empty while one is seen to write."""
        # Only a writer gets a number. The snapshot has the oldest that runs, and the one after the newest that ended.
        snapshot = str(self.query("SELECT txid_current_snapshot()")[0][0])
        oldest, following, _ = snapshot.split(":")
        return snapshot if oldest == following else ""

    def is_busy(self, database: str) -> bool:
        """Whether a statement runs in a database right now."""
        return any(session.state == "active" for session in self.sessions(database))

    def free_space(self, path: str = "") -> int:
        """Return the free bytes at a path in the container, by default where the server has its data."""
        script = 'df -Pk "${1:-${PGDATA:-/var/lib/postgresql/data}}" | tail -n 1'
        finished = self.engine.run(self.container, ["sh", "-c", script, "sh", path])
        try:
            return int(finished.stdout.split()[-3]) * 1024
        except (IndexError, ValueError):
            raise DatabaseError(f"Cannot tell the free space of the database: {finished.last_lines}") from None

    # Changes to whole databases

    def create(self, database: str, like: Database) -> None:
        """Create an empty database with the encoding, locale and owner of another one.

        Raise DatabaseError for a locale of another provider than the C library, which CHAP never has.
        """
        if like.provider != "c":
            known = f"Database '{like.name}' has an ICU or builtin locale. This tool does not know those."
            raise DatabaseError(known, hint="Copy it by hand, with pg_dump and pg_restore.")
        self.command(
            f"CREATE DATABASE {identifier(database)} TEMPLATE template0 ENCODING {literal(like.encoding)}"
            f" LC_COLLATE {literal(like.collate)} LC_CTYPE {literal(like.ctype)} OWNER {identifier(like.owner)};"
        )

    def checkpoint(self) -> None:
        """Write to the disk all that was changed so far."""
        self.command("CHECKPOINT;")

    def copy(self, database: str, to: str, owner: str) -> None:
        """Copy a database inside the server, with settings and privileges; meanwhile nobody can connect to it.

        Where server and disk can, it is a clone. Raise DatabaseError, for example when a session in it does not end.
        """
        method = "SET file_copy_method = clone;\n" if self.version() >= CLONES_FROM else ""
        try:
            return self._copy(database, to, owner, method)
        except DatabaseError as error:
            # Where nothing can be cloned, most systems copy, and some refuse.
            if isinstance(error, StuckSessions) or not method:
                raise
        self._copy(database, to, owner)

    def _copy(self, database: str, to: str, owner: str, method: str = "") -> None:
        recent = self.version() >= 150000
        # The copy keeps the collation version, even if the C library now sorts differently. Alpine's has none.
        version = " || coalesce(' COLLATION_VERSION ' || quote_literal(datcollversion), '')" if recent else ""
        copying = (
            f"SELECT format('CREATE DATABASE %I TEMPLATE %I OWNER %I{' STRATEGY FILE_COPY' if recent else ''}',"
            f" {literal(to)}, datname, {literal(owner)}){version}"
            f" FROM pg_database WHERE datname = {literal(database)} \\gexec\n"
        )
        # All in a single session: CHAP is down meanwhile, and a second session takes a moment to start.
        copying += statements.CARRY.format(old=literal(database), new=literal(to))
        self._exclusively([database], method + copying + _reopen(database))

    def carry(self, database: str, to: str) -> None:
        """Give a database the settings, privileges, comment and connection limit of another one."""
        self.command(statements.CARRY.format(old=literal(database), new=literal(to)))

    def end_own_sessions(self) -> None:
        """End the sessions that a killed run left in the server, and wait until they have ended."""
        ours = f"application_name = {literal(reach.APPLICATION)} AND pid <> pg_backend_pid()"
        for _ in range(100):
            if not self.query(f"SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}"):
                return
            self.command("SELECT pg_sleep(0.1);")
        raise DatabaseError("A session of an earlier run does not end.", hint=f"docker restart {self.container[:12]}")

    def end_sessions(self, role: str) -> None:
        """End the sessions of a role."""
        self.command(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {literal(role)};")

    def rename(self, *pairs: tuple[str, str], carrying: tuple[str, str] | None = None) -> None:
        """Rename databases, (from, to) in order, all or none; their sessions are ended.

        Before that, `carrying` gives a database the properties of another, as `carry` does.
        Raise DatabaseError when they cannot be renamed, for example because a session in one does not end.
        """
        first = statements.CARRY.format(old=literal(carrying[0]), new=literal(carrying[1])) if carrying else ""
        renames = [f"ALTER DATABASE {identifier(old)} RENAME TO {identifier(new)};" for old, new in pairs]
        opened = [f"ALTER DATABASE {identifier(new)} ALLOW_CONNECTIONS true;" for _, new in pairs]
        self._exclusively([old for old, _ in pairs], "\n".join([first, "BEGIN;", *renames, *opened, "COMMIT;"]))

    def drop(self, database: str) -> None:
        """Drop a database that is not live, even if its owner made it a template. No error when it is gone."""
        if self.exists(database):
            template = f"ALTER DATABASE {identifier(database)} IS_TEMPLATE false;\n"
            self._exclusively([database], f"{template}DROP DATABASE {identifier(database)};")

    def roll_back_prepared(self, database: str) -> bool:
        """Roll back the prepared transactions of a database that is not live, and return whether there were any."""
        identities = self.query(f"SELECT gid FROM pg_prepared_xacts WHERE database = {literal(database)}")
        if identities:
            self.allow_connections(database)
            self.command("".join(f"ROLLBACK PREPARED {literal(gid)};\n" for (gid,) in identities), database)
        return bool(identities)

    def empty(self, database: str) -> None:
        """End every session in a database. Raise StuckSessions when one does not end."""
        self._exclusively([database], _WAIT_UNTIL_UNUSED.format(name=literal(database)) + _reopen(database))

    def unwritten(self, database: str, mark: str) -> bool:
        """Do as `empty` does, and return whether no transaction has written in the server since a `mark`."""
        before = self.mark()
        self.empty(database)
        # Closing the database and opening it again took two numbers. Where more are gone, others wrote too.
        following = int(before.partition(":")[0] or 0) + 2
        return before == mark != "" and self.mark() == f"{following}:{following}:"

    def allow_connections(self, *databases: str) -> None:
        """Allow connections that an interrupted copy or rename left off. No error for a missing database."""
        self.command("".join(map(_reopen, databases)))

    def _exclusively(self, databases: Sequence[str], sql: str) -> None:
        """Run statements with the databases closed to all others: their sessions are ended, and new ones refused."""
        # A session cannot shut itself out.
        home = "template1" if "postgres" in databases else ""
        for left in reversed(range(_TRIES)):
            try:
                self.command("".join(map(_shut_out, databases)) + sql, home)
                return
            except DatabaseError as error:
                remaining = [session for database in databases for session in self.sessions(database)]
                if left and remaining:
                    continue
                with suppress(DatabaseError):
                    self.command("".join(map(_reopen, databases)), home)
                if not remaining:
                    raise
                names = ", ".join(
                    f"{session.application or session.role} from {session.address} (pid {session.pid})"
                    for session in remaining
                )
                stuck = f"{error.message} These sessions do not end: {names}."
                raise StuckSessions(stuck, hint=f"Restart the server: docker restart {self.container[:12]}") from error

    # Programs

    def processors(self) -> int:
        """Return how many processors the server may use."""

        def ask() -> int:
            output = self.engine.run(self.container, ["nproc"]).stdout.strip()
            return int(output) if output.isdigit() else 1

        return self.engine.once(("processors", self.container), ask)


def _shut_out(database: str) -> str:
    """Return SQL that refuses new connections to a database and ends every session in it."""
    return (
        f"ALTER DATABASE {identifier(database)} ALLOW_CONNECTIONS false;\n"
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = {literal(database)} AND pid <> pg_backend_pid() \\g /dev/null\n"
    )


def _reopen(database: str) -> str:
    return (
        "SELECT format('ALTER DATABASE %I ALLOW_CONNECTIONS true', datname) FROM pg_database"
        f" WHERE NOT datallowconn AND datname = {literal(database)} \\gexec\n"
    )
