"""psql and the other tools of PostgreSQL in one container, as the administrator of its server."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from typing import Any

from compose_chap.engine.engine import Engine, Execution
from compose_chap.engine.process import Finished
from compose_chap.errors import DatabaseError
from compose_chap.postgres import reach
from compose_chap.postgres.reach import WITH_PASSWORD, Administrator, connection, first_error

# Every row comes as a line of JSON, in which no value can look like the end of something. This one is not JSON.
_NEXT_ANSWER = "--"

# What psql ends with when it got into no database.
_NOT_CONNECTED = 2


class Psql:
    """The tools in one container."""

    def __init__(self, engine: Engine, container: str, *likely: str) -> None:
        self.engine = engine
        self.container = container
        self._likely = likely

    @cached_property
    def _as(self) -> Administrator:
        return reach.administrator(self.engine, self.container, self._likely)

    @property
    def admin(self) -> str:
        """The role that the tools work as: one of the `likely` names or who the server says, a superuser if it can be.

        Raise DatabaseError when no role gets in.
        """
        return self._as.name

    @property
    def superuser(self) -> bool:
        """Whether that role may do everything; without it others' sessions are not ended, nor databases renamed."""
        return self._as.superuser

    @property
    def home(self) -> str:
        """The database that is asked where it does not matter which: `postgres`, or a template where that is gone."""
        return self._as.home

    @property
    def environment(self) -> dict[str, str]:
        """What a tool of PostgreSQL is run with, so that nobody's settings but ours hold for its session."""
        return {"PGOPTIONS": reach.settings(self._as.version)}

    def version(self) -> int:
        """Return the server's version as PostgreSQL numbers it: 170006 for 17.6."""
        return self._as.version

    def query(self, select: str, database: str = "") -> list[list[Any]]:
        """Return the rows of a query, values as JSON has them. Names without a schema are PostgreSQL's own.

        Without a `database` it is asked in one that is no one's. Raise DatabaseError with psql's words.
        """
        return self.answers(select, database=database)[0]

    def answers(self, *selects: str, database: str = "") -> list[list[list[Any]]]:
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

    def document(self, sql: str, database: str = "") -> str:
        """Run statements (psql's `\\gexec` included) that answer with one text, and return that."""
        return self._run(sql, database)

    def command(self, sql: str, database: str = "") -> None:
        """Run statements (psql's `\\gexec` included) that answer nothing. Raise DatabaseError with psql's words."""
        self._run(sql, database)

    def _run(self, sql: str, database: str) -> str:
        finished = self.psql(sql, database)
        if finished.status != 0:
            raise DatabaseError(f"PostgreSQL refused: {first_error(finished.stderr)}")
        return finished.stdout

    def ready(self) -> bool:
        """Whether the server answers queries now."""
        with suppress(DatabaseError):
            return self.psql("SELECT 1;").status == 0
        return False

    def tool(self, name: str, *arguments: str) -> Finished:
        """Run one of PostgreSQL's tools, ended when this process ends."""
        return self.engine.run(self.container, [*WITH_PASSWORD, name, *arguments])

    def session(self, database: str) -> AbstractContextManager[Execution]:
        """Run psql while a block runs; it reads SQL as it is sent, and writes a line for each row."""
        command = self._psql_command(database)
        return self.engine.execute(self.container, command, watched=False, environment=self.environment)

    def psql(self, sql: str, database: str = "") -> Finished:
        """Run SQL to its end and return what psql did."""
        done = self._psql(sql, database or self.home)
        # Where it is CHAP's own database that is called so, it may be away for a moment.
        if done.status == _NOT_CONNECTED and not database and '"postgres"' in done.stderr:
            done = self._psql(sql, "template1")
        return done

    def _psql(self, sql: str, database: str) -> Finished:
        command = self._psql_command(database)
        return self.engine.run(self.container, command, stdin=sql.encode(), environment=self.environment)

    def _psql_command(self, database: str) -> list[str]:
        options = ["-XqAtw", "-v", "ON_ERROR_STOP=1", "-U", self.admin]
        return [*WITH_PASSWORD, "psql", *options, "-d", connection(database)]


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
