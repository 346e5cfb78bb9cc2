"""Ways between releases that go wrong, on a real engine: refused, mended, or explained; and dumps that take them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.calls import chap
from tests.e2e.conftest import running
from tests.sample.stack import SampleStack, environment

STUCK = (
    "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);"
    " INSERT INTO alembic_version VALUES ('ff2b1bbb8418')"
)
LENGTHS = "SELECT count(*) FROM modeltemplatedb WHERE min_prediction_length = 1 AND max_prediction_length = 6"
PERIODS = "SELECT count(*) FROM modeltemplatedb WHERE min_prediction_periods = 1 AND max_prediction_periods = 6"
BACKTESTS = "SELECT count(*) FROM backtest"


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """CHAP v2.1.0 with backtests, whose newer releases migrate them."""
    settings = {"CHAP_TEST_TARGET_COLUMN": "disease_cases"}
    yield from running(SampleStack.create(tmp_path_factory.mktemp("lenient"), version="v2.1.0", settings=settings))


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """CHAP v2.1.0 with backtests, whose newer releases end on them."""
    yield from running(SampleStack.create(tmp_path_factory.mktemp("strict"), version="v2.1.0"))


def number(stack: SampleStack, query: str) -> int:
    return int(stack.sql(query)[0][0])


def check(document: Any, name: str) -> Any:
    return next(candidate for candidate in document["checks"] if candidate["name"] == name)


def dump(stack: SampleStack, path: Path, *words: str) -> Path:
    """Make a dump by hand, as operators do."""
    path.write_bytes(stack.inside("pg_dump", "-U", "chap", "-d", "chap_core", "-Fc", *words))
    return path


def test_a_database_with_an_old_mark_is_refused_then_mended_and_its_values_put_back(
    lenient: SampleStack, tmp_path: Path
) -> None:
    stack, lengths = lenient, number(lenient, LENGTHS)
    assert lengths >= 8 and number(stack, BACKTESTS) > 0
    old = dump(stack, tmp_path / "old.dump")
    stack.sql(STUCK)
    before = stack.checksum()

    refused = chap(stack, "upgrade", "v2.5.1", "--yes", expect=1)
    assert "ff2b1bbb8418" in refused["error"]["message"] and "--repair" in refused["error"]["hint"]
    assert check(refused, "old_mark")["status"] == "fail" and refused["run"] is None
    failed = chap(stack, "upgrade", "v2.5.1", "--yes", "--allow-old-mark", expect=3)
    assert "CHAP ended at its start: sqlalchemy.exc.ProgrammingError: (psycopg2.errors." in failed["error"]["message"]
    assert check(failed, "start")["status"] == "fail" and Path(failed["report"]).is_file()
    assert stack.checksum() == before and stack.version() == "2.1.0"
    assert [name for name in stack.databases() if name.endswith("_failed")] == []

    done = chap(stack, "upgrade", "v2.5.1", "--yes", "--repair")
    assert stack.version() == "2.5.1" and number(stack, PERIODS) >= lengths
    assert stack.sql("SELECT version_num FROM alembic_version") == [["de7478f3ff6d"]]
    assert "put_back" not in check(done, "values")["details"]
    assert {result["name"] for result in done["checks"] if result["message"].startswith(("The values", "Alembic"))} == {
        "repaired"
    }

    # The same data, from before v2.2.0, onto the newer code.
    chap(stack, "restore", str(old), "--yes")
    assert number(stack, PERIODS) >= lengths and stack.api("/v1/crud/backtests/1/full")[0] == 200
    empty = dump(stack, tmp_path / "empty.dump", "-s")
    message = chap(stack, "restore", str(empty), "--yes", expect=1)["error"]
    assert "not one row" in message["message"] and "--allow-empty" in message["hint"]
    newer = dump(stack, tmp_path / "newer.dump")

    chap(stack, "restore", "--undo", "--yes")
    undone = chap(stack, "rollback", "--yes")
    assert undone["written_since"] == {} and stack.checksum() == before
    message = chap(stack, "restore", str(newer), "--yes", expect=1)["error"]
    assert "newer CHAP" in message["message"] and "de7478f3ff6d" in message["message"]
    assert not chap(stack, "backup")["backup"]["absent_tables"]
    stack.sql("DROP TABLE alembic_version")


def test_values_that_a_migration_loses_come_back_by_what_is_printed(lenient: SampleStack) -> None:
    stack, lengths = lenient, number(lenient, LENGTHS)
    assert check(chap(stack, "check", "v2.5.1"), "prediction_length")["status"] == "warn"
    done = chap(stack, "upgrade", "v2.5.1", "--yes")
    values = check(done, "values")
    assert values["status"] == "warn" and number(stack, PERIODS) < lengths
    assert {value["column"].rpartition(".")[2]: value["rows"] for value in values["details"]["moved"]} == {
        "min_prediction_length": lengths,
        "max_prediction_length": lengths,
    }
    pasted = values["details"]["put_back"]["command"]
    subprocess.run(["sh", "-c", pasted], check=True, cwd="/", env=environment(), capture_output=True)
    assert number(stack, PERIODS) >= lengths


def test_a_way_with_a_stop_is_named_when_it_failed(strict: SampleStack) -> None:
    before = strict.checksum()
    assert check(chap(strict, "check", "v2.5.1"), "target_column")["status"] == "warn"
    failed = chap(strict, "upgrade", "v2.5.1", "--yes", expect=3)
    assert "NotNullViolation" in failed["error"]["message"] and "[SQL" not in failed["error"]["message"]
    assert failed["error"]["hint"].startswith("Go to v2.3.1 first: docker chap upgrade v2.3.1.")
    assert strict.checksum() == before
    chap(strict, "upgrade", "v2.3.1", "--yes")
    chap(strict, "upgrade", "v2.5.1", "--yes")
    assert strict.version() == "2.5.1" and strict.api("/v1/crud/backtests/1/full")[0] == 200
    note = check(chap(strict, "upgrade", "v2.6.0", "--dry-run"), "note_newer")
    assert note["status"] == "warn" and "2.5.1" in note["message"]


def test_the_way_that_is_not_committed_is_refused(strict: SampleStack) -> None:
    chap(strict, "rollback", "--yes")
    chap(strict, "rollback", "--yes")
    chap(strict, "upgrade", "v2.2.0", "--yes")
    for target in ("v2.3.0", "v2.3.1"):
        refused = chap(strict, "upgrade", target, "--yes", expect=1)
        assert check(refused, "uncommitted_migration")["status"] == "fail"
        assert "docker chap upgrade v2.5.1" in refused["error"]["hint"]
        assert "--allow-uncommitted-migration" in refused["error"]["hint"]
    assert strict.version() == "2.2.0"
