"""What a backup holds on request: DHIS2's database with its extensions, volumes, and the model services' own data."""

from __future__ import annotations

import sqlite3
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.calls import chap, own_crontab
from tests.e2e.conftest import running
from tests.sample.stack import SampleStack, environment


def dhis2_sql(stack: SampleStack, query: str) -> list[str]:
    done = stack.compose("exec", "-T", "dhis2-db", "psql", "-XqAt", "-U", "dhis", "-d", "dhis", "-c", query)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def made(bundled: SampleStack) -> Iterator[Any]:
    """A backup of everything, made while DHIS2's database has extensions, as PostGIS is one."""
    dhis2_sql(
        bundled,
        "CREATE EXTENSION pg_trgm; CREATE EXTENSION hstore; CREATE TABLE of_hstore (a hstore);"
        " INSERT INTO of_hstore VALUES ('a=>1')",
    )
    bundled.compose(
        "exec",
        "-T",
        "chap",
        "sh",
        "-c",
        "mkdir -p /data/runs/7 && echo trained > /data/runs/7/model && echo line > /data/logs/chap.log",
    )
    yield chap(bundled, "backup", "--with-dhis2", "--with-volumes")["backup"]


def test_a_night_backs_up_what_the_schedule_was_given(bundled: SampleStack, made: Any, tmp_path: Path) -> None:
    path = f"{own_crontab(tmp_path)}:{environment()['PATH']}"
    on = chap(bundled, "schedule", "on", "--by", "cron", "--with-dhis2", "--with-volumes", PATH=path)
    assert on["notes"] == []
    backup, *_ = chap(bundled, "schedule", "run", "nightly")["parts"]
    chap(bundled, "schedule", "off", PATH=path)
    last = chap(bundled, "backups")["backups"][-1]
    assert last["id"] == backup["facts"]["backup"]
    assert (Path(last["folder"]) / "dhis.dump").exists() and any((Path(last["folder"]) / "volumes").iterdir())


def test_volumes_hold_the_very_files_and_no_caches(bundled: SampleStack, made: Any) -> None:
    folder = Path(made["folder"])
    packed = {
        volume["volume"].removeprefix(f"{bundled.project}_"): volume for volume in made["volumes"] if volume["volume"]
    }
    assert set(packed) == {"chap-logs", "chap-runs"}
    with tarfile.open(folder / packed["chap-runs"]["file"]) as archive:
        model = archive.extractfile("./7/model")
        assert model and model.read() == b"trained\n"
    with tarfile.open(folder / packed["chap-logs"]["file"]) as archive:
        assert "./chap.log" in archive.getnames()

    (model_data,) = (volume for volume in made["volumes"] if volume["service"] == "chap-ewars")
    ask = "SELECT name FROM configs ORDER BY name"
    program = f"import sqlite3; print(sqlite3.connect({model_data['path']!r}).execute({ask!r}).fetchall())"
    live = bundled.compose("exec", "-T", "chap-ewars", "python3", "-c", program).stdout.strip()
    with closing(sqlite3.connect(folder / model_data["file"])) as copy:
        assert str(copy.execute(ask).fetchall()) == live != "[]"
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_commands_of_its_instructions_bring_a_volume_back(bundled: SampleStack, made: Any) -> None:
    lines = Path(made["folder"], "RESTORE.txt").read_text().splitlines()
    (line,) = (line.strip() for line in lines if "chap-runs" in line and "gunzip" in line)
    bundled.compose("exec", "-T", "chap", "rm", "-r", "/data/runs/7")
    subprocess.run(line, shell=True, cwd=made["folder"], env=environment(), check=True, capture_output=True)
    assert bundled.compose("exec", "-T", "chap", "cat", "/data/runs/7/model").stdout == "trained\n"


def test_dhis2_comes_with_its_extensions_and_is_proven(bundled: SampleStack, made: Any) -> None:
    path = Path(made["folder"], made["dhis2"]["dump"]["file"])
    tool = ["docker", "exec", "-i", bundled.containers()["dhis2-db"]["id"], "pg_restore", "--list"]
    content = bytearray(path.read_bytes())
    listed = subprocess.run(tool, input=content, env=environment(), capture_output=True, check=True).stdout
    assert b"EXTENSION - pg_trgm" in listed and b"EXTENSION - hstore" in listed and b"TABLE DATA public route" in listed
    assert made["dhis2"]["tables"]["public.of_hstore"] == 1
    proven = chap(bundled, "verify", made["id"], "--deep")
    assert proven["tables"] == {**made["tables"], **made["dhis2"]["tables"]}
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert path.name in chap(bundled, "verify", made["id"], expect=1)["error"]["message"]


# What DHIS2's database is in most countries: PostgreSQL's own image with PostGIS on top.
POSTGIS = """\
FROM docker-chap-test/postgres:17
RUN apt-get update && apt-get install -y --no-install-recommends postgresql-17-postgis-3
LABEL docker-chap.test=1
"""
PLACES = "SELECT count(*), sum(ST_X(geometry)), min(ST_SRID(geometry)) FROM places"


@pytest.fixture
def with_postgis(tmp_path: Path) -> Iterator[SampleStack]:
    """A stack whose DHIS2 has a PostgreSQL with PostGIS, with places on the map and a reference system of its own."""
    image = "docker-chap-test/postgis:17"
    subprocess.run(["docker", "build", "-q", "-t", image, "-"], input=POSTGIS.encode(), env=environment(), check=True)
    stack = SampleStack.create(tmp_path, kind="bundled")
    file = stack.folder / "compose.yml"
    head, service, tail = file.read_text().partition("  dhis2-db:")
    file.write_text(head + service + tail.replace("docker-chap-test/postgres:17", image, 1))
    for started in running(stack):
        dhis2_sql(started, "CREATE EXTENSION postgis")
        dhis2_sql(
            started,
            "CREATE TABLE places AS SELECT id, ST_SetSRID(ST_MakePoint(id, -id), 4326) AS geometry"
            " FROM generate_series(1, 85) AS id; CREATE INDEX ON places USING gist (geometry);"
            " INSERT INTO spatial_ref_sys VALUES (990001, 'ministry', 1, '', '+proj=longlat')",
        )
        yield started


@pytest.mark.torture
def test_dhis2_with_postgis_is_proven_and_comes_back_by_hand(with_postgis: SampleStack) -> None:
    stack, query = with_postgis, "SELECT srtext FROM spatial_ref_sys WHERE auth_name = 'ministry'; "
    dhis2_sql(stack, "UPDATE spatial_ref_sys SET srtext = 'of ours' WHERE auth_name = 'ministry'")
    at_first = dhis2_sql(stack, query + PLACES)
    assert at_first[0] == "of ours" and at_first[1] == "85|3655|4326"
    made = chap(stack, "backup", "--with-dhis2")["backup"]
    assert made["dhis2"]["tables"]["public.places"] == 85
    proven = chap(stack, "verify", made["id"], "--deep")
    assert proven["tables"] == {**made["tables"], **made["dhis2"]["tables"]}

    dhis2_sql(stack, "DROP EXTENSION postgis CASCADE")
    instructions = Path(made["folder"], "RESTORE.txt").read_text().partition("DHIS2's database.")[2]
    commands = [line.strip() for line in instructions.splitlines() if line.startswith("   docker ")]
    assert len(commands) == 5
    for command in commands:
        subprocess.run(command, shell=True, cwd=made["folder"], env=environment(), check=True, capture_output=True)
    assert dhis2_sql(stack, query + PLACES) == at_first
