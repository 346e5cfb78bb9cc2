"""Restores when it matters: the live database is damaged or gone, its container too, an old version is wanted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.calls import chap, until
from tests.e2e.faults import SEEDED, WRITERS, Picture, assert_old
from tests.sample.stack import SampleStack

OF_DATABASE = (
    "SELECT pg_get_userbyid(datdba), (SELECT string_agg(x::text, ' ' ORDER BY x::text) FROM unnest(datacl) x),"
    " shobj_description(oid, 'pg_database'), datcollate, pg_encoding_to_char(encoding),"
    " (SELECT string_agg(one, ' ' ORDER BY one) FROM pg_db_role_setting, unnest(setconfig) AS one"
    " WHERE setdatabase = d.oid)"
    " FROM pg_database d WHERE datname = '{}'"
)


def accepting(stack: SampleStack) -> bool:
    done = stack.compose("exec", "-T", stack.database_service, "pg_isready", "-h", "127.0.0.1", check=False)
    return "accepting" in done.stdout


def break_a_page(stack: SampleStack) -> None:
    """Overwrite the first page of a table on the disk, as a dying disk does."""
    ((path,),) = stack.sql("CHECKPOINT; SELECT pg_relation_filepath('observation')")
    stack.compose("stop", stack.api_service, stack.worker_service)
    stack.inside("sh", "-c", 'head -c 8192 /dev/urandom | dd of="$PGDATA/$1" conv=notrunc 2>/dev/null', "sh", path)


def lose_a_catalog_row(stack: SampleStack) -> None:
    """Take a table out of the catalog, while its columns and indexes stay there."""
    stack.sql("SET allow_system_table_mods = on; DELETE FROM pg_class WHERE relname = 'dataset'")


def lose_the_files(stack: SampleStack) -> None:
    """Remove the folder of the database: nobody can connect to it any more."""
    ((oid,),) = stack.sql("CHECKPOINT; SELECT oid FROM pg_database WHERE datname = current_database()")
    stack.compose("stop", stack.api_service, stack.worker_service)
    stack.inside("sh", "-c", 'rm -rf "$PGDATA/base/$1"', "sh", oid)


@pytest.fixture(scope="module")
def backup(small: SampleStack) -> str:
    small.sql("CREATE ROLE reader LOGIN", "postgres")
    small.sql(
        f"COMMENT ON DATABASE {small.database} IS 'of the ministry, ''2026''';"
        f"ALTER DATABASE {small.database} SET statement_timeout = '1h';"
        f'ALTER DATABASE {small.database} SET search_path = "$user", public;'
        f"REVOKE ALL ON DATABASE {small.database} FROM PUBLIC;"
        f"GRANT CONNECT ON DATABASE {small.database} TO reader"
    )
    return str(chap(small, "backup")["backup"]["id"])


@pytest.mark.torture
@pytest.mark.parametrize("harm", [break_a_page, lose_a_catalog_row, lose_the_files])
def test_a_damaged_database_does_not_block_a_restore(small: SampleStack, backup: str, harm: object) -> None:
    assert callable(harm)
    at_first, belongings = small.checksum(), small.sql(OF_DATABASE.format(small.database), "postgres")
    harm(small)
    small.compose("restart", small.database_service)
    until(lambda: accepting(small))
    if harm is not lose_a_catalog_row:
        chap(small, "backup", expect=1)
        assert not list((small.folder / "backups").glob("*.partial"))
    done = chap(small, "restore", backup, "--yes")
    # A table that the catalog has lost is not missed by those who read the catalog.
    assert harm is lose_a_catalog_row or any("is damaged" in note for note in done["notes"]), done["notes"]
    assert small.checksum() == at_first
    assert small.sql(OF_DATABASE.format(small.database), "postgres") == belongings
    # What is left of the damaged one is not thrown away by us.
    assert done["kept_database"] in small.databases()
    small.wait_ready()
    chap(small, "prune", "--keep-databases", "0", "--yes", "--set-aside")


def test_a_lost_database_gets_back_what_belonged_to_it(small: SampleStack, backup: str) -> None:
    at_first, belongings = small.checksum(), small.sql(OF_DATABASE.format(small.database), "postgres")
    small.sql(f"DROP DATABASE {small.database} WITH (FORCE)", "postgres")
    done = chap(small, "restore", backup, "--yes")
    assert small.checksum() == at_first and done["kept_database"] == ""
    assert small.sql(OF_DATABASE.format(small.database), "postgres") == belongings
    assert not [check for check in done["checks"] if check["name"] == "properties"]
    small.wait_ready()


@pytest.mark.torture
def test_a_manifest_gives_no_power_to_a_lost_database(small: SampleStack, backup: str, tmp_path: Path) -> None:
    result = [item for item in chap(small, "backups")["backups"] if item["id"] == backup][0]
    copy = tmp_path / backup
    shutil.copytree(result["folder"], copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["database"]["settings"] = [
        {"role": "", "name": "session_preload_libraries", "value": "/tmp/harm"},
        {"role": "", "name": "jit = off; RESET SESSION AUTHORIZATION; CREATE ROLE harm; --", "value": "on"},
        {"role": "chap", "name": "work_mem", "value": "9MB"},
        {"role": "", "name": "app.key", "value": None},
        {"role": "", "name": "search_path", "value": '"$user", public, "; CREATE ROLE harm"'},
    ]
    manifest["database"]["privileges"] += [{"role": "nobody there", "privilege": "CONNECT"}]
    manifest["database"]["privileges"] += [{"role": "reader", "privilege": "ALL ON DATABASE postgres TO reader; --"}]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    small.sql(f"DROP DATABASE {small.database} WITH (FORCE)", "postgres")
    done = chap(small, "restore", str(copy), "--yes")
    message = [item["message"] for item in done["checks"] if item["name"] == "properties"][0]
    for left_out in ("session_preload_libraries", "work_mem of chap", "app.key", "nobody there"):
        assert left_out in message
    assert not small.sql("SELECT 1 FROM pg_roles WHERE rolname ~ 'harm|docker_chap'", "postgres")
    evil = "SELECT setconfig FROM pg_db_role_setting WHERE setconfig::text ~ 'preload|key|jit'"
    assert not small.sql(evil, "postgres")
    small.wait_ready()
    chap(small, "restore", backup, "--yes")


def test_a_missing_database_container_is_made_again(small: SampleStack, backup: str) -> None:
    at_first = small.checksum()
    small.compose("rm", "-sf", small.database_service)
    refused = chap(small, "restore", backup, expect=2)["error"]
    assert "--yes" in refused["hint"] and small.database_service not in small.containers()
    done = chap(small, "restore", backup, "--yes")
    assert any(small.database_service in note for note in done["notes"])
    assert small.checksum() == at_first and done["kept_database"] in small.databases()
    small.wait_ready()


@pytest.mark.torture
def test_an_old_backup_is_migrated_or_brings_its_version_back(small: SampleStack, backup: str) -> None:
    before = Picture.of(small)
    chap(small, "upgrade", "v2.1.0", "--yes")
    new = Picture.of(small)

    migrated = chap(small, "restore", backup, "--yes")
    assert any("CHAP 2.1.0 will migrate it" in note and "--with-version" in note for note in migrated["notes"])
    assert small.version() == "2.1.0" and small.columns() == new.columns

    returned = chap(small, "restore", backup, "--yes", "--with-version")
    assert not any("migrate" in note for note in returned["notes"])
    assert small.version() == "2.0.0" and returned["kept_database"] in small.databases()
    now = Picture.of(small)
    assert now.files == before.files and now.columns == before.columns
    assert {name: checksum for name, checksum in now.checksum.items() if name not in SEEDED} == {
        name: checksum for name, checksum in before.checksum.items() if name not in SEEDED
    }
    for name in WRITERS:
        assert now.containers[name]["image_id"] == before.containers[name]["image_id"]
    assert {name: container["id"] for name, container in now.containers.items() if name not in WRITERS} == {
        name: container["id"] for name, container in new.containers.items() if name not in WRITERS
    }


@pytest.mark.torture
def test_a_version_that_was_brought_back_goes_again(small: SampleStack, backup: str) -> None:
    chap(small, "upgrade", "v2.1.0", "--yes")
    new = Picture.of(small)
    chap(small, "restore", backup, "--yes", "--with-version")
    chap(small, "restore", "--undo", "--yes")
    now = Picture.of(small)
    assert small.version() == "2.1.0" and now.files == new.files and now.checksum == new.checksum
    chap(small, "rollback", "--yes")


@pytest.mark.torture
def test_a_version_that_comes_back_sick_is_put_away_again(small: SampleStack, backup: str, tmp_path: Path) -> None:
    result = [item for item in chap(small, "backups")["backups"] if item["id"] == backup][0]
    copy = tmp_path / backup
    shutil.copytree(result["folder"], copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["chap"]["version"] = "2.1.1"
    for image in manifest["images"]:
        image["id"] = ""
    (copy / "manifest.json").write_text(json.dumps(manifest))
    small.sql("DELETE FROM observation WHERE id % 3 = 0")
    before = Picture.of(small)
    failed = chap(small, "restore", str(copy), "--yes", "--with-version", expect=3)["error"]
    assert "failed to start" in failed["message"] and "Everything is as it was" in failed["state"]
    assert_old(small, before)
