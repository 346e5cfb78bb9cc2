"""psql and the other tools of PostgreSQL in one container, as the administrator of its server."""

from __future__ import annotations

import json
import secrets
import weakref
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from typing import Any

from compose_chap import timeline
from compose_chap.engine.engine import Engine
from compose_chap.engine.execution import Execution
from compose_chap.errors import DatabaseError, EngineError
from compose_chap.postgres import reach
from compose_chap.postgres.reach import WITH_PASSWORD, Administrator, connection, first_error
from compose_chap.processes.process import Finished

# Every row is a line of JSON, so no value can look like this separator, which is not JSON.
_NEXT_ANSWER = "--"

_LONGEST_ANSWER = 64 << 20
# What a question changed for its session must not hold for the next one.
_AS_NEW = "RESET SESSION AUTHORIZATION; RESET ALL;"

# psql's exit status when it cannot connect.
_NOT_CONNECTED = 2


class Psql:
    """PostgreSQL's tools in one container."""

    def __init__(self, engine: Engine, container: str, *likely: str) -> None:
        self.engine = engine
        self.container = container
        self._likely = likely

    @cached_property
    def _as(self) -> Administrator:
        key = ("administrator", self.container, self._likely)
        return self.engine.once(key, lambda: reach.administrator(self.engine, self.container, self._likely))

    @property
    def admin(self) -> str:
        """The role that the tools connect as: a `likely` name or one the server lists, a superuser where possible.

        Raise DatabaseError when no role can connect.
        """
        return self._as.name

    @property
    def superuser(self) -> bool:
        """Whether that role is a superuser, who may end others' sessions and rename databases."""
        return self._as.superuser

    @property
    def port(self) -> int:
        """The port at which the server listens in its container."""
        return self._as.port

    @property
    def home(self) -> str:
        """The database for queries that could run in any: `postgres`, or a template where that is missing."""
        return self._as.home

    @property
    def environment(self) -> dict[str, str]:
        """The environment of PostgreSQL's tools, so that only our own settings apply to their sessions."""
        return {"PGOPTIONS": reach.session_settings(self._as.version)}

    def version(self) -> int:
        """Return the server's version as PostgreSQL numbers it: 170006 for 17.6."""
        return self._as.version

    def query(self, select: str, database: str = "") -> list[list[Any]]:
        """Return the rows of a query, values as in JSON. Names without a schema are PostgreSQL's own.

        Without a `database` it runs in `home`. Raise DatabaseError with psql's message.
        """
        return self.answers(select, database=database)[0]

    def answers(self, *selects: str, database: str = "") -> list[list[list[Any]]]:
        """Return the rows of each of several queries in a single call: starting a program in a container is slow."""
        questions = (f"SELECT row_to_json(answer) FROM (\n{select}\n) AS answer;\n" for select in selects)
        # Split at line feeds only: JSON may contain other line ends.
        lines = self._run(f"\\echo {_NEXT_ANSWER}\n".join(questions), database).split("\n")[:-1]
        answers: list[list[list[Any]]] = [[]]
        for line in lines:
            if line == _NEXT_ANSWER:
                answers.append([])
            else:
                answers[-1].append(_row(line))
        return answers

    def document(self, sql: str, database: str = "") -> str:
        """Run statements (psql's `\\gexec` included) and return their output as text."""
        return self._run(sql, database)

    def command(self, sql: str, database: str = "") -> None:
        """Run statements (psql's `\\gexec` included) without output. Raise DatabaseError with psql's message."""
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
        """Run psql while the block runs; it reads SQL as it is sent, and writes a line for each row."""
        command = self._psql_command(database)
        return self.engine.execute(self.container, command, watched=False, environment=self.environment)

    def psql(self, sql: str, database: str = "") -> Finished:
        """Run SQL to its end and return psql's status and output."""
        done = self._psql(sql, database) if database else self._at_home(sql)
        # CHAP's own database may be called `postgres`, and be renamed for a moment.
        if done.status == _NOT_CONNECTED and not database and '"postgres"' in done.stderr:
            done = self._psql(sql, "template1")
        return done

    def disconnect(self) -> None:
        """End every psql that is left open. Otherwise they end with this process."""
        while self._idle:
            self._idle.pop().close()

    @property
    def _idle(self) -> list[_OpenPsql]:
        key = ("psql", self.container, self.admin, self.home)
        return self.engine.once(key, list[_OpenPsql])

    def _at_home(self, sql: str) -> Finished:
        """Run SQL in `home`, in a psql that another question has left open, if there is one."""
        # No psql stays open in CHAP's own database: that would be in the way when it is copied or renamed.
        opened = _usable(self._idle) or _OpenPsql(self.session(self.home))
        done = opened.ask(sql)
        if not opened.ended:
            self._idle.append(opened)
        return done

    def _psql(self, sql: str, database: str) -> Finished:
        command = self._psql_command(database)
        return self.engine.run(self.container, command, stdin=sql.encode(), environment=self.environment)

    def _psql_command(self, database: str) -> list[str]:
        options = ["-XqAtw", "-v", "ON_ERROR_STOP=1", "-U", self.admin]
        return [*WITH_PASSWORD, "psql", *options, "-d", connection(database)]


class _OpenPsql:
    """A psql that stays open for several questions: to start a program in a container takes longer than most answers.

    At the first error it ends; when this process ends, so does it.
    """

    def __init__(self, process: AbstractContextManager[Execution]) -> None:
        self._execution = process.__enter__()
        # At the latest when this process ends, and in order: not when the rest of it is gone already.
        self._end_process = weakref.finalize(self, process.__exit__, None, None, None)
        self._output = self._execution.output()
        # Nobody can make an answer that looks like this line.
        self._end = f"docker-chap-{secrets.token_hex(16)}"
        self.ended = False

    def ask(self, sql: str) -> Finished:
        """Run SQL and return its output. Afterwards `ended` says whether psql has ended, as it does at an error."""
        with timeline.during("question", "psql"):
            try:
                return self._ask(sql)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """End psql, also in the middle of an answer."""
        self.ended = True
        self._end_process()

    def _ask(self, sql: str) -> Finished:
        self._execution.stderr = b""
        self._execution.send(f"{sql}\n;\n{_AS_NEW}\n\\echo {self._end}\n".encode())
        last, text = f"{self._end}\n".encode(), bytearray()
        for data in self._output:
            text += data
            if len(text) > _LONGEST_ANSWER:
                raise EngineError("PostgreSQL wrote far too much.")
            if text.endswith(last):
                return Finished(0, text[: -len(last)].decode(errors="replace"), "")
        status, stderr = self._execution.status(), self._execution.stderr.decode(errors="replace")
        self.close()
        # One that ended without an error did so before it came to the end of the question.
        if status == 0:
            raise EngineError("The connection to the Docker engine was lost while a command ran in a container.")
        return Finished(status, text.decode(errors="replace"), stderr)


def _usable(idle: list[_OpenPsql]) -> _OpenPsql | None:
    """Return an open psql, None where there is none: it may have been ended, as by a restart of the server."""
    with suppress(IndexError, EngineError):
        opened = idle.pop()
        return opened if opened.ask("").status == 0 else None
    return None


def _row(line: str) -> list[Any]:
    # Columns may lack a name, and two may have the same.
    try:
        row = json.loads(line, object_pairs_hook=lambda pairs: [value for _, value in pairs])
        if isinstance(row, list):
            return row
    except ValueError:
        pass
    raise DatabaseError(f"PostgreSQL's answer is not JSON: {line[:80]!r}.")


def counted(text: str) -> dict[str, int]:
    """Return the rows of each table, from psql's answer to COUNT."""
    return {str(name): int(rows) for name, rows in map(_row, text.split("\n")[:-1])}
