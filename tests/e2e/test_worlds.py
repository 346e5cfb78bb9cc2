"""Worlds that are odd and right all the same: everything works there, or is refused before anything begins."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.archives import huge
from tests.e2e.calls import chap, until
from tests.e2e.faults import Picture, Run, assert_new, assert_old
from tests.sample.stack import SampleStack, engine

LIVE = 'Ärzte "ohne" Grenzen = données de santé'
QUOTED = '"' + LIVE.replace('"', '""') + '"'
WRITTEN = LIVE.replace('"', '\\"')
SITE = f"""
services:
  chap: &chap
    links: ["chap-postgres:pg"]
    environment: &url
      CHAP_DATABASE_URL: "postgresql://chap:chap@pg:5433/{WRITTEN}"
  chap-worker: *chap
  chap-postgres:
    command: ["postgres", "-p", "5433", "-c", "max_prepared_transactions=5"]
    environment: !override {{POSTGRES_PASSWORD: never-seen}}
    volumes: ["./first.sql:/docker-entrypoint-initdb.d/first.sql:ro"]
    healthcheck:
      test: ["CMD", "pg_isready", "-h", "127.0.0.1", "-p", "5433"]
"""
# What any of these does to a session of ours, it must not. CHAP's own role has other values for what would stop it.
LIMITS = (
    *("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"),
    "idle_session_timeout",
)
ODD_VALUES = {
    **dict.fromkeys(LIMITS, "1ms"),
    **{"default_transaction_read_only": "on", "default_transaction_isolation": "serializable", "row_security": "off"},
    **{"standard_conforming_strings": "off", "quote_all_identifiers": "on", "extra_float_digits": "-15"},
    **{"datestyle": "German", "intervalstyle": "sql_standard", "bytea_output": "escape", "timezone": "Asia/Kathmandu"},
    **{"default_text_search_config": "german", "enable_seqscan": "off"},
    **{"client_min_messages": "debug1", "temp_file_limit": "100MB", "check_function_bodies": "off"},
}
SETTINGS = "\n".join(
    f"ALTER DATABASE {QUOTED} SET {name} = '{value}';\nALTER ROLE postgres IN DATABASE {QUOTED} SET {name} = '{value}';"
    for name, value in ODD_VALUES.items()
)
UNLIMITED = "\n".join(f"ALTER ROLE chap SET {name} = 0;" for name in LIMITS)
FIRST = f"""
CREATE ROLE chap LOGIN PASSWORD 'chap';
{UNLIMITED}
ALTER ROLE chap SET default_transaction_read_only = off;
ALTER ROLE chap SET default_transaction_isolation = "read committed";
ALTER ROLE chap SET standard_conforming_strings = on;
CREATE DATABASE {QUOTED} OWNER chap;
{SETTINGS}
ALTER ROLE postgres SET default_transaction_read_only = on;
ALTER ROLE postgres SET search_path = nowhere;
ALTER ROLE postgres IN DATABASE postgres SET statement_timeout = '1ms';
ALTER SYSTEM SET statement_timeout = '20ms';
ALTER SYSTEM SET transaction_timeout = '1s';
ALTER SYSTEM SET idle_in_transaction_session_timeout = '10ms';
ALTER SYSTEM SET idle_session_timeout = '50ms';
UPDATE pg_database SET datcollversion = '1.0' WHERE datname = '{LIVE}';
"""
QUIET = " ".join(
    f"-c {setting}"
    for setting in (
        *("statement_timeout=0", "transaction_timeout=0", "lock_timeout=0", "search_path=public"),
        *("idle_session_timeout=0", "idle_in_transaction_session_timeout=0", "standard_conforming_strings=on"),
        *("client_min_messages=notice", "datestyle=ISO", "extra_float_digits=1"),
    )
)


class OddStack(SampleStack):
    """A stack whose database's container needs a port and settings to be asked."""

    def inside(self, *words: str) -> bytes:
        options = f"{QUIET} -c default_transaction_read_only=off"
        named = [f"dbname='{LIVE}'" if word == LIVE else word for word in words]
        return super().inside("env", "PGPORT=5433", f"PGOPTIONS={options}", *named)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """Give a stack with an odd name for everything, in a folder with a comma."""
    made = SampleStack.create(
        tmp_path_factory.mktemp("odd") / "chap,prod,/x",
        settings={"COMPOSE_REMOVE_ORPHANS": "true", "COMPOSE_STATUS_STDOUT": "1", "COMPOSE_PROGRESS": "json"},
    )
    stack = OddStack(**vars(made))
    stack.files.append(stack.folder / "compose.site.yml")
    stack.files[1].write_text(SITE)
    (stack.folder / "first.sql").write_text(FIRST)
    stack.user, stack.database = "postgres", LIVE
    try:
        stack.up()
        stack.fill(rows=2_000)
        lost = stack.folder / "lost.yml"
        lost.write_text("services: {lost: {image: docker-chap-test/valkey:8}}")
        stack.compose("-f", lost.name, "up", "-d", "--no-deps", "lost", environ={"COMPOSE_REMOVE_ORPHANS": "false"})
        lost.unlink()
        yield stack
    finally:
        stack.down()


@contextmanager
def clients_that_come_again(stack: SampleStack, number: int = 40) -> Iterator[None]:
    """Have sessions in the live database that each come back as soon as they are ended."""
    script = (
        "rm -f /var/tmp/leave; for n in $(seq $1); do (while [ ! -e /var/tmp/leave ]; do"
        ' PGOPTIONS= psql -p 5433 -U chap -d "$2" -c "SELECT pg_sleep(600)" >/dev/null 2>&1; sleep 0.1; done) & done;'
        " wait"
    )
    container = engine().containers.get(stack.containers()[stack.database_service]["id"])
    container.exec_run(["sh", "-c", script, "sh", str(number), f"dbname='{LIVE}'"], detach=True)
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)'"
    until(lambda: int(stack.sql(query, "postgres")[0][0]) >= number, 60)
    try:
        yield
    finally:
        stack.inside("touch", "/var/tmp/leave")
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)'"
        stack.sql(ended, "postgres")


def open_databases(stack: SampleStack) -> bool:
    """Whether every database of the server lets people in."""
    closed = "SELECT 1 FROM pg_database WHERE NOT datallowconn AND NOT datistemplate"
    return not stack.sql(closed, "postgres")


@pytest.mark.torture
def test_upgrade_and_rollback_with_odd_names(odd: SampleStack) -> None:
    before, lost = Picture.of(odd), odd.containers()["lost"]
    checks = {check["name"]: check for check in chap(odd, "check", "v2.1.0")["checks"]}
    assert not [name for name, check in checks.items() if check["status"] in ("fail", "error")], checks
    assert "another version of the C library" in checks["database"]["message"]
    # A copy keeps that version, so that PostgreSQL makes it: the plan says so before, and the run does so.
    assert "copies it inside the server anyway" in checks["database"]["message"]
    assert chap(odd, "upgrade", "v2.1.0", "--dry-run")["plan"]["keep"] == "copy"
    versions = "SELECT datcollversion FROM pg_database WHERE datname IN ('{}', '{}') GROUP BY 1"

    backup = chap(odd, "backup")["backup"]["id"]
    with clients_that_come_again(odd):
        run = Run(odd, "upgrade", "v2.1.0", "--yes")
        assert run.end() == 0, run.stdout + run.stderr[-3000:]
        # A copy, which comes back by its name, and not a dump.
        kept = run.document["kept_database"]
        assert kept in odd.databases() and len(f"{kept}_failed".encode()) <= 63
        assert odd.sql(versions.format(LIVE, kept), "postgres") == [["1.0"]]
        assert_new(odd, before, "v2.1.0")
        assert open_databases(odd)

        back = Run(odd, "rollback", "--yes")
        assert back.end() == 0, back.stdout + back.stderr[-3000:]
    assert_old(odd, before)

    run = Run(odd, "upgrade", "v2.1.5", "--yes")
    assert run.end() == 3, run.stdout + run.stderr[-3000:]
    assert_old(odd, before)
    restored = Run(odd, "restore", backup, "--yes")
    assert restored.end() == 0, restored.stdout + restored.stderr[-3000:]
    assert_old(odd, before)
    assert open_databases(odd)
    assert odd.containers()["lost"] == lost
    chap(odd, "rehearse", "v2.1.0")


@pytest.mark.torture
def test_a_run_that_is_killed_while_nobody_is_let_in_lets_everybody_in_again(odd: SampleStack) -> None:
    before = Picture.of(odd)

    def kill_when_closed(run: Run) -> None:
        until(lambda: not open_databases(odd) or run.process.poll() is not None, 60)
        run.signal(signal.SIGKILL)

    with stopped_session(odd):
        run = Run(odd, "upgrade", "v2.1.0", "--yes", at="keep", hit=kill_when_closed)
        assert run.end() == -signal.SIGKILL
        assert not open_databases(odd)
    recovered = Run(odd, "recover")
    assert recovered.end() == 0, recovered.stdout + recovered.stderr[-3000:]
    assert open_databases(odd)
    assert_old(odd, before)


@contextmanager
def stopped_session(stack: SampleStack) -> Iterator[None]:
    """Have a session in the live database that does not end, whatever it is told."""
    container = engine().containers.get(stack.containers()[stack.database_service]["id"])
    command = f"PGOPTIONS='{QUIET}' psql -p 5433 -U chap -d \"$1\" -c 'SELECT pg_sleep(601)'"
    container.exec_run(["sh", "-c", command, "sh", f"dbname='{LIVE}'"], detach=True)
    query = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(601)' AND pid <> pg_backend_pid()"
    until(lambda: bool(stack.sql(query, "postgres")))
    ((pid,),) = stack.sql(query, "postgres")
    stack.inside("sh", "-c", f"kill -STOP {pid}")
    try:
        yield
    finally:
        stack.inside("sh", "-c", f"kill -CONT {pid}; kill -TERM {pid}")
        until(lambda: not stack.sql(query, "postgres"))


@pytest.mark.torture
def test_where_a_session_does_not_end_nothing_is_changed(odd: SampleStack) -> None:
    before = Picture.of(odd)
    with stopped_session(odd):
        run = Run(odd, "upgrade", "v2.1.0", "--yes")
        assert run.end() == 3, run.stdout + run.stderr[-3000:]
        error = run.document["error"]
        assert "do not end" in error["message"], error
    assert open_databases(odd)
    assert_old(odd, before)


def refused(stack: SampleStack, match: str) -> None:
    """Look that every command that would change something says no at once, and leaves no run open."""
    before = Picture.of(stack)
    backups = chap(stack, "backup")["backup"]["id"]
    checks = {check["name"]: check for check in chap(stack, "check", expect=1)["checks"]}
    assert re.search(match, checks["database"]["message"]), checks["database"]
    for words in (("upgrade", "v2.1.0"), ("restore", backups)):
        error = chap(stack, *words, "--yes", expect=1)["error"]
        assert re.search(match, error["message"]), error
    assert not (stack.folder / ".docker-chap" / "journal.json").exists()
    assert_old(stack, before)


def test_prepared_transactions_are_seen_before_anything_begins(odd: SampleStack) -> None:
    odd.sql("BEGIN; SELECT txid_current(); PREPARE TRANSACTION 'it stays'")
    try:
        refused(odd, "it stays of postgres")
    finally:
        odd.sql("ROLLBACK PREPARED 'it stays'")


@pytest.mark.torture
def test_a_dump_leaves_no_prepared_transaction_behind(odd: SampleStack) -> None:
    before = Picture.of(odd)
    harm = " BEGIN; CREATE TABLE public.harm (); PREPARE TRANSACTION 'it stays'; SELECT 1/0"
    for number, statements in enumerate((harm.partition("; SELECT")[0], harm)):
        dump = odd.folder / f"harm{number}.dump"
        dump.write_bytes(b"".join(huge(1, then=f"{statements};")))
        error = chap(odd, "restore", dump.name, "--yes", "--allow-empty", expect=1)["error"]
        assert "PREPARED TRANSACTION" in error["message"] or "division by zero" in error["message"], error
        assert not odd.sql("SELECT gid FROM pg_prepared_xacts", "postgres")
        assert_old(odd, before)


def test_without_a_superuser_nothing_begins(odd: SampleStack) -> None:
    # The first superuser stays one, but may have another name. All that are there are not let in.
    rules = "/var/lib/postgresql/data/pg_hba.conf"
    odd.sql("CREATE ROLE spare SUPERUSER LOGIN", "postgres")
    try:
        odd.user = "spare"
        odd.sql("ALTER ROLE postgres RENAME TO boss; CREATE ROLE postgres LOGIN; GRANT chap TO postgres", "postgres")
        odd.user = "postgres"
        odd.inside("sh", "-c", f"sed -i '1i local all boss,spare reject' {rules}; kill -HUP 1")
        refused(odd, "This tool needs a superuser of PostgreSQL, and 'postgres' is not one")
    finally:
        odd.inside("sh", "-c", f"sed -i '/boss,spare/d' {rules}; kill -HUP 1")
        odd.user = "spare"
        until(lambda: bool(odd.sql("SELECT 1", "postgres")))
        odd.sql("DROP ROLE postgres; ALTER ROLE boss RENAME TO postgres", "postgres")
        odd.user = "postgres"
        odd.sql("DROP ROLE spare", "postgres")
    assert chap(odd, "check")["ok"]


HOOKS = """
services:
  chap-worker:
    pre_stop: [{command: ["sh", "-c", "echo $$WHY >> /data/runs/stops"], environment: {WHY: "one more"}}]
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """Give a stack whose database is called postgres, whose worker has a hook, and beside it a folder called .env."""
    stack = SampleStack.create(tmp_path_factory.mktemp("plain"), settings={"CHAP_DB_NAME": "postgres"})
    values = dict(line.split("=", 1) for line in (stack.folder / ".env").read_text().splitlines())
    (stack.folder / ".env").unlink()
    (stack.folder / ".env").mkdir()
    text = stack.files[0].read_text()
    for name, value in values.items():
        text = re.sub(rf"\$\{{{name}[^}}]*\}}", value, text)
    stack.files[0].write_text(f"name: {stack.project}\n{text}")
    stack.files.append(stack.folder / "compose.hooks.yml")
    stack.files[1].write_text(HOOKS)
    try:
        stack.up()
        stack.fill(rows=2_000)
        yield stack
    finally:
        stack.down()


def stops(stack: SampleStack) -> int:
    """Return how often the worker's hook was run."""
    container = engine().containers.get(stack.containers()[stack.worker_service]["id"])
    message: Any = container.exec_run(["sh", "-c", "cat /data/runs/stops 2>/dev/null"]).output
    return int(message.decode().splitlines().count("one more"))


@pytest.mark.torture
def test_upgrade_and_rollback_of_a_database_called_postgres(plain: SampleStack) -> None:
    before = Picture.of(plain)
    run = Run(plain, "upgrade", "v2.1.0", "--yes")
    assert run.end() == 0, run.stdout + run.stderr[-3000:]
    assert run.document["kept_database"].startswith("postgres_before_")
    assert_new(plain, before, "v2.1.0")
    assert stops(plain) == 1
    back = Run(plain, "rollback", "--yes")
    assert back.end() == 0, back.stdout + back.stderr[-3000:]
    assert_old(plain, before)
    run = Run(plain, "upgrade", "v2.1.5", "--yes")
    assert run.end() == 3, run.stdout + run.stderr[-3000:]
    assert_old(plain, before)
    restored = Run(plain, "restore", "latest", "--yes")
    assert restored.end() == 0, restored.stdout + restored.stderr[-3000:]
    assert_old(plain, before)


@pytest.mark.torture
@pytest.mark.parametrize("changed", [False, True])
def test_a_row_that_was_changed_through_a_sick_version_is_kept_aside(plain: SampleStack, changed: bool) -> None:
    before, databases = Picture.of(plain), set(plain.databases())
    run: Any = None

    def edit(run: Run) -> None:
        if not changed:
            return
        # What is written before the run has seen the first answer cannot be told from what CHAP writes at its start.
        journal = plain.folder / ".docker-chap" / "journal.json"
        until(lambda: bool(json.loads(journal.read_text())["facts"].get("answered")), 300)
        plain.sql("UPDATE observation SET value = value + 1 WHERE id = (SELECT min(id) FROM observation)")

    run = Run(plain, "upgrade", "v2.1.2", "--yes", "--wait", "15", at="verify api", hit=edit)
    assert run.end() == 3, run.stdout + run.stderr[-3000:]
    assert_old(plain, before)
    aside = [name for name in plain.databases() if name.endswith("_failed") and name not in databases]
    assert len(aside) == changed
    if not changed:
        return
    assert "what was written in the meantime" in json.dumps(run.document).lower()
    query = "SELECT value FROM observation ORDER BY id LIMIT 1"
    assert float(plain.sql(query, aside[0])[0][0]) == float(plain.sql(query)[0][0]) + 1
