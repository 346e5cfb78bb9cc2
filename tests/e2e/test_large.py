"""What matters where a database is large: how fast it is copied, and how to do without a copy."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compose_chap.engine.engine import Engine
from compose_chap.postgres.copy_speed import copied_per_second
from compose_chap.postgres.server import Server
from tests.e2e.calls import chap
from tests.e2e.conftest import running
from tests.e2e.faults import Picture, Run, assert_new, assert_old
from tests.sample.stack import SampleStack, environment

TEMPORARY = 'find "$PGDATA/" -path "*pgsql_tmp*" -type f'
FILLER = "CREATE TABLE filler AS SELECT g, repeat(md5(g::text), 20) AS t FROM generate_series(1, 60000) g"


@pytest.fixture(autouse=True)
def engine_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


def server_of(stack: SampleStack) -> Server:
    return Server(Engine(), stack.containers()[stack.database_service]["id"], stack.user)


def wait_until(what: Callable[[], bool]) -> None:
    for _ in range(200):
        if what():
            return
        time.sleep(0.05)
    pytest.fail("It never came.")


def test_the_speed_of_a_copy_is_measured_and_nothing_is_left(small: SampleStack) -> None:
    server = server_of(small)
    assert copied_per_second(server, small.database) == 0  # its largest file is too small to say
    small.sql(FILLER)
    assert 1e6 < copied_per_second(server, small.database) < 1e11
    assert small.inside("sh", "-c", TEMPORARY) == b""
    # PostgreSQL can use the folder that was made for it.
    small.sql("SET work_mem = '64kB'; SELECT t FROM filler ORDER BY t DESC LIMIT 1")
    small.sql("DROP TABLE filler")


def test_a_database_without_a_collation_version_is_copied(small: SampleStack) -> None:
    # As every one is on Alpine, and everywhere those of the locales C and C.UTF-8.
    server = server_of(small)
    small.sql("CREATE DATABASE plain TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'", "postgres")
    server.copy("plain", "copied", small.user)
    assert {"plain", "copied"} <= {*small.databases()}
    for name in ("plain", "copied"):
        server.drop(name)


@pytest.mark.torture
def test_a_measurement_that_cannot_be_made_says_so(small: SampleStack) -> None:
    server = server_of(small)
    small.sql(FILLER)
    assert copied_per_second(server, "missing") == 0
    # A disk that nobody may write to: the folder is there, and is not PostgreSQL's.
    small.inside("sh", "-c", 'rm -rf "$PGDATA/base/pgsql_tmp" && mkdir -m 500 "$PGDATA/base/pgsql_tmp"')
    try:
        assert copied_per_second(server, small.database) == 0
    finally:
        small.inside("sh", "-c", 'rm -rf "$PGDATA/base/pgsql_tmp"')
    small.sql("DROP TABLE filler")


@pytest.mark.torture
def test_it_is_measured_where_the_database_has_its_tablespace(small: SampleStack) -> None:
    small.inside("sh", "-c", 'mkdir "$PGDATA/../apart" && chown postgres "$PGDATA/../apart"')
    small.sql("CREATE TABLESPACE apart LOCATION '/var/lib/postgresql/apart'")
    small.sql(FILLER.replace(" AS SELECT", " TABLESPACE apart AS SELECT"))
    assert copied_per_second(server_of(small), small.database) > 0
    made = small.inside("sh", "-c", 'find "$PGDATA/../apart" -name pgsql_tmp -user postgres').decode()
    assert made.count("\n") == 1
    small.sql("DROP TABLE filler")
    small.sql("DROP TABLESPACE apart")


@pytest.mark.torture
def test_a_measurement_that_is_killed_leaves_nothing_and_no_session_is_lost(small: SampleStack) -> None:
    server = server_of(small)
    small.sql(FILLER)
    # A disk so slow that it can be killed in the middle.
    small.inside("sh", "-c", "mv /bin/dd /bin/dd.real && printf '#!/bin/sh\\n/bin/dd.real \"$@\"; sleep 1\\n' >/bin/dd")
    small.inside("chmod", "755", "/bin/dd")
    sessions = "SELECT pg_postmaster_start_time(), count(*) FROM pg_stat_activity WHERE usename = 'chap'"
    began = small.sql(sessions)
    script = (
        "import sys; from compose_chap.engine.engine import Engine; from compose_chap.postgres.server import Server;"
        "from compose_chap.postgres.copy_speed import copied_per_second as measured;"
        "measured(Server(Engine(), sys.argv[1], sys.argv[2]), sys.argv[3])"
    )
    words = [sys.executable, "-c", script, server.container, small.user, small.database]
    child = subprocess.Popen(words, env=environment() | {"PYTHONPATH": os.getcwd()})
    try:
        wait_until(lambda: small.inside("sh", "-c", TEMPORARY) != b"")
        child.kill()
        child.wait()
        wait_until(lambda: small.inside("sh", "-c", TEMPORARY) == b"")
    finally:
        small.inside("mv", "/bin/dd.real", "/bin/dd")
    time.sleep(2)  # its orphans have ended
    assert (
        small.sql("SELECT pg_postmaster_start_time(), count(*) FROM pg_stat_activity WHERE usename = 'chap'") == began
    )
    small.sql("DROP TABLE filler")


@pytest.fixture
def quiet(small: SampleStack) -> Iterator[SampleStack]:
    """A stack in whose database nobody writes, and PostgreSQL itself does not either."""
    small.sql("ALTER SYSTEM SET autovacuum = off", "postgres")
    small.sql("SELECT pg_reload_conf()", "postgres")
    yield small
    small.sql("ALTER SYSTEM RESET autovacuum", "postgres")
    small.sql("SELECT pg_reload_conf()", "postgres")


@contextmanager
def somebody_who_writes(stack: SampleStack) -> Iterator[None]:
    """Write a row a few times a second, to a database that is not CHAP's."""
    stack.sql("CREATE TABLE IF NOT EXISTS written (moment timestamptz)", "postgres")
    over = threading.Event()

    def write() -> None:
        while not over.wait(0.2):
            stack.sql("INSERT INTO written VALUES (now())", "postgres")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        stack.sql("DROP TABLE written", "postgres")


def test_an_upgrade_without_a_copy_is_undone_from_the_backup(quiet: SampleStack) -> None:
    before = Picture.of(quiet)
    run = Run(quiet, "upgrade", "v2.1.5", "--no-copy", "--yes")  # loses rows
    assert run.end() == 3, run.stdout + run.stderr[-3000:]
    record = chap(quiet, "history")["runs"][-1]
    assert record["facts"]["kept_dump"] == record["facts"]["backup"] and record["facts"]["data_came_back"]
    assert_old(quiet, before)


@pytest.mark.torture
def test_an_upgrade_without_a_copy_is_gone_back_from_by_a_restore(quiet: SampleStack) -> None:
    before = Picture.of(quiet)
    plan = chap(quiet, "upgrade", "v2.1.0", "--no-copy", "--dry-run")["plan"]
    assert plan["keep"] == "backup" and plan["expected_downtime_seconds"] == plan["expected_seconds"]["rest"]
    done = chap(quiet, "upgrade", "v2.1.0", "--no-copy", "--yes")
    assert done["kept_database"] == ""
    assert_new(quiet, before, "v2.1.0")
    identity = Path(done["backup"]).name
    message = chap(quiet, "rollback", "--yes", expect=1)["error"]
    assert f"docker chap restore {done['backup']} --with-version" in message["hint"]
    chap(quiet, "restore", identity, "--with-version", "--yes")
    before.databases = []
    assert_old(quiet, before)


@pytest.mark.torture
def test_a_copy_is_made_after_all_where_something_was_written(quiet: SampleStack) -> None:
    before = Picture.of(quiet)
    with somebody_who_writes(quiet):
        run = Run(quiet, "upgrade", "v2.1.0", "--no-copy", "--yes")
        assert run.end() == 0, run.stdout + run.stderr[-3000:]
    assert "something was written since the backup began, so a copy is made" in run.stderr
    assert run.document["kept_database"] in quiet.databases()
    chap(quiet, "rollback", "--yes")
    before.databases = []
    assert_old(quiet, before)


# Of the suite that is being made, a mirror may have a copy that is some weeks old. Its C library has no other locales.
POSTGRES_18 = """\
FROM docker-chap-test/postgres:17
RUN cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | sed 's/trixie/forky/g' >/tmp/forky \\
 && mv /tmp/forky /etc/apt/sources.list.d/forky.list \\
 && apt-get -o Acquire::Check-Valid-Until=false update \\
 && mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \\
 && apt-get install -y --no-install-recommends -t forky postgresql-18
ENV PATH=/usr/lib/postgresql/18/bin:$PATH LANG=C.UTF-8 PG_MAJOR=18
LABEL docker-chap.test=1
"""


@pytest.mark.torture
def test_postgresql_18_clones_what_it_can_and_copies_the_rest(tmp_path: Path) -> None:
    image = "docker-chap-test/postgres:18"
    build = ["docker", "build", "-q", "-t", image, "-"]
    subprocess.run(build, input=POSTGRES_18.encode(), env=environment(), check=True, capture_output=True)
    stack = SampleStack.create(tmp_path)
    file = stack.files[0]
    file.write_text(file.read_text().replace("docker-chap-test/postgres:17", image))
    for started in running(stack):
        assert started.sql("SHOW server_version_num")[0][0].startswith("18")
        started.sql("ALTER SYSTEM SET log_statement = 'all'")
        started.sql("SELECT pg_reload_conf()")
        before = Picture.of(started)
        kept = chap(started, "upgrade", "v2.1.0", "--yes")["kept_database"]
        assert_new(started, before, "v2.1.0")
        log = started.compose("logs", "--no-log-prefix", started.database_service).stdout
        assert log.count("STRATEGY FILE_COPY") and "SET file_copy_method = clone" in log
        assert "could not clone" not in log and kept in started.databases()
        chap(started, "rollback", "--yes")
        before.databases = []
        assert_old(started, before)
