"""What a plain dump can do: in the jail whatever it likes, and that is nothing; to production nothing at all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from compose_chap.engine.engine import Engine
from compose_chap.engine.throwaway import Recipe, throwaway
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, DatabaseError, DumpError
from compose_chap.postgres import dump_format
from compose_chap.postgres.server import Server
from compose_chap.postgres.untrusted import jail, unexpected
from compose_chap.postgres.untrusted.sandbox import Quarantine
from compose_chap.restore import plain_dump
from tests.sample.images import PREFIX
from tests.sample.stack import environment

IMAGE = f"{PREFIX}/postgres:17"
SECRET = "production-has-a-secret"
SCHEMA = """
CREATE TYPE public.period AS ENUM ('month', 'week');
CREATE TABLE public.dataset (
  id serial PRIMARY KEY, name varchar(80), made timestamptz DEFAULT now(), kind public.period,
  number int GENERATED ALWAYS AS IDENTITY, CHECK (length(name) < 80 AND name IS NOT NULL));
CREATE TABLE public.observation (
  id serial PRIMARY KEY, dataset_id int REFERENCES public.dataset, value float, note text);
CREATE INDEX ON public.dataset (lower(name)) WHERE name <> '';
INSERT INTO public.dataset (name) VALUES ('one'), (E'a\\nb\\t\\\\c ''q'' \\\\! touch /tmp/harm');
INSERT INTO public.observation (dataset_id, value) SELECT 1, g FROM generate_series(1, 500) g;
CREATE ROLE reader; CREATE ROLE leaver; CREATE ROLE "o'brien";
GRANT SELECT ON public.dataset TO reader, leaver, "o'brien"; GRANT CREATE ON SCHEMA public TO reader;
ALTER TABLE public.observation OWNER TO leaver;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO reader;
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The world, with the engine of the sample."""
    patch = pytest.MonkeyPatch()
    for name, value in environment().items():
        patch.setenv(name, value)
    yield World(Engine(), lambda: datetime.now(timezone.utc), time.sleep, lambda *_: None)
    patch.undo()


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[Server]:
    """A server with a small database, that knows a secret."""
    variables = {"POSTGRES_USER": "chap", "POSTGRES_DB": "chap_core", "POSTGRES_PASSWORD": SECRET}
    with throwaway(world.engine, Recipe(IMAGE, variables)) as container:
        server = Server(world.engine, container, "chap")
        while not server.listening():
            time.sleep(0.5)
        server.command(SCHEMA, "chap_core")
        yield server


@pytest.fixture
def unharmed(server: Server) -> Iterator[Server]:
    """Hold roles, databases and files of the server against what they were before; jails are gone afterwards."""
    before = seen(server)
    yield server
    assert seen(server) == before
    assert not jails(server.engine)


def seen(server: Server) -> list[object]:
    roles = server.query("SELECT rolname, rolpassword, rolsuper FROM pg_authid ORDER BY 1")
    files = server.engine.run(server.container, ["sh", "-c", "ls -A /tmp; ls -A /var/tmp"]).stdout
    return [roles, sorted(server.databases()), server.counts("chap_core"), files]


def jails(engine: Engine) -> list[str]:
    """Return the jails of this process."""
    result = engine.api.containers(all=True, filters={"label": f"docker-chap.throwaway={os.getpid()}@{os.uname()[1]}"})
    return [
        container["Id"]
        for container in result
        if container["HostConfig"]["NetworkMode"] == "none" and "timeout" in container["Command"]
    ]


def dump(server: Server, *options: str, tool: str = "pg_dump") -> bytes:
    """Dump the database as plain SQL."""
    database = ["chap_core"] if tool == "pg_dump" else []
    with server.engine.execute(server.container, [tool, "-U", "chap", *options, *database]) as execution:
        content = b"".join(execution.output())
        assert execution.status() == 0, execution.stderr
    return content


def in_a_jail(
    world: World, server: Server, content: bytes, *, trust: bool = False
) -> tuple[dump_format.Contents, str, frozenset[str]]:
    """Make an archive of a plain dump, and return what is in it, as SQL too, and what is not."""
    quarantine = Quarantine(server, "jailtest")
    quarantine.make()
    pieces = (content[at : at + 100_000] for at in range(0, len(content), 100_000))
    try:
        made = plain_dump.archive(world, quarantine, pieces, "chap_core", lambda *_: None, trust=trust)
        contents = dump_format.contents(quarantine.listing(made.path))
        return (
            contents,
            quarantine.sql(made.path, "".join(f"{entry.line}\n" for entry in contents.entries)),
            made.left_out,
        )
    finally:
        quarantine.remove()


def rows(sql: str, table: str) -> int:
    """Return how many rows of a table stand in SQL."""
    body = re.search(rf"^COPY public\.{table} .*?;\n(.*?)^\\\.$", sql, re.M | re.S)
    assert body, sql[:2000]
    return body[1].count("\n")


# Dumps made by hand


MADE_BY_HAND: dict[str, Callable[[Server], bytes]] = {
    "as it is": dump,
    "with a mark before it": lambda server: b"\xef\xbb\xbf" + dump(server),
    "with the line ends of Windows": lambda server: dump(server).replace(b"\n", b"\r\n"),
    "INSERT": lambda server: dump(server, "--inserts"),
    "INSERT with columns": lambda server: dump(server, "--column-inserts", "--rows-per-insert=50"),
    "clean": lambda server: dump(server, "--clean"),
    "clean if exists": lambda server: dump(server, "--clean", "--if-exists"),
    "create": lambda server: dump(server, "--create"),
    "clean and create": lambda server: dump(server, "--clean", "--create"),
    "create under another name": lambda server: dump(server, "--create").replace(b"chap_core", b"chap_old"),
    "pg_dumpall": lambda server: dump(server, tool="pg_dumpall"),
    "no owner": lambda server: dump(server, "--no-owner", "--no-privileges"),
    "session authorization": lambda server: dump(server, "--use-set-session-authorization"),
    "by a newer pg_dump": lambda server: dump(server).replace(
        b"SET lock_timeout", b"SET not_yet_known = 0;\nSET lock_timeout"
    ),
    "no comments": lambda server: re.sub(rb"(?m)^--.*\n", b"", dump(server)),
}
OFTEN = ("as it is", "INSERT", "clean and create", "pg_dumpall", "with the line ends of Windows")


@pytest.mark.parametrize(
    "how", [how if how in OFTEN else pytest.param(how, marks=pytest.mark.torture) for how in MADE_BY_HAND]
)
def test_a_plain_dump_made_by_hand_is_brought_out_whole(world: World, unharmed: Server, how: str) -> None:
    contents, sql, left_out = in_a_jail(world, unharmed, MADE_BY_HAND[how](unharmed))
    assert rows(sql, "observation") == 500 and rows(sql, "dataset") == 2 and "\\\\! touch /tmp/harm" in sql
    assert not contents.unexpected() and not left_out
    assert sum(entry.kind == "FK CONSTRAINT" for entry in contents.entries) == 1
    assert ("TO reader" in sql) is (how != "no owner")


def test_privileges_and_owners_of_roles_that_are_gone_are_named(world: World, unharmed: Server) -> None:
    content = dump(unharmed).replace(b"leaver", b"gone").replace(b'"o\'brien"', b'"o\'neil"')
    _, sql, left_out = in_a_jail(world, unharmed, content)
    assert rows(sql, "observation") == 500 and "TO reader" in sql
    assert left_out == {"privileges of the role gone", "privileges of the role o'neil"}


@pytest.mark.parametrize("percent", [30, pytest.param(60, marks=pytest.mark.torture), 97])
@pytest.mark.parametrize("options", [(), pytest.param(("--inserts",), marks=pytest.mark.torture)])
def test_a_plain_dump_that_is_cut_off_is_refused(
    world: World, unharmed: Server, percent: int, options: tuple[str, ...]
) -> None:
    content = dump(unharmed, *options)
    for cut in (content, re.sub(rb"(?m)^--.*\n", b"", content)):
        with pytest.raises(DumpError, match="cut off|could not load"):
            in_a_jail(world, unharmed, cut[: len(cut) * percent // 100])


# Dumps that mean harm: what stands before the end of a dump. None of it is heard of outside of the jail.

HARM = r"\! touch /tmp/harm; echo harm"
ATTACKS = {
    "a comment that ends early": f"-- x\r{HARM}\n",
    "rows that are no rows": f"COPY public.dataset (name) FROM stdin WITH (FORMAT csv);\n{HARM}\n\\.\n",
    "lower case": f"copy public.dataset (name) from stdin;\n{HARM}\n\\.\n",
    "a comment before COPY": f"/* x */ COPY public.dataset (name) FROM stdin;\nx\n\\.\n{HARM}\n",
    "a shell": f"{HARM}\n",
    "a shell behind a statement": f"SELECT 1; {HARM}\n",
    "a pipe": "SELECT 1 \\g |touch /tmp/harm\n",
    "a copy to a program": "\\copy (SELECT 1) TO PROGRAM 'touch /tmp/harm'\n",
    "a program of the server's": "COPY (SELECT 1) TO PROGRAM 'touch /tmp/harm';\n",
    "quotes that are read otherwise": f"SET standard_conforming_strings = off; SELECT '\\'; {HARM}\n --';\n",
    "an encoding that hides a quote": f"SET client_encoding = 'SJIS'; SELECT '\x83';\n{HARM}\n",
    "another server": '\\connect "host=127.0.0.1 port=5432 user=chap dbname=chap_core"\n',
    "a variable": "\\set x `touch /tmp/harm`\n",
    "a file": "\\o /tmp/harm\nSELECT 1;\n\\o\n",
    "a new superuser": "CREATE ROLE mine SUPERUSER LOGIN; ALTER ROLE chap PASSWORD 'mine';\n",
    "a setting of the server": "ALTER SYSTEM SET session_preload_libraries = 'harm';\n",
    "a background": "\\! (sleep 1; touch /tmp/harm) &\n",
}


@pytest.mark.parametrize("what", ATTACKS)
def test_harm_stays_in_the_jail(world: World, unharmed: Server, what: str) -> None:
    content = dump(unharmed)
    end = content.index(b"\n--\n-- PostgreSQL database dump complete")
    # Without what newer versions of pg_dump write against it.
    text = re.sub(
        rb"(?m)^\\(un)?restrict .*\n", b"", content[:end] + b"\n" + ATTACKS[what].encode("latin-1") + content[end:]
    )
    try:
        contents, sql, _ = in_a_jail(world, unharmed, text)
    except DumpError:
        return  # it broke its own dump
    assert rows(sql, "observation") == 500 and not contents.unexpected()


# A function of an extension that anybody may make runs any SQL. With the setting off, psql ends a text elsewhere.
SWITCH = (
    "CREATE EXTENSION tablefunc SCHEMA public; SELECT * FROM public.crosstab("
    "'SELECT set_config(''standard_conforming_strings'', ''off'', false), ''a'', ''b''') AS (name text, value text);\n"
)
HIDDEN = "SELECT '\\' || ';\n\\! echo psql: the shell was reached; touch /tmp/harm\n';\n"


def test_an_extension_that_changes_how_psql_reads_quotes_reaches_the_shell_of_the_jail(
    world: World, unharmed: Server
) -> None:
    with pytest.raises(DumpError, match="psql: the shell was reached"):
        in_a_jail(world, unharmed, hostile(unharmed, SWITCH + HIDDEN), trust=True)
    # It is that function which did it.
    _, sql, _ = in_a_jail(world, unharmed, hostile(unharmed, HIDDEN))
    assert rows(sql, "observation") == 500
    with pytest.raises(DumpError, match="EXTENSION tablefunc"):
        in_a_jail(world, unharmed, hostile(unharmed, SWITCH.replace("''off''", "''on''")))


REFUSED = {
    "UNLOGGED TABLE harm": "CREATE UNLOGGED TABLE public.harm (a int);",
    "FUNCTION harm": "CREATE FUNCTION public.harm() RETURNS int LANGUAGE sql AS 'SELECT 1';",
    "TRIGGER harm": "CREATE TRIGGER harm BEFORE UPDATE ON public.dataset FOR EACH ROW EXECUTE FUNCTION"
    " suppress_redundant_updates_trigger();",
    "VIEW shown": "CREATE VIEW public.shown AS SELECT 1;",
    "EXTENSION pg_trgm": "CREATE EXTENSION pg_trgm SCHEMA public;",
    "LARGE OBJECT": "SELECT pg_catalog.lo_from_bytea(0, 'harm');",
    "TYPE pair": "CREATE TYPE public.pair AS (a int);",
    "EVENT TRIGGER harm": "CREATE FUNCTION public.e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
    "CREATE EVENT TRIGGER harm ON ddl_command_start EXECUTE FUNCTION public.e();",
    "EXPRESSION pg_sleep_for() in a check": "ALTER TABLE public.dataset ADD CHECK"
    " (pg_sleep_for('0 s') IS NULL OR true);",
    "EXPRESSION pg_read_file() in a default": "ALTER TABLE public.dataset ALTER name SET DEFAULT"
    " pg_read_file('/etc/passwd');",
    "EXPRESSION md5() in the index": "CREATE INDEX ON public.dataset (md5(name));",
    "TABLE WITH A PARENT child": "CREATE TABLE public.child () INHERITS (public.dataset);",
    "PARTITIONED TABLE parted": "CREATE TABLE public.parted (a int) PARTITION BY RANGE (a);",
    "TABLE WITH A PARENT part": "CREATE TABLE public.whole (a int) PARTITION BY RANGE (a);"
    "CREATE TABLE public.part PARTITION OF public.whole DEFAULT;",
    "GENERATED COLUMN worked.b": "CREATE TABLE public.worked (a int, b int GENERATED ALWAYS AS (a * 2) STORED);",
    "EXPRESSION md5() in a default of worked_too": "CREATE TABLE public.worked_too (a text, b text GENERATED ALWAYS AS"
    " (md5(a)) STORED);",
    "DOMAIN whole_number": "CREATE DOMAIN public.whole_number AS int CHECK (VALUE > 0);",
    "RANGE TYPE float_range": "CREATE TYPE public.float_range AS RANGE (subtype = float8, subtype_diff = float8mi);",
    "AGGREGATE summed": "CREATE AGGREGATE public.summed (int) (sfunc = int4pl, stype = int);",
    "OPERATOR @@@": "CREATE OPERATOR public.@@@ (leftarg = text, rightarg = text, function = pg_catalog.texteq);",
    "COLLATION other": "CREATE COLLATION public.other (locale = 'C');",
    "CAST": "CREATE CAST (public.period AS int) WITH INOUT;",
}


@pytest.mark.parametrize(
    "name",
    [name if number < 2 else pytest.param(name, marks=pytest.mark.torture) for number, name in enumerate(REFUSED)],
)
def test_what_no_dump_of_chap_has_is_refused_by_name(world: World, unharmed: Server, name: str) -> None:
    content = dump(unharmed).replace(
        b"\n--\n-- PostgreSQL database dump complete",
        b"\n%s\n--\n-- PostgreSQL database dump complete" % REFUSED[name].encode(),
    )
    with pytest.raises(DumpError, match=re.escape(name)) as caught:
        in_a_jail(world, unharmed, content)
    assert "--trust" in caught.value.hint


def test_every_such_thing_is_named(unharmed: Server) -> None:
    """See all at once what a look at a database names."""
    unharmed.command("CREATE DATABASE looked_at TEMPLATE chap_core")
    try:
        assert not unexpected.objects(unharmed, "looked_at")
        unharmed.command("\n".join(f"SET search_path = public; {harm}" for harm in REFUSED.values()), "looked_at")
        names = unexpected.objects(unharmed, "looked_at")
        assert all(any(refused.startswith(name) for refused in names) for name in REFUSED), names
    finally:
        unharmed.drop("looked_at")


# The jail itself

LOOK = """
echo "user: $(id)"; echo "processes:"
for p in /proc/[0-9]*; do echo "  $(tr '\\0\\n' '  ' <$p/cmdline | cut -c-60)"; done
echo "capabilities: $(grep -E 'Cap|NoNewPrivs' /proc/self/status | tr '\\n\\t' '  ')"
echo "interfaces: $(ls /sys/class/net | tr '\\n' ' ')"; echo "routes: $(tail -n +2 /proc/net/route | wc -l)"
echo "environment: $(env | cut -d= -f1 | sort | tr '\\n' ' ')"; echo "devices: $(ls /dev | tr '\\n' ' ')"
echo "writable mounts: $(grep ' rw[ ,]' /proc/self/mounts | cut -d' ' -f2 | sort | tr '\\n' ' ')"
echo "writable folders: $(for d in / /usr /etc /var /home /root /tmp /run /var/lib/postgresql/data; do
  touch $d/x 2>/dev/null && rm $d/x && echo $d; done | tr '\\n' ' ')"
echo "memory: $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null)"
echo "pids: $(cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null)"
echo "docker socket: $(ls /var/run/docker.sock 2>/dev/null || echo none)"
"""


def test_what_a_shell_in_the_jail_sees_and_reaches(world: World, server: Server) -> None:
    """Print it, and hold it against what it may be. Run with `pytest -s` to read it."""
    # The machine itself, the world, and what clouds tell a machine of itself.
    gateway = world.engine.api.inspect_network("bridge")["IPAM"]["Config"][0].get("Gateway", "172.17.0.1")
    image = world.engine.image(IMAGE)
    assert image
    for user in ("nobody", "postgres"):
        with jail.server(world, image.id) as jailed:
            shown = world.engine.run(jailed.container, ["sh", "-c", LOOK], user=user).stdout
            reach = 'for to in "$@"; do (exec 3<>/dev/tcp/$to/22) 2>&1 | head -n 1; done'
            tried = world.engine.run(
                jailed.container, ["bash", "-c", reach, "bash", gateway, "1.1.1.1", "169.254.169.254"], user=user
            )
        print(shown, tried.stdout)
        line = dict(re.findall(r"(?m)^([\w ]+): ?(.*)$", shown))
        assert set(re.findall(r"Cap\w+: +(\w+)", line["capabilities"])) == {"0" * 16}
        assert re.search(r"NoNewPrivs: +1", line["capabilities"])
        assert line["interfaces"].split() == ["lo"] and line["routes"] == "0"
        assert set(line["environment"].split()) <= {
            "PATH",
            "LANG",
            "PG_MAJOR",
            "PGDATA",
            "HOSTNAME",
            "HOME",
            "PWD",
            "SHLVL",
            "_",
            "OLDPWD",
            "GOSU_VERSION",
            "PG_VERSION",
        }
        assert SECRET not in shown and line["docker socket"] == "none"
        assert set(line["writable folders"].split()) <= {"/tmp", "/var/lib/postgresql/data"}
        # What Docker hides of /proc is hidden behind /dev/null, and an empty folder in memory.
        mounts = {word for word in line["writable mounts"].split() if not word.startswith("/proc/")}
        assert mounts <= {
            "/dev",
            "/dev/pts",
            "/dev/shm",
            "/dev/mqueue",
            "/tmp",
            "/run/postgresql",
            "/proc",
            "/sys/fs/cgroup",
            "/var/run/postgresql",
            "/var/lib/postgresql/data",
            "/var/lib/postgresql",
        }
        known = "console core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
        assert set(line["devices"].split()) <= set(known.split())
        assert int(line["memory"].split()[0]) <= 2 << 30 and int(line["pids"].split()[0]) <= 256
        assert not re.search(r"dockerd|containerd|gunicorn|celery", shown)
        assert tried.stdout.count("unreachable") == 3, tried.stdout + tried.stderr


# What does not end by itself


def hostile(server: Server, harm: str) -> bytes:
    """Return a dump that does something first, and is all right otherwise."""
    return re.sub(rb"(?m)^\\(un)?restrict .*\n", b"", dump(server)).replace(
        b"-- PostgreSQL database dump\n", b"-- PostgreSQL database dump\n%s\n" % harm.encode(), 1
    )


@pytest.mark.parametrize(
    "harm",
    [
        "\\! kill -9 -1",
        "COPY (SELECT 1) TO PROGRAM 'kill -9 -1';",
        pytest.param("\\! ulimit -v 100000; :(){ :|:& };:", marks=pytest.mark.torture),
        "\\! sh -c 'exec 1>&2; seq 300000'",
        pytest.param("SELECT repeat('x', 300000000), repeat('y', 300000000);", marks=pytest.mark.torture),
    ],
)
def test_a_dump_that_breaks_its_jail_is_refused_or_taken_in_peace(world: World, unharmed: Server, harm: str) -> None:
    try:
        _, sql, _ = in_a_jail(replace(world, limit=120), unharmed, hostile(unharmed, harm))
        assert rows(sql, "observation") == 500
    except ChapError as error:
        assert error.message


def test_a_dump_that_never_ends_is_ended(world: World, unharmed: Server) -> None:
    with pytest.raises(DatabaseError, match="hours, and was stopped"):
        in_a_jail(replace(world, limit=12), unharmed, hostile(unharmed, "\\! yes 1>&2"))


def test_a_dump_that_fills_the_disk_is_ended(world: World, unharmed: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    free = Server.free_space(unharmed)
    monkeypatch.setattr(jail, "_LEAST_ROOM", free - (100 << 20))
    monkeypatch.setattr(jail, "_LOOK_SECONDS", 0.1, raising=False)
    with pytest.raises(DatabaseError, match="more room than the disk has"):
        in_a_jail(world, unharmed, hostile(unharmed, "\\! head -c 3G /dev/zero >/tmp/full; sleep 60"))


def test_a_jail_ends_at_once_when_somebody_cancels(world: World, unharmed: Server) -> None:
    threading.Timer(15, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        in_a_jail(world, unharmed, hostile(unharmed, "\\! sleep 500"))
    assert not jails(world.engine)


def test_a_jail_ends_with_the_process_that_made_it(world: World, server: Server, tmp_path: Path) -> None:
    """Kill the process during the load: nothing tells the jail, and yet it is gone, with its volumes."""
    path = tmp_path / "dump.sql"
    path.write_bytes(hostile(server, "\\! sleep 500"))
    script = (
        "import sys, tests.e2e.test_jail as t; from compose_chap.engine.world import World;"
        "from compose_chap.engine.engine import Engine; import time, datetime as d;"
        "w = World(Engine(), lambda: d.datetime.now(d.timezone.utc), time.sleep, lambda *_: None);"
        "t.in_a_jail(w, t.Server(w.engine, sys.argv[1], 'chap'), open(sys.argv[2], 'rb').read())"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, server.container, path], env=environment() | {"PYTHONPATH": os.getcwd()}
    )
    label = f"docker-chap.throwaway={child.pid}@{os.uname()[1]}"

    def left() -> list[dict[str, object]]:
        return list(world.engine.api.containers(all=True, filters={"label": label}))

    for _ in range(600):
        listed = [
            world.engine.run(str(container["Id"]), ["ps", "ax"]).stdout
            for container in left()
            if container["State"] == "running"
        ]
        if any("sleep 500" in text for text in listed):
            break
        time.sleep(0.1)
    else:
        pytest.fail("The dump was never loaded.")
    volumes = [mount["Name"] for mount in left()[0]["Mounts"] if mount.get("Name")]  # type: ignore[attr-defined]
    child.kill()
    child.wait()
    for _ in range(100):
        if not left():
            break
        time.sleep(0.1)
    assert not left() and volumes

    def kept() -> set[object]:
        return set(volumes) & {volume["Name"] for volume in world.engine.api.volumes()["Volumes"] or ()}

    # The engine removes the container first.
    for _ in range(100):
        if not kept():
            break
        time.sleep(0.1)
    assert not kept()
    server.engine.run(server.container, ["rm", "-rf", "/tmp/docker-chap-jailtest"])
