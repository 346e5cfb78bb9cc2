"""No backup seems better than it is: what it holds, what it lacks, and what became of it since."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose_chap.engine.engine import Engine
from compose_chap.postgres import dump_format
from compose_chap.postgres.server import Server
from compose_chap.postgres.untrusted import unexpected
from tests.e2e.calls import chap
from tests.sample.stack import SampleStack, environment

# One of each kind that pg_dump knows and no database of CHAP has; each can be made in one statement.
SAMPLES = """
CREATE SCHEMA ext;
CREATE EXTENSION pg_trgm WITH SCHEMA ext;
CREATE EXTENSION hstore;
CREATE TABLE public.more (a int PRIMARY KEY, b text, c numeric DEFAULT random());
CREATE VIEW public.seen AS SELECT * FROM public.more;
CREATE MATERIALIZED VIEW public.held AS SELECT * FROM public.more;
CREATE FUNCTION public.twice(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * a';
CREATE PROCEDURE public.act() LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION public.fires() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER fires BEFORE INSERT ON public.more FOR EACH ROW EXECUTE FUNCTION public.fires();
CREATE AGGREGATE public.added(int) (SFUNC = int4pl, STYPE = int);
CREATE OPERATOR public.@#@ (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int);
CREATE RULE nothing AS ON DELETE TO public.more DO INSTEAD NOTHING;
CREATE POLICY few ON public.more USING (a > 0);
ALTER TABLE public.more ENABLE ROW LEVEL SECURITY;
CREATE DOMAIN public.positive AS int CHECK (VALUE > 0);
CREATE COLLATION public.plain FROM "C";
CREATE CONVERSION public.latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE TEXT SEARCH CONFIGURATION public.words (COPY = simple);
CREATE TEXT SEARCH DICTIONARY public.dictionary (TEMPLATE = simple);
CREATE STATISTICS public.both ON a, b FROM public.more;
CREATE PUBLICATION told FOR TABLE public.more;
CREATE TYPE public.pair AS (a int, b int);
CREATE CAST (public.pair AS text) WITH INOUT;
CREATE INDEX twice ON public.more (public.twice(a));
SELECT lo_from_bytea(0, 'large');
"""
BEYOND_TRUST = """
CREATE FUNCTION public.starts() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER starts ON ddl_command_start EXECUTE FUNCTION public.starts();
CREATE FOREIGN DATA WRAPPER none;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER none;
CREATE USER MAPPING FOR PUBLIC SERVER elsewhere;
CREATE FOREIGN TABLE public.far (a int) SERVER elsewhere;
CREATE OPERATOR FAMILY public.family USING btree;
CREATE FUNCTION public.native() RETURNS int LANGUAGE internal AS 'pg_backend_pid';
CREATE TEXT SEARCH TEMPLATE public.template (LEXIZE = dsimple_lexize);
"""


@pytest.fixture(autouse=True)
def engine_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def strange(small: SampleStack) -> Iterator[SampleStack]:
    """A stack whose database has more in it than CHAP's; what is there is put back."""
    made = chap(small, "backup", "--reason", "before")["backup"]
    small.sql(SAMPLES)
    small.sql("INSERT INTO more SELECT g, g, g FROM generate_series(1, 5) g; REFRESH MATERIALIZED VIEW held")
    yield small
    chap(small, "restore", made["id"], "--yes")
    for path in (small.folder / "backups").glob("2*"):
        shutil.rmtree(path)
    chap(small, "prune", "--keep-databases", "0", "--yes", "--set-aside")


def server_of(stack: SampleStack) -> Server:
    return Server(Engine(), stack.containers()[stack.database_service]["id"], stack.user)


def listing(stack: SampleStack) -> str:
    script = 'pg_dump -U "$1" -Fc "$2" | pg_restore --list'
    return stack.inside("sh", "-c", script, "sh", stack.user, stack.database).decode()


def kinds(names: list[str]) -> set[str]:
    return {name.removeprefix("UNTRUSTED ") for name in names}


@pytest.mark.torture
def test_what_a_restore_would_refuse_is_known_when_the_backup_is_made(strange: SampleStack) -> None:
    strange.sql(BEYOND_TRUST)
    result = unexpected.objects(server_of(strange), strange.database)
    refused = dump_format.contents(listing(strange)).unexpected()
    # Comments and users of what is named are not named by themselves. pg_restore has other words for large objects.
    message = {entry.kind for entry in refused} - {"COMMENT", "USER MAPPING", "BLOB", "BLOBS", "BLOB METADATA"}
    message -= {"PUBLICATION TABLE", "MATERIALIZED VIEW DATA"}
    assert len(message) > 20
    missing = {kind for kind in message if not any(name.startswith(f"{kind} ") for name in kinds(result))}
    assert not missing, result
    assert any(name.startswith("LARGE OBJECT ") for name in result)
    assert {"VIEW seen", "EXPRESSION random() in a default of public.more", "UNTRUSTED FUNCTION native"} <= set(result)
    # What belongs to an extension is not told of a second time.
    assert "EXTENSION pg_trgm" in result and not any("similarity" in name for name in result)

    made = chap(strange, "backup")["backup"]
    assert made["foreign"] == result
    output = strange.docker("chap", "verify", made["id"]).stdout
    assert "A restore needs --trust." in output and "EVENT TRIGGER starts" in output and "by hand only" in output
    checks = {check["name"]: check for check in chap(strange, "check")["checks"]}
    assert checks["database"]["status"] == "warn" and checks["database"]["details"]["foreign"] == result
    assert "needs --trust" in strange.docker("chap", "backups").stdout

    for words in ((), ("--trust",)):
        error = chap(strange, "restore", made["id"], "--yes", *words, expect=1)["error"]
        assert bool(words) == ("superuser" in error["message"]) and error["hint"] and error["state"]
    # Its rows are proven all the same.
    assert chap(strange, "verify", made["id"], "--deep")["tables"] == made["tables"]


@pytest.mark.torture
def test_with_trust_everything_comes_back_but_power(strange: SampleStack) -> None:
    strange.sql(
        "CREATE TABLE ext.words (word text); INSERT INTO ext.words VALUES ('rain');"
        "CREATE INDEX ON ext.words USING gin (word ext.gin_trgm_ops)"
    )
    made = chap(strange, "backup")["backup"]
    before, result = strange.checksum(), unexpected.objects(server_of(strange), strange.database)
    assert not any(dump_format.is_beyond_trust(name) for name in result)
    assert "EXTENSION" in chap(strange, "restore", made["id"], "--yes", expect=1)["error"]["message"]
    chap(strange, "verify", made["id"], "--deep")

    strange.sql("DELETE FROM observation; UPDATE more SET b = 'changed'")
    chap(strange, "restore", made["id"], "--yes", "--trust")
    assert strange.checksum() == before
    now = unexpected.objects(server_of(strange), strange.database)
    assert [line for line in now if "LARGE OBJECT" not in line] == [
        line for line in result if "LARGE OBJECT" not in line
    ]
    assert strange.sql("SELECT convert_from(lo_get(oid), 'UTF8') FROM pg_largeobject_metadata") == [["large"]]
    assert strange.sql("SELECT word FROM ext.words WHERE word OPERATOR(ext.%) 'rainy'") == [["rain"]]
    owners = strange.sql("SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relname IN ('seen', 'words')")
    assert owners == [[strange.user]]
    assert chap(strange, "history")["runs"][-1]["trusted"] is True
    assert not strange.sql("SELECT 1 FROM pg_roles WHERE rolname LIKE 'docker_chap%'", "postgres")


def damage(folder: str, name: str) -> None:
    """Change one byte of a file."""
    path = Path(folder, name)
    content = path.read_bytes()
    path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])


def test_a_backup_that_fails_its_proof_is_no_longer_relied_on(small: SampleStack) -> None:
    good, bad = (chap(small, "backup")["backup"] for _ in range(2))
    dump = bad["dump"]["file"]
    damage(bad["folder"], dump)
    error = chap(small, "verify", "latest", expect=1)["error"]
    assert dump in error["message"] and "counts as bad" in error["state"] and "docker chap backups" in error["hint"]

    listed = {backup["id"]: backup for backup in chap(small, "backups")["backups"]}
    assert listed[bad["id"]]["proven_by"] is None and listed[bad["id"]]["proven_at"] is None
    assert dump in listed[bad["id"]]["fault"] and listed[good["id"]]["fault"] == ""
    assert f"Do not rely on {bad['id']}." in small.docker("chap", "backups").stdout
    status = chap(small, "status")
    assert status["last_backup"]["id"] == good["id"] and any(bad["id"] in problem for problem in status["problems"])

    small.sql("DELETE FROM observation WHERE id % 2 = 0")
    done = chap(small, "restore", "latest", "--yes")
    assert good["id"] in done["source"]
    assert any(bad["id"] in note and "was skipped" in note for note in done["notes"])
    assert "public.observation" in done["tables"] and done["tables"] == good["tables"]
    refused = chap(small, "restore", bad["id"], "--yes", expect=1)["error"]
    assert dump in refused["message"] and "To restore only that" not in refused["hint"]
    # `verify` means the same by it.
    assert chap(small, "verify", "latest")["backup"]["id"] == good["id"]
    assert f"Backup {bad['id']} is newer, but was skipped." in small.docker("chap", "verify").stderr
    for path in (small.folder / "backups").glob("2*"):
        shutil.rmtree(path)


@pytest.mark.torture
def test_a_backup_that_is_whole_again_counts_again(small: SampleStack) -> None:
    made = chap(small, "backup")["backup"]
    dump = made["dump"]["file"]
    damage(made["folder"], dump)
    # A restore that finds it is a proof too.
    refused = chap(small, "restore", "latest", "--yes", expect=1)["error"]
    assert dump in refused["message"]
    refused = chap(small, "restore", "latest", "--yes", expect=1)["error"]
    assert "No backup" in refused["message"] and "can be relied on" in refused["message"]
    assert chap(small, "status")["last_backup"] is None

    damage(made["folder"], dump)
    assert chap(small, "verify", made["id"])["backup"]["fault"] == ""
    assert chap(small, "status")["last_backup"]["id"] == made["id"]
    shutil.rmtree(made["folder"])


@pytest.mark.torture
def test_a_dump_that_restores_to_other_rows_is_bad_until_it_restores_well(small: SampleStack) -> None:
    made = chap(small, "backup")["backup"]
    path = Path(made["folder"], "manifest.json")
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "tables": {**manifest["tables"], "public.observation": 1}}))
    assert "public.observation" in chap(small, "verify", "--deep", expect=1)["error"]["message"]
    # Its bytes are whole, which says nothing against that.
    assert "public.observation" in chap(small, "verify", made["id"])["backup"]["fault"]
    path.write_text(json.dumps(manifest))
    assert chap(small, "verify", made["id"], "--deep")["backup"]["fault"] == ""
    shutil.rmtree(made["folder"])


@pytest.mark.torture
def test_a_table_that_vanished_is_missed(small: SampleStack) -> None:
    complete = chap(small, "backup")["backup"]
    assert complete["lost_tables"] == [] and complete["absent_tables"] == []
    small.sql("CREATE TABLE of_our_own (a int)")
    own = chap(small, "backup")["backup"]
    small.sql("DROP TABLE of_our_own")
    small.compose("stop", small.api_service, small.worker_service)
    # pg_dump itself misses only a table that has a sequence.
    small.sql("SET allow_system_table_mods = on; DELETE FROM pg_class WHERE relname = 'featuresource'")

    done = subprocess.run(
        ["docker", "chap", "backup"], cwd=small.folder, env=environment(), capture_output=True, text=True
    )
    # CHAP is down: nobody can say whether the other table is wanted.
    assert done.returncode == 0 and "complete" not in done.stdout
    assert "Warning: The database has lost public.featuresource, public.of_our_own" in done.stderr
    lacking = chap(small, "backups")["backups"][-1]
    assert lacking["lost_tables"] == ["public.featuresource", "public.of_our_own"] and "is missing" in lacking["fault"]
    assert chap(small, "status")["last_backup"]["id"] == own["id"]
    # The next one does not take the loss for what is normal.
    later = chap(small, "backup")["backup"]
    assert later["lost_tables"] == ["public.featuresource", "public.of_our_own"]
    assert "is missing" in chap(small, "verify", later["id"])["backup"]["fault"]

    restored = chap(small, "restore", "latest", "--yes")
    assert own["id"] in restored["source"] and restored["tables"] == own["tables"]
    small.wait_ready()
    small.sql("DROP TABLE of_our_own")
    later = chap(small, "backup")["backup"]
    # CHAP runs, and does not want it: that is told, and no fault.
    assert later["lost_tables"] == [] and later["absent_tables"] == ["public.of_our_own"] and later["fault"] == ""
    assert chap(small, "backup")["backup"]["absent_tables"] == []


def dumped(stack: SampleStack, path: Path, *options: str) -> Path:
    """Write a dump as an operator does by hand."""
    path.write_bytes(stack.inside("pg_dump", "-U", stack.user, *options, stack.database))
    return path


def test_a_dump_alone_is_proven_beside_the_stack(small: SampleStack, tmp_path: Path) -> None:
    good = dumped(small, tmp_path / "pre-upgrade.dump", "-Fc")
    databases = small.databases()
    proven = chap(small, "verify", str(good), "--deep")
    assert {name.removeprefix("public."): rows for name, rows in proven["tables"].items()} == small.counts()
    assert proven["proven_by"] == "test-restored" and proven["dump"]["size"] == good.stat().st_size
    assert proven["dump"]["unexpected"] == [] and proven["dump"]["tables"] == len(proven["tables"])
    entry = chap(small, "history")["entries"][-1]
    assert (entry["operation"], entry["result"]) == ("verify", "done") and "pre-upgrade.dump" in entry["summary"]

    content = good.read_bytes()
    cut = tmp_path / "cut.dump"
    cut.write_bytes(content[: len(content) * 2 // 3])
    refused = chap(small, "verify", str(cut), expect=1)["error"]
    assert refused["message"] and refused["hint"] and refused["state"]
    assert small.databases() == databases


@pytest.mark.torture
def test_a_dump_alone_is_proven_in_every_format(strange: SampleStack, tmp_path: Path) -> None:
    subprocess.run(["gzip", "-k", dumped(strange, tmp_path / "plain.sql", "-Fp")], check=True)
    (tmp_path / "directory").mkdir()
    script = 'cd /tmp && pg_dump -U "$1" -Fd -f proof.dir "$2" && tar -C proof.dir -c . && rm -r proof.dir'
    packed = strange.inside("sh", "-c", script, "sh", strange.user, strange.database)
    subprocess.run(["tar", "-x", "-C", tmp_path / "directory"], input=packed, check=True)
    dumped(strange, tmp_path / "dump.tar", "-Ft")
    for name in ("plain.sql", "plain.sql.gz", "directory", "dump.tar"):
        proven = chap(strange, "verify", str(tmp_path / name), "--deep")
        rows = {table.removeprefix("public."): rows for table, rows in proven["tables"].items()}
        assert rows == {table: count for table, count in strange.counts().items() if table not in ("seen", "held")}
        assert any("pg_trgm" in item for item in proven["dump"]["unexpected"])
        assert chap(strange, "verify", str(tmp_path / name))["proven_by"] == "read back"
    text = (tmp_path / "plain.sql").read_bytes()
    (tmp_path / "plain.sql").write_bytes(text[: len(text) // 2])
    assert "cut off" in chap(strange, "verify", str(tmp_path / "plain.sql"), expect=1)["error"]["message"]
    (tmp_path / "letter.txt").write_text("Dear colleague,\n")
    assert (
        "not a PostgreSQL dump" in chap(strange, "verify", str(tmp_path / "letter.txt"), expect=1)["error"]["message"]
    )
