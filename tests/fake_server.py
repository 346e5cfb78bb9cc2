"""A PostgreSQL server in memory: the databases of a `FakeEngine`, asked and changed through the methods of `Server`.

Every method is a call that can fail, or after which the process is gone; one that closes databases first can also be
cut off between its statements. What is not overridden here is not known, and raises.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compose_chap.errors import DatabaseError, EngineError
from compose_chap.postgres import server
from compose_chap.postgres.reach import Administrator
from compose_chap.postgres.server import Server, Session
from compose_chap.transaction.data import value_query

if TYPE_CHECKING:
    from tests.fakes import FakeEngine

# What was asked and is not known: a test that gets to it cannot pass, whoever catches the error.
UNKNOWN: list[object] = []


def unknown(question: object) -> AssertionError:
    """Return the error for what a fake does not know, and remember it."""
    UNKNOWN.append(question)
    return AssertionError(f"This fake does not know: {question}")


@dataclass
class Database:
    """A database: rows per table, the columns it was migrated to, what ALTER DATABASE set, and rows changed of late."""

    rows: dict[str, int]
    columns: set[str] = field(default_factory=set)
    settings: str = ""
    closed: bool = False
    edited: dict[str, int] = field(default_factory=dict)


class FakeServer(Server):
    """The server of a `FakeEngine`."""

    engine: FakeEngine

    @property
    def _as(self) -> Administrator:
        self._reach("postgres")
        return Administrator("chap", superuser=True, version=170006, port=5432, home="postgres")

    def _reach(self, name: str = "postgres") -> Database:
        """Return a database that can be connected to."""
        self.engine.at("run")
        box = self.engine.boxes.get(self.container)
        if box is None or box.state != "running":
            raise EngineError(f"Docker could not run that: container {self.container} is not running.")
        if name not in self.engine.databases:
            raise DatabaseError(f'PostgreSQL refused: database "{name}" does not exist')
        if self.engine.databases[name].closed:
            raise DatabaseError(f'PostgreSQL refused: database "{name}" is not currently accepting connections')
        return self.engine.databases[name]

    @contextmanager
    def _changing(self, *closed: str) -> Iterator[dict[str, Database]]:
        """Give the databases to change, with these closed to all others; who is killed now has changed them."""
        self._reach("template1" if "postgres" in closed else "postgres")
        for name in closed:
            self.engine.databases[name].closed = True
        if closed:
            self.engine.at("closed")
        yield self.engine.databases
        self.engine.at("ran")

    # Queries

    def ready(self) -> bool:
        self._reach()
        return True

    def databases(self, *, templates: bool = False) -> dict[str, server.Database]:
        self._reach()
        names = sorted([*self.engine.databases, *(["template1"] if templates else [])])
        return {name: server.Database(name, "chap", 1, "UTF8", "C", "C", "c", "", "", "") for name in names}

    def exists(self, database: str) -> bool:
        self._reach()
        return database in self.engine.databases

    def counts(self, database: str) -> dict[str, int]:
        return dict(self._reach(database).rows)

    def newer_rows(self, database: str, since: int) -> dict[str, tuple[int, int]]:
        content = self._reach(database)
        return {table: (rows, content.edited.get(table, 0)) for table, rows in content.rows.items()}

    def columns(self, database: str) -> dict[str, list[str]]:
        self._reach(database)
        return {"public.observation": ["id"]}

    def sessions(self, database: str) -> list[Session]:
        self._reach()
        return []

    def activity(self, database: str) -> str:
        self._reach()
        return ""

    def moment(self) -> int:
        self._reach()
        return 7

    def mark(self) -> str:
        self._reach()
        return "7:7:"

    def prepared_transactions(self, database: str) -> list[str]:
        self._reach()
        return []

    def query(self, select: str, database: str = "") -> list[list[Any]]:
        if select != value_query._LAYOUT:
            raise unknown(select)
        self._reach(database)
        return []  # no table has a primary key: no values are compared

    def document(self, sql: str, database: str = "") -> str:
        if "'SELECT json_build_object(''columns''" not in sql:
            raise unknown(sql)
        columns = [["observation", name, "integer", True, False] for name in sorted(self._reach(database).columns)]
        return json.dumps({"columns": columns, "counts": []}) + "\n"

    # Changes

    def command(self, sql: str, database: str = "") -> None:
        if sql != "DROP TABLE IF EXISTS public.alembic_version;":
            raise unknown(sql)
        self._reach(database).rows.pop("public.alembic_version", None)

    def create(self, database: str, like: server.Database) -> None:
        with self._changing() as databases:
            assert database not in databases, f"{database} exists"
            databases[database] = Database({})

    def checkpoint(self) -> None:
        self._reach()

    def copy(self, database: str, to: str, owner: str) -> None:
        with self._changing(database) as databases:
            databases[to] = copy.deepcopy(databases[database])
            databases[database].closed = databases[to].closed = False

    def carry(self, database: str, to: str) -> None:
        with self._changing() as databases:
            databases[to].settings = databases[database].settings

    def rename(self, *pairs: tuple[str, str], carrying: tuple[str, str] | None = None) -> None:
        with self._changing(*(old for old, _ in pairs)) as databases:
            if carrying:
                databases[carrying[1]].settings = databases[carrying[0]].settings
            changed = dict(databases)
            for old, new in pairs:
                assert new not in changed, f"{new} exists"
                changed[new] = changed.pop(old)
            for _, new in pairs:
                changed[new].closed = False
            self.engine.databases = changed

    def drop(self, database: str) -> None:
        assert database != "chap_core", "the live database is never dropped"
        if self.exists(database):
            with self._changing(database) as databases:
                databases.pop(database)

    def empty(self, database: str) -> None:
        with self._changing(database) as databases:
            databases[database].closed = False

    def unwritten(self, database: str, mark: str) -> bool:
        self.empty(database)
        return self.engine.quiet and mark == self.mark()

    def allow_connections(self, *databases: str) -> None:
        with self._changing() as present:
            for name in {*databases} & {*present}:
                present[name].closed = False

    def end_own_sessions(self) -> None:
        self._reach()

    def _exclusively(self, databases: Sequence[str], sql: str) -> None:
        raise unknown(sql)

    def psql(self, sql: str, database: str = "") -> Any:
        raise unknown(sql)
