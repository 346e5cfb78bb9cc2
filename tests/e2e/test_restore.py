"""Restores take any dump, harm nothing, and are not fooled by a dump that means harm."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from compose_chap.engine.engine import Engine
from compose_chap.engine.world import World
from compose_chap.errors import DumpError
from compose_chap.postgres.server import Server
from compose_chap.records import run_records
from compose_chap.restore import restore, side_database, source
from compose_chap.stack import observe
from compose_chap.stack.location import Where
from compose_chap.transaction.run.baseline import Baseline
from tests.e2e.calls import chap, kill, reach, server_crashed, started, tools_running, until
from tests.sample.stack import SampleStack, environment

FORMATS = (
    "custom",
    "tar",
    "directory",
    "plain",
    "plain with --create --clean",
    "plain.gz",
    "custom.zst",
    pytest.param("custom.gz", marks=pytest.mark.torture),
)


def give(stack: SampleStack, stdin: bytes, *words: str) -> None:
    """Run a program in the database's container with something on its standard input."""
    done = subprocess.run(
        ["docker", "compose", "exec", "-T", stack.database_service, *words],
        cwd=stack.folder,
        env=environment(),
        input=stdin,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


def dump(stack: SampleStack, folder: Path, kind: str, database: str = "") -> Path:
    """Make a dump by hand, as PostgreSQL's own tools do."""
    tool = ["pg_dump", "-U", stack.user, database or stack.database]
    path = folder / "some file"
    if kind == "directory":
        script = 'rm -rf /tmp/d; "$@" -Fd -f /tmp/d >&2; tar -C /tmp -cf - d; rm -rf /tmp/d'
        content = stack.inside("sh", "-c", script, "sh", *tool)
        subprocess.run(["tar", "-C", folder, "-xf", "-"], input=content, check=True)
        return folder / "d"
    options = {"custom": ["-Fc"], "tar": ["-Ft"]}.get(kind.partition(".")[0], [])
    content = stack.inside(*tool, *options, *(["--create", "--clean", "--if-exists"] if "--create" in kind else []))
    if kind.endswith(".gz"):
        content = gzip.compress(content)
    if kind.endswith(".zst"):
        content = subprocess.run(["zstd", "-qc"], input=content, capture_output=True, check=True).stdout
    path.write_bytes(content)
    return path


def restore_beside(
    stack: SampleStack, path: Path, *, trust: bool = False, look: Callable[[str], Any] | None = None
) -> Any:
    """Carry a restore out until the swap, and return the checksums of the side database, or what `look` sees in it."""
    world = World(Engine(), lambda: datetime.now(timezone.utc), time.sleep, lambda *_: None)
    stack_now = observe.find_stack(world.engine, Where((), stack.project, None, (), stack.folder, environment()))
    plan = restore.RestorePlan(stack_now, source.recognise(str(path), [stack.folder / "backups"]), trust)
    # Nothing that CHAP says of itself is looked at before the swap.
    nothing_asked = Baseline("", {}, (), "", ready=False, has_data=True, untouched={})
    journal = run_records.begin_run(stack.folder, "restore", {}, world.clock)
    server = Server(world.engine, stack_now.database.containers[0].id, stack_now.access.admin)
    change = restore._change(plan, server, nothing_asked, journal)
    try:
        with side_database.made(world, server, plan.source, change, journal, trust=trust):
            pass
        return (look or stack.checksum)(change.incoming)
    finally:
        side_database.remove(server, journal.id, change.incoming)
        server.disconnect()
        journal.end("failed")


@pytest.mark.parametrize("kind", FORMATS)
def test_any_dump_is_restored(unharmed: SampleStack, tmp_path: Path, kind: str) -> None:
    assert restore_beside(unharmed, dump(unharmed, tmp_path, kind)) == unharmed.checksum()


@pytest.mark.parametrize("kind", ["custom", "plain"])
def test_privileges_come_back_where_their_roles_are(unharmed: SampleStack, tmp_path: Path, kind: str) -> None:
    unharmed.sql("CREATE ROLE reader; CREATE ROLE leaver")
    try:
        unharmed.sql("GRANT SELECT ON observation TO reader; GRANT SELECT ON dataset TO leaver")
        path = dump(unharmed, tmp_path, kind)
        unharmed.sql("DROP OWNED BY leaver; DROP ROLE leaver")
        query = "SELECT relname, pg_get_userbyid(relowner), relacl FROM pg_class WHERE relacl::text ~ 'reader'"
        assert restore_beside(unharmed, path, look=lambda name: unharmed.sql(query, name)) == unharmed.sql(query) != []
    finally:
        unharmed.sql("DROP OWNED BY reader; DROP ROLE reader; DROP ROLE IF EXISTS leaver")


@pytest.mark.parametrize("kind", ["custom", "tar", "plain", "plain.gz", "custom.zst"])
def test_a_dump_cut_off_is_refused(unharmed: SampleStack, tmp_path: Path, kind: str) -> None:
    path = dump(unharmed, tmp_path, kind)
    content = path.read_bytes()
    for percent in (5, 50, 95) if kind == "plain" else (60,):
        path.write_bytes(content[: len(content) * percent // 100])
        with pytest.raises(DumpError):
            restore_beside(unharmed, path)
    for nothing in (b"", b"\0" * 4096, b"<html>not found</html>"):
        path.write_bytes(nothing)
        with pytest.raises(DumpError):
            restore_beside(unharmed, path)


# Hostile dumps: what they try, as SQL that somebody put into a plain dump. They do it in a jail: test_jail has more.
HOSTILE = {
    "a program": "COPY observation FROM PROGRAM 'touch /tmp/harm; echo';",
    "a shell": "\\! touch /tmp/harm",
    "a default that runs": "ALTER TABLE public.dataset ALTER COLUMN name SET DEFAULT pg_read_file('/etc/passwd');",
    "a password": "ALTER ROLE chap PASSWORD 'mine';",
    "another database": "\\connect postgres\nCREATE TABLE public.harm (a int);",
    "a large object": "SELECT pg_catalog.lo_import('/etc/passwd');",
}
# Each of these has a sister above.
MORE_HOSTILE = {
    "a function": "CREATE FUNCTION public.harm() RETURNS int LANGUAGE sql AS 'SELECT 1';",
    "a setting of the database": "DO 'begin execute ''alter database x set jit = off''; end';",
    "an event trigger": "CREATE EVENT TRIGGER harm ON ddl_command_start EXECUTE FUNCTION tsvector_update_trigger();",
    "a new superuser": "CREATE ROLE mine SUPERUSER LOGIN;",
    "a setting": "SELECT set_config('session_preload_libraries', 'harm', false);",
}
REFUSED = ("a program", "a default that runs", "a large object", "a function", "an event trigger")


def assert_no_harm(stack: SampleStack, folder: Path, what: str, packed: Callable[[bytes], bytes] = bytes) -> None:
    """Put harm at the end of a plain dump, and see that a restore refuses it, or brings the data without it."""
    path = dump(stack, folder, "plain")
    # Without what newer versions of pg_dump write against it.
    text, harm = re.sub(r"(?m)^\\(un)?restrict .*\n", "", path.read_text()), (HOSTILE | MORE_HOSTILE)[what]
    end = text.index("-- PostgreSQL database dump complete")
    path.write_bytes(packed((text[:end].rstrip("- \n") + f"\n\n{harm}\n\n--\n" + text[end:]).encode()))
    if what in REFUSED:
        with pytest.raises(DumpError):
            restore_beside(stack, path)
    else:
        with suppress(DumpError):
            assert restore_beside(stack, path) == stack.checksum()


@pytest.mark.parametrize("what", [*HOSTILE, *(pytest.param(item, marks=pytest.mark.torture) for item in MORE_HOSTILE)])
def test_a_plain_dump_that_means_harm_does_none(unharmed: SampleStack, tmp_path: Path, what: str) -> None:
    assert_no_harm(unharmed, tmp_path, what)


@pytest.fixture
def evil(small: SampleStack) -> Iterator[str]:
    """Give a database of CHAP with a function, a trigger and an event trigger in it."""
    small.sql(f"CREATE DATABASE evil TEMPLATE template0 OWNER {small.user}", "postgres")
    content = small.inside("pg_dump", "-U", small.user, "-Fc", "-s", small.database)
    give(small, content, "pg_restore", "-U", small.user, "-d", "evil")
    small.sql(
        "CREATE FUNCTION harm() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " COPY (SELECT 1) TO PROGRAM 'touch /tmp/harm'; RETURN NEW; END $$;"
        "CREATE TRIGGER harm BEFORE INSERT ON dataset FOR EACH ROW EXECUTE FUNCTION harm();"
        "CREATE FUNCTION harms() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        " ALTER ROLE chap PASSWORD 'mine'; END $$;"
        "CREATE EVENT TRIGGER harms ON ddl_command_end EXECUTE FUNCTION harms()",
        "evil",
    )
    yield "evil"
    small.sql("DROP DATABASE evil", "postgres")


@pytest.mark.parametrize("kind", ["custom", pytest.param("tar", marks=pytest.mark.torture), "directory"])
def test_an_archive_that_means_harm_is_refused(unharmed: SampleStack, evil: str, tmp_path: Path, kind: str) -> None:
    with pytest.raises(DumpError, match="FUNCTION"):
        restore_beside(unharmed, dump(unharmed, tmp_path, kind, evil))
    # Trusted or not, it has no power: the event trigger needs a superuser.
    with pytest.raises(DumpError, match="superuser"):
        restore_beside(unharmed, dump(unharmed, tmp_path, kind, evil), trust=True)


def test_an_archive_that_lies_about_its_contents_is_refused(unharmed: SampleStack, tmp_path: Path) -> None:
    """See that a program hidden where a table is announced does not run: the role has no power."""
    path = dump(unharmed, tmp_path, "custom")
    content = unharmed.inside("pg_dump", "-U", unharmed.user, "-Fc", "-Z", "0", unharmed.database)
    harmless, harmful = b"COPY public.dataset (", b"COPY public.dataset FROM PROGRAM 'touch /tmp/harm';--"
    at = content.index(harmless)
    end = content.index(b"FROM stdin;\n", at) + len(b"FROM stdin;\n")
    path.write_bytes(content[:at] + harmful.ljust(end - at - 1) + b"\n" + content[end:])
    with pytest.raises(DumpError, match="pg_execute_server_program|permission|superuser"):
        restore_beside(unharmed, path)


# What an owner of a database can do so that a superuser who enters it runs the owner's code, and cannot drop it.
TRAP = b"""
CREATE FUNCTION public.regexp_replace(text, text, text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
  IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
    COPY (SELECT 1) TO PROGRAM 'touch /tmp/harm'; END IF; RETURN ''; END $$;
CREATE TABLE public.pg_proc (oid oid, proname name, prokind "char", pronamespace oid, prolang oid);
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database());
  EXECUTE format('ALTER DATABASE %I IS_TEMPLATE true', current_database()); END $$;
"""


def test_a_trap_for_the_administrator_behind_a_table_s_name_is_refused(unharmed: SampleStack, tmp_path: Path) -> None:
    path = dump(unharmed, tmp_path, "directory")
    toc = (path / "toc.dat").read_bytes()
    # A text stands behind its length, and its kind is a label beside it.
    at = toc.index(b"CREATE TABLE public.dataset (")
    end = at + int.from_bytes(toc[at - 4 : at], "little")
    length = (end - at + len(TRAP)).to_bytes(4, "little")
    (path / "toc.dat").write_bytes(toc[: at - 4] + length + toc[at:end] + TRAP + toc[end:])
    with pytest.raises(DumpError, match="FUNCTION regexp_replace"):
        restore_beside(unharmed, path)


# Whole restores


def test_a_restore_keeps_what_belongs_to_the_database(small: SampleStack) -> None:
    made = chap(small, "backup")["backup"]
    at_first = small.checksum()
    small.sql("CREATE ROLE reader LOGIN", "postgres")
    small.sql(
        f"COMMENT ON DATABASE {small.database} IS 'of the ministry';"
        f"ALTER DATABASE {small.database} SET statement_timeout = '1h';"
        f"ALTER ROLE reader IN DATABASE {small.database} SET work_mem = '9MB';"
        f"REVOKE ALL ON DATABASE {small.database} FROM PUBLIC;"
        f"GRANT CONNECT ON DATABASE {small.database} TO reader; DELETE FROM observation"
    )
    what = (
        "SELECT pg_get_userbyid(datdba), (SELECT string_agg(x::text, ' ' ORDER BY x::text) FROM unnest(datacl) x),"
        " shobj_description(oid, 'pg_database'), (SELECT string_agg(setconfig::text, ' ' ORDER BY setconfig::text)"
        f" FROM pg_db_role_setting WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = '{small.database}'"
    )
    before = small.sql(what, "postgres")
    looker = subprocess.Popen(
        ["docker", "compose", "exec", "-T", small.database_service, "psql", "-U", small.user, "-d", small.database],
        cwd=small.folder,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(
        lambda: bool(
            small.sql("SELECT 1 FROM pg_stat_activity WHERE application_name = 'psql' AND state = 'idle'", "postgres")
        )
    )
    done = chap(small, "restore", made["id"], "--yes")
    assert looker.stdin
    looker.stdin.close()
    looker.wait()
    assert [session["application"] for session in done["sessions_ended"]] == ["psql"]
    assert small.sql(what, "postgres") == before and small.checksum() == at_first
    assert small.counts(done["kept_database"])["observation"] == 0
    assert done["kept_database"] in chap(small, "status")["database"]["kept"]
    # It is needed as long as the restore can be undone.
    assert chap(small, "prune", "--keep-databases", "0", "--yes", "--set-aside")["databases"] == []
    chap(small, "restore", "--undo", "--yes")
    assert small.counts()["observation"] == 0 and small.sql(what, "postgres") == before
    restores = [run for run in chap(small, "history")["runs"] if run["operation"] == "restore"]
    assert restores[-1]["trusted"] is False
    # What was kept is the live one again; the rows that were restored are aside.
    kept = [name for name in small.databases() if name != small.database and name.startswith(small.database)]
    assert len(kept) == 1 and small.checksum(kept[0]) == at_first
    assert chap(small, "prune", "--keep-databases", "0", "--yes", "--set-aside")["databases"] == kept


def test_a_newer_backup_is_refused(small: SampleStack, backup_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "20990101T000000Z"
    shutil.copytree(backup_folder, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["chap"]["version"] = "9.0.0"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    error = chap(small, "restore", str(copy), "--yes", expect=1)["error"]
    assert "9.0.0" in error["message"] and "--with-version" in error["hint"] and error["state"]


@pytest.mark.torture
def test_a_lost_database_and_a_stopped_server_do_not_block_a_restore(small: SampleStack) -> None:
    made = chap(small, "backup")["backup"]
    at_first = small.checksum()
    small.compose("stop", small.api_service, small.worker_service)
    small.sql(f"DROP DATABASE {small.database} WITH (FORCE)", "postgres")
    small.compose("stop", small.database_service)
    done = chap(small, "restore", made["id"], "--yes")
    assert small.checksum() == at_first and done["kept_database"] == ""
    assert any("There is no database" in note for note in done["notes"])
    small.wait_ready()


def test_a_restore_killed_halfway_changes_nothing(small: SampleStack) -> None:
    at_first, databases = small.checksum(), small.databases()
    small.fill(megabytes=60)
    chap(small, "backup")
    small.sql("TRUNCATE predictionsamplesentry")
    now = small.checksum()
    with started(small, "restore", "latest", "--yes") as child:
        reach(child, "restore beside")
        until(lambda: "pg_restore" in tools_running(small))
        kill(child, signal.SIGKILL)
    until(lambda: not tools_running(small))
    assert small.checksum() == now != at_first and not server_crashed(small)
    chap(small, "backup", expect=5)
    chap(small, "recover")
    assert small.databases() == databases and small.checksum() == now
    assert not small.sql("SELECT 1 FROM pg_roles WHERE rolname LIKE 'docker_chap%'", "postgres")
    small.wait_ready()


@pytest.mark.torture
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize(
    "step", ["read dump", "restore beside", "check beside", "stop", "swap", "start api", "verify api", "verify"]
)
def test_a_restore_killed_at_any_step_is_all_or_nothing(small: SampleStack, step: str, number: int) -> None:
    chap(small, "backup")
    old = small.checksum()
    small.sql("DELETE FROM observation WHERE id = (SELECT min(id) FROM observation)")
    now, databases = small.checksum(), [name for name in small.databases() if not name.endswith("_failed")]
    with started(small, "restore", "latest", "--yes") as child:
        reach(child, step)
        kill(child, number)
    if number == signal.SIGKILL:
        until(lambda: not tools_running(small))
        chap(small, "recover")
    small.wait_ready()
    assert small.checksum() in (now, old) and not server_crashed(small)
    if small.checksum() == now:
        # What the restored data got meanwhile may be kept beside.
        assert [name for name in small.databases() if not name.endswith("_failed")] == databases
    assert not small.sql("SELECT 1 FROM pg_roles WHERE rolname LIKE 'docker_chap%'", "postgres")
    assert not small.inside("sh", "-c", "ls -d /tmp/docker-chap* 2>/dev/null || true")
    chap(small, "backup")


@pytest.mark.torture
@pytest.mark.parametrize("step", ["restore beside", "check beside", "start api"])
def test_the_database_killed_during_a_restore(small: SampleStack, step: str) -> None:
    chap(small, "backup")
    old = small.checksum()
    small.sql("DELETE FROM observation WHERE id % 7 = 0")
    now = small.checksum()
    with started(small, "restore", "latest", "--yes") as child:
        reach(child, step)
        small.compose("kill", small.database_service)
        assert child.stderr
        for _ in child.stderr:
            pass
        assert child.wait() in (1, 3, 4)
    small.compose("start", small.database_service)
    until(lambda: "accepting" in small.compose("exec", "-T", small.database_service, "pg_isready", check=False).stdout)
    chap(small, "recover")
    small.wait_ready()
    assert small.checksum() in (now, old)
    assert not small.sql("SELECT 1 FROM pg_roles WHERE rolname LIKE 'docker_chap%'", "postgres")
