"""How psql is called."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from compose_chap.errors import DatabaseError, StuckSessions
from compose_chap.postgres.psql import counted
from compose_chap.postgres.reach import connection
from compose_chap.postgres.server import Server
from compose_chap.processes.process import Finished

AS_ROOT = Finished(0, '[true, 170006, 5432, ["root"], null]\n', "")


class Open:
    """A psql that stays open: it lets `run` answer each question, and ends at an error."""

    def __init__(self, run: Callable[[bytes], Finished]) -> None:
        self._run, self._waiting = run, list[bytes]()
        self.stderr, self._status, self.closed = b"", 0, False

    def send(self, data: bytes) -> None:
        sql, _, rest = data.rpartition(b"\n;\n")
        done = self._run(sql)
        self.stderr, self._status = done.stderr.encode(), done.status
        end = rest.rpartition(b"\\echo ")[2]
        self._waiting = [done.stdout.encode()] + ([end[:5], end[5:]] if done.status == 0 else [])

    def output(self) -> Iterator[bytes]:
        while self._waiting:
            yield self._waiting.pop(0)

    def status(self) -> int:
        return self._status

    def __enter__(self) -> Open:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


class Answering:
    """An engine whose PostgreSQL knows some roles, each a superuser or not, and answers everything else alike."""

    def __init__(self, answer: str = "", version: int = 170006, home: str = "postgres", **roles: bool) -> None:
        self.answer, self.version, self.home = answer, version, home
        self.roles = roles or {"root": True}
        self.named = ""
        self.elsewhere: str | None = None
        self.sent: list[tuple[str, str, str]] = []
        self.options: list[str] = []
        self.opened: list[Open] = []

    def once(self, key: object, ask: Callable[[], Any]) -> Any:
        return ask()

    def run(
        self, container: str, command: Any, *, stdin: bytes = b"", environment: Mapping[str, str] | None = None
    ) -> Finished:
        if "psql" not in command:
            return Finished(0, self.named, "")
        role, database = (command[list(command).index(option) + 1] for option in ("-U", "-d"))
        self.options.append((environment or {})["PGOPTIONS"])
        if b"rolsuper" in stdin:
            if role not in self.roles:
                return Finished(2, "", f'FATAL:  role "{role}" does not exist')
            if database == "postgres" != self.home:
                return Finished(2, "", 'FATAL:  database "postgres" does not exist')
            known = [name for name, power in self.roles.items() if power]
            seen = [self.roles[role], self.version, 5432, known or None, self.elsewhere]
            return Finished(0, json.dumps(seen) + "\n", "")
        self.sent.append((role, database, stdin.decode()))
        return Finished(0, self.answer, "")

    def execute(self, container: str, command: Any, *, watched: bool, environment: Mapping[str, str]) -> Open:
        def run(sql: bytes) -> Finished:
            done = self.run(container, command, stdin=sql, environment=environment)
            self.options.pop()  # those of the session that is open
            return done

        self.options.append(environment["PGOPTIONS"])
        self.opened.append(Open(run))
        return self.opened[-1]


def server_with(engine: Answering, *likely: str) -> Server:
    return Server(engine, "db", *likely)  # type: ignore[arg-type]


ALWAYS = {
    *("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "default_transaction_read_only"),
    *("search_path", "role", "default_transaction_isolation", "default_transaction_deferrable", "exit_on_error"),
}


@pytest.mark.parametrize(
    ("version", "more"),
    [
        (170006, {"transaction_timeout", "idle_session_timeout"}),
        (160004, {"idle_session_timeout"}),
        (130000, set[str]()),
    ],
)
def test_what_others_set_for_every_session_does_not_hold_for_ours(version: int, more: set[str]) -> None:
    engine = Answering("{}\n", version)
    server = server_with(engine, "root")
    server.command("SELECT 1")
    server.answers("SELECT 1", "SELECT 2")
    server.ready()
    server.session("chap_core")
    assert len(engine.options) == 5
    named = [{part.partition("=")[0].strip() for part in options.split("-c ")[1:]} for options in engine.options]
    # A server refuses what it does not know, and which one it is is not known before it was asked.
    assert named == [ALWAYS] + [ALWAYS | more] * 4


@pytest.mark.parametrize(
    ("roles", "likely", "named", "admin", "superuser"),
    [
        ({"chap": True}, ("chap",), "", "chap", True),
        # Only POSTGRES_PASSWORD was given to the image, and CHAP has a role of its own.
        ({"chap": False, "postgres": True}, ("postgres", "chap"), "", "postgres", True),
        ({"chap": False, "boss": True}, ("postgres", "chap"), "", "boss", True),
        ({"filed": True}, ("postgres", "chap"), "filed\n\n", "filed", True),
        ({"chap": False, "filed": True}, ("nobody", "chap"), "filed\n", "filed", True),
        ({"chap": False}, ("postgres", "chap"), "", "chap", False),
    ],
)
def test_who_administers_a_server_is_asked(
    roles: dict[str, bool], likely: tuple[str, ...], named: str, admin: str, superuser: bool
) -> None:
    engine = Answering()
    engine.roles, engine.named = roles, named
    server = server_with(engine, *likely)
    assert (server.admin, server.superuser) == (admin, superuser)


def test_where_nobody_gets_in_the_first_refusal_is_shown() -> None:
    with pytest.raises(DatabaseError, match='role "postgres" does not exist'):
        _ = server_with(Answering(other=True), "postgres", "chap").admin


def test_a_container_without_psql_is_no_postgresql() -> None:
    engine: Any = SimpleNamespace(
        once=lambda _, ask: ask(), run=lambda *_, **__: Finished(127, "", "sh: 1: exec: psql: not found")
    )
    with pytest.raises(DatabaseError, match="no PostgreSQL in it") as refusal:
        Server(engine, "db", "postgres").query("SELECT 1")
    assert "pooler" in refusal.value.hint
    assert not Server(engine, "db", "postgres").ready()


@pytest.mark.parametrize(
    "stderr",
    [
        'psql: error: connection to server on socket "/tmp/.s.PGSQL.6432" failed: FATAL:  unsupported startup parameter'
        " in options: search_path",
        "psql: error: ... FATAL:  unsupported startup parameter: options",
    ],
)
def test_a_pooler_that_takes_no_settings_is_called_that(stderr: str) -> None:
    engine: Any = SimpleNamespace(once=lambda _, ask: ask(), run=lambda *_, **__: Finished(2, "", stderr))
    with pytest.raises(DatabaseError, match="is a connection pooler or a proxy.*unsupported startup") as refusal:
        Server(engine, "db", "postgres").query("SELECT 1")
    assert "CHAP_DATABASE_URL" in refusal.value.hint


def test_a_container_that_passes_on_to_a_server_elsewhere_is_no_server() -> None:
    engine = Answering()
    engine.elsewhere = "172.20.0.9"
    with pytest.raises(DatabaseError, match="pooler or a proxy: it passes connections on to a server at 172.20.0.9"):
        _ = server_with(engine, "root").admin


def test_where_no_server_listens_a_pooler_is_thought_of() -> None:
    stderr = 'psql: error: connection to server on socket "/tmp/.s.PGSQL.5432" failed: No such file or directory'
    engine: Any = SimpleNamespace(once=lambda _, ask: ask(), run=lambda *_, **__: Finished(2, "", stderr))
    with pytest.raises(DatabaseError, match="No such file") as refusal:
        Server(engine, "db", "postgres").query("SELECT 1")
    assert "still starting" in refusal.value.hint and "pooler" in refusal.value.hint


def test_a_server_without_a_database_called_postgres_is_asked_in_a_template() -> None:
    engine = Answering("", home="template1")
    server_with(engine, "root").command("SELECT 1")
    assert engine.sent == [("root", "dbname='template1'", "SELECT 1")]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("My Data", "dbname='My Data'"),
        ("a=b", "dbname='a=b'"),
        ("it's", r"dbname='it\'s'"),
        ("a\\b", r"dbname='a\\b'"),
    ],
)
def test_a_database_is_named_so_that_no_tool_reads_settings_in_it(name: str, written: str) -> None:
    assert connection(name) == written


@pytest.mark.parametrize("name", ["chap_core", "postgres"])
def test_nobody_gets_into_a_database_that_is_renamed_and_everybody_into_it_after(name: str) -> None:
    engine = Answering()
    server_with(engine, "root").rename((name, "kept"))
    ((_, database, sql),) = engine.sent
    assert database == ("dbname='template1'" if name == "postgres" else "dbname='postgres'")
    closed, ended = sql.index(f'"{name}" ALLOW_CONNECTIONS false'), sql.index("pg_terminate_backend")
    assert closed < ended < sql.index("BEGIN") < sql.index('"kept" ALLOW_CONNECTIONS true') < sql.index("COMMIT")


@pytest.mark.parametrize("value", ["a\x1fb", "\x1e", "\x1d", "--", "a\nb", "\u2028", "\x85", '"', None, 7, ""])
def test_no_value_is_taken_for_the_end_of_something(value: Any) -> None:
    def answer(stdin: bytes) -> Finished:
        # PostgreSQL escapes what JSON must have escaped, and no more. Columns without a name have all the same.
        text = json.dumps(value, ensure_ascii=False)
        row = f'{{"?column?":1,"?column?":{text}}}\n'
        return Finished(0, row * 2 + "--\n" * (b"\\echo" in stdin) + row * (b"\\echo" in stdin), "")

    engine = SimpleNamespace(
        run=lambda *_, **__: AS_ROOT, execute=lambda *_, **__: Open(answer), once=lambda _, ask: ask()
    )
    server = Server(engine, "db", "chap")  # type: ignore[arg-type]
    assert server.query("SELECT 1") == [[1, value]] * 2
    assert server.answers("SELECT 1", "SELECT 2") == [[[1, value]] * 2, [[1, value]]]
    name = json.dumps(str(value), ensure_ascii=False)
    assert counted(f"[{name}, 5]\n") == {str(value): 5}


@pytest.mark.parametrize("answer", ["1\n", '"a"\n', "{\n", "a|b\n"])
def test_an_answer_that_is_no_row_is_an_error(answer: str) -> None:
    server = server_with(Answering(answer), "root")
    with pytest.raises(DatabaseError, match="not JSON"):
        server.query("SELECT 1")


class Remembering(Answering):
    """The same, and what was asked once is known."""

    def __init__(self) -> None:
        super().__init__("[1]\n")
        self.known: dict[object, Any] = {}

    def once(self, key: object, ask: Callable[[], Any]) -> Any:
        if key not in self.known:
            self.known[key] = ask()
        return self.known[key]


def test_the_same_psql_answers_the_next_question() -> None:
    engine = Remembering()
    for _ in range(3):
        assert server_with(engine, "root").query("SELECT 1") == [[1]]
    server_with(engine, "root").query("SELECT 1", "chap_core")
    (opened,) = engine.opened
    # In between it is asked nothing, to see whether it is still connected.
    assert [bool(sql.strip()) for _, _, sql in engine.sent] == [True, False, True, False, True, True]
    assert not opened.closed
    server_with(engine, "root").disconnect()
    assert opened.closed


def test_a_psql_ends_at_an_error_and_the_next_question_gets_another() -> None:
    engine = Remembering()
    server, answer = server_with(engine, "root"), engine.run
    server.query("SELECT 1")

    def refuse(*words: Any, **more: Any) -> Finished:
        done = answer(*words, **more)
        return Finished(3, "", "ERROR:  no") if b"wrong" in more["stdin"] else done

    engine.run = refuse  # type: ignore[method-assign]
    with pytest.raises(DatabaseError, match="PostgreSQL refused: ERROR:  no"):
        server.command("wrong")
    assert engine.opened[0].closed
    assert server.query("SELECT 1") == [[1]]
    assert len(engine.opened) == 2 and not engine.opened[1].closed


def test_a_psql_that_lost_its_connection_is_not_asked_again() -> None:
    engine = Remembering()
    server, answer = server_with(engine, "root"), engine.run
    server.query("SELECT 1")

    def restarted(*words: Any, **more: Any) -> Finished:
        engine.run = answer  # type: ignore[method-assign]
        answer(*words, **more)
        return Finished(2, "", "FATAL:  terminating connection due to administrator command")

    engine.run = restarted  # type: ignore[method-assign]
    assert server.query("SELECT 2") == [[1]]
    assert [opened.closed for opened in engine.opened] == [True, False]
    assert [sql for _, _, sql in engine.sent if "SELECT 2" in sql] == [engine.sent[-1][2]]


class Copying(Server):
    """A server of which only the SQL of its copies is seen; the first of them fail with these errors."""

    def __init__(self, version: int, *errors: DatabaseError) -> None:
        self._version, self._errors, self.ran = version, list(errors), list[str]()

    def version(self) -> int:
        return self._version

    def _exclusively(self, databases: Sequence[str], sql: str) -> None:
        self.ran.append(sql)
        if self._errors:
            raise self._errors.pop(0)


def test_a_copy_is_a_clone_where_postgresql_can() -> None:
    cannot = DatabaseError('PostgreSQL refused: could not clone file "base/1/2": Operation not supported')
    for server, clones in (
        (Copying(170006), [False]),
        (Copying(180006), [True]),
        (Copying(180006, cannot), [True, False]),  # this system cannot clone, and does not copy instead
    ):
        server.copy("chap_core", "kept", "chap")
        assert ["SET file_copy_method = clone" in sql for sql in server.ran] == clones
        assert all("FILE_COPY" in sql for sql in server.ran)
    for version, errors in ((180006, [cannot, cannot]), (170006, [cannot]), (180006, [StuckSessions("held")])):
        server = Copying(version, *errors)
        with pytest.raises(DatabaseError):
            server.copy("chap_core", "kept", "chap")
        assert len(server.ran) == len(errors)
