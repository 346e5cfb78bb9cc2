"""Ways between releases that go wrong, on a real engine: refused, mended, or explained; and dumps that take them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.calls import chap
from tests.e2e.conftest import running
from tests.sample.stack import SampleStack, environment
from tests.sample.steps import by_hand, eventually

STUCK = (
    "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);"
    " INSERT INTO alembic_version VALUES ('ff2b1bbb8418')"
)
LENGTHS = "SELECT count(*) FROM modeltemplatedb WHERE min_prediction_length = 1 AND max_prediction_length = 6"
PERIODS = "SELECT count(*) FROM modeltemplatedb WHERE min_prediction_periods = 1 AND max_prediction_periods = 6"
BACKTESTS = "SELECT count(*) FROM backtest"
ORPHANS = (
    "SELECT count(*) FROM backtest b WHERE NOT EXISTS"
    " (SELECT FROM backtestspecification s WHERE s.id = b.specification_id)"
)
# What all specifications are about, and that a new one has to say it too.
TARGETS = (
    "SELECT DISTINCT target_column, coalesce(column_default, '') FROM backtestspecification, information_schema.columns"
    " WHERE table_name = 'backtestspecification' AND column_name = 'target_column'"
)


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
    assert "CHAP failed to start: sqlalchemy.exc.ProgrammingError: (psycopg2.errors." in failed["error"]["message"]
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
    assert "docker chap upgrade v2.5.1 --repair" in failed["error"]["hint"]
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


def mended(stack: SampleStack, before: Any) -> None:
    """Check that data from before v2.3.0 came to v2.5.1 with their backtests, and that a rollback undoes it."""
    assert stack.version() == "2.5.1" and stack.api("/v1/crud/backtests/1/full")[0] == 200
    assert stack.sql(ORPHANS) == [["0"]] and stack.sql(TARGETS) == [["disease_cases", ""]]
    dataset = stack.sql("SELECT dataset_id FROM backtest ORDER BY id LIMIT 1")[0][0]
    assert stack.api(f"/v1/test/backtest?dataset_id={dataset}", "POST")[0] == 200
    chap(stack, "rollback", "--yes")
    assert stack.checksum() == before


def test_what_v2_4_0_ends_on_is_mended_on_the_way_and_in_a_rehearsal(strict: SampleStack) -> None:
    stack = strict
    assert stack.version() == "2.2.0"
    before = stack.checksum()
    failed = chap(stack, "rehearse", "v2.5.1", expect=1)
    way = check(failed, "good_way")
    assert way["hint"].endswith("docker chap upgrade v2.5.1 --repair") and failed["repairs"] == []
    tried = chap(stack, "rehearse", "v2.5.1", "--repair")
    assert tried["verdict"] == "good" and tried["repairs"] == ["target_column"]
    assert "backtestspecification was made" in check(tried, "repaired")["message"]
    assert stack.checksum() == before

    failed = chap(stack, "upgrade", "v2.5.1", "--yes", expect=3)
    assert failed["error"]["hint"].startswith("Let the upgrade make that table before it starts")
    chap(stack, "upgrade", "v2.5.1", "--yes", "--repair")
    mended(stack, before)


def back_to_v2_1_0(stack: SampleStack) -> SampleStack:
    """Return the stack at the version that it was made with, whatever ran before."""
    if stack.version() != "2.1.0":
        chap(stack, "rollback", "--yes")
    assert stack.version() == "2.1.0"
    return stack


@pytest.mark.torture
def test_data_from_before_v2_2_0_come_to_v2_5_1_in_a_single_step_with_their_lengths(strict: SampleStack) -> None:
    stack = back_to_v2_1_0(strict)
    before, lengths = stack.checksum(), number(stack, LENGTHS)
    tried = chap(stack, "rehearse", "v2.5.1", "--repair")
    assert tried["repairs"] == ["target_column", "prediction_length"] and check(tried, "values")["status"] == "ok"
    assert check(chap(stack, "rehearse", "v2.3.1"), "values")["status"] == "warn"
    chap(stack, "upgrade", "v2.5.1", "--yes", "--repair")
    assert number(stack, PERIODS) >= lengths
    mended(stack, before)


@pytest.mark.torture
def test_a_database_that_v2_3_1_left_half_migrated_is_led_on(strict: SampleStack) -> None:
    stack = back_to_v2_1_0(strict)
    chap(stack, "upgrade", "v2.2.0", "--yes")
    by_hand(stack, "v2.3.1")
    stack.wait_ready()
    # Somebody tried an old backtest again: it was not saved, and left its parameters.
    dataset = stack.sql("SELECT dataset_id FROM backtest ORDER BY id LIMIT 1")[0][0]
    assert stack.api(f"/v1/test/backtest?dataset_id={dataset}", "POST")[0] == 500
    assert number(stack, "SELECT count(*) FROM backtestspecification") == 1
    before = stack.checksum()
    assert chap(stack, "status")["schema"]["verdict"] == "not migrated"
    refused = chap(stack, "upgrade", "v2.5.1", "--yes", expect=1)
    assert check(refused, "half_migrated")["status"] == "fail" and "--repair" in refused["error"]["hint"]
    failed = chap(stack, "upgrade", "v2.5.1", "--yes", "--allow-half-migrated", expect=3)
    assert "UniqueViolation" in failed["error"]["message"]
    assert failed["error"]["hint"].startswith("Let the upgrade remove what failed backtests left")
    assert stack.checksum() == before
    chap(stack, "upgrade", "v2.5.1", "--yes", "--repair")
    mended(stack, before)


MODELS = "- url: https://models.example/ewars\n  versions: {{v1: '{}'}}\n"
PINNED = "58d56f86641f4c7b09bbb635afd61740deff0640"


def with_local_models(stack: SampleStack, reference: str) -> None:
    """Mount a file of configured models that names a version, as an operator adds one."""
    (stack.folder / "local.yaml").write_text(MODELS.format(reference))
    (stack.folder / "local.yaml").chmod(0o644)
    mount = "      - ./local.yaml:/app/config/configured_models/local.yaml:ro\n"
    text = stack.files[0].read_text()
    if mount not in text:
        stack.files[0].write_text(
            text.replace("      - chap-runs:/data/runs\n", f"      - chap-runs:/data/runs\n{mount}")
        )


@pytest.mark.torture
@pytest.mark.parametrize("reference", ["main", PINNED[:7]])
def test_a_model_that_can_move_is_refused_and_what_was_overridden_is_recorded(tmp_path: Path, reference: str) -> None:
    stack = SampleStack.create(tmp_path, version="v2.3.1", settings={"CHAP_TEST_BASELINE_SECONDS": "600"})
    with_local_models(stack, reference)
    (tmp_path / "compose.marketplace.yml").write_text("services: {}\n")
    for running_stack in running(stack):
        assert running_stack is stack
        refused = chap(stack, "upgrade", "v2.5.1", "--yes", expect=1)
        unpinned = check(refused, "unpinned_models")
        assert (
            unpinned["status"] == "fail" and f"v1: {reference} of https://models.example/ewars" in unpinned["message"]
        )
        assert "--allow-unpinned-models" in refused["error"]["hint"] and chap(stack, "history")["runs"] == []
        failed = chap(stack, "upgrade", "v2.5.1", "--yes", "--allow-unpinned-models", expect=3)
        assert "ValueError" in failed["error"]["message"] and "local.yaml" in failed["error"]["message"]
        (run,) = chap(stack, "history")["runs"]
        assert (
            run["overridden"] == ["unpinned_models"] and run["result"] == "rolled back" and stack.version() == "2.3.1"
        )

        with_local_models(stack, PINNED)
        done = chap(stack, "upgrade", "v2.5.1", "--yes")
        kept = json.loads((Path(done["backup"]) / "manifest.json").read_text())["files"]
        assert {"compose.yml", "compose.marketplace.yml"} <= {Path(file["path"]).name for file in kept}
        assert chap(stack, "verify", Path(done["backup"]).name)["ok"]
        jobs_that_nobody_began(stack)


def jobs_that_nobody_began(stack: SampleStack) -> None:
    """Check that baselines, which CHAP queues when a specification is read, stand in nobody's way, and are named."""
    identity = stack.api("/v1/crud/backtest-specifications")[1][0]["id"]
    assert stack.api(f"/v1/crud/backtest-specifications/{identity}")[0] == 200
    assert eventually(lambda: bool(check(chap(stack, "check"), "jobs")["details"].get("own")))
    planned = chap(stack, "upgrade", "v2.6.0", "--dry-run")
    jobs = check(planned, "jobs")
    assert jobs["status"] == "ok" and jobs["details"]["running"] == jobs["details"]["waiting"] == []
    assert "No job that a person started is running." in jobs["message"] and "queued by itself" in jobs["message"]


@pytest.mark.torture
def test_each_refusal_that_was_overridden_is_in_the_history(tmp_path: Path) -> None:
    for stack in running(SampleStack.create(tmp_path, version="v2.2.0")):
        before = stack.checksum()
        failed = chap(stack, "upgrade", "v2.3.1", "--yes", "--allow-uncommitted-migration", expect=3)
        assert "not migrated" in failed["error"]["message"] and stack.checksum() == before
        assert check(failed, "schema")["status"] == "fail"
        report = json.loads(Path(failed["report"]).read_text())
        assert report["overridden"] == ["uncommitted_migration"] and report["result"] == "rolled back"
        assert [run["overridden"] for run in chap(stack, "history")["runs"]] == [["uncommitted_migration"]]
