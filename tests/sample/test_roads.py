"""Roads from release to release that end badly, or seem to end well: as with the real CHAP.

Judged by SQL, the API and the container's state. Not part of a normal run: pytest tests/sample
"""

from __future__ import annotations

import pytest

from tests.sample.stack import SampleStack
from tests.sample.steps import (
    HEADS,
    PARAMS,
    TARGET,
    Make,
    by_hand,
    dangling,
    ended,
    eventually,
    first_backtest,
    log,
    mark,
    names,
    works,
)


@pytest.mark.parametrize("version", ["v2.3.0", "v2.3.1"])
def test_from_v2_2_0_the_chain_is_not_committed_and_all_is_green(make: Make, version: str) -> None:
    stack = make(version="v2.2.0")
    by_hand(stack, version)
    stack.wait_ready()
    identity, _ = first_backtest(stack)
    assert mark(stack) == HEADS["v2.2.0"]
    assert PARAMS < names(stack.columns()) and "backtest.specification_id" in names(stack.columns())
    assert dangling(stack) == 12 and stack.counts()["backtestspecification"] == 0
    assert stack.api("/health/ready")[0] == 200 and stack.api("/v1/crud/backtests")[0] == 200
    assert stack.api(f"/v1/crud/backtests/{identity}/full")[0] == 500
    assert not any(word in log(stack) for word in ("ERROR", "Error", "WARNI [", "Traceback"))
    # From here v2.5.1 can still be reached.
    by_hand(stack, "v2.5.1")
    stack.wait_ready()
    assert mark(stack) == HEADS["v2.5.1"] and dangling(stack) == 0
    works(stack)


def test_after_a_try_to_save_on_such_a_database_no_release_can_be_reached(make: Make) -> None:
    stack = make(version="v2.2.0")
    by_hand(stack, "v2.3.1")
    stack.wait_ready()
    status, answer = stack.api(f"/v1/test/backtest?dataset_id={first_backtest(stack)[1]}", "POST")
    assert status == 500 and 'null value in column "n_periods"' in answer["error"]
    by_hand(stack, "v2.5.1")
    assert eventually(lambda: ended(stack))
    assert "UniqueViolation" in log(stack) and "uq_backtestspecification_params" in log(stack)
    assert mark(stack) == HEADS["v2.2.0"]


def test_from_v2_3_0_to_v2_3_1_only_the_mark_stays_behind(make: Make) -> None:
    stack = make(version="v2.3.0")
    by_hand(stack, "v2.3.1")
    stack.wait_ready()
    assert mark(stack) == HEADS["v2.3.0"] and "backtest.chap_version" in names(stack.columns())
    works(stack)


@pytest.mark.parametrize("start", ["v2.0.0", "v2.1.0", "v2.2.0"])
@pytest.mark.parametrize("target", ["v2.4.0", "v2.5.1"])
def test_with_a_backtest_from_before_v2_3_0_newer_versions_exit(make: Make, start: str, target: str) -> None:
    stack = make(version=start)
    by_hand(stack, target)
    assert eventually(lambda: ended(stack))
    errors = [line for line in log(stack).splitlines() if line.startswith("sqlalchemy.exc.")]
    assert errors == [
        'sqlalchemy.exc.IntegrityError: (psycopg2.errors.NotNullViolation) null value in column "target_column"'
        ' of relation "backtestspecification" violates not-null constraint'
    ]
    # The statement is printed behind the error.
    assert "[SQL: " in log(stack).partition(errors[0])[2]
    assert mark(stack) == (HEADS[start] or "a7b8c9d0e1f2")


def test_without_a_backtest_they_do_not(make: Make) -> None:
    stack = make(version="v2.1.0")
    stack.sql("TRUNCATE backtest CASCADE")
    by_hand(stack, "v2.5.1")
    stack.wait_ready()
    assert mark(stack) == HEADS["v2.5.1"]


@pytest.mark.parametrize("version", ["v2.2.0", "v2.3.1", "v2.4.0", "v2.5.1"])
def test_a_stuck_database_ends_the_api(make: Make, version: str) -> None:
    stack = make(version="v2.1.0", settings=TARGET)
    stack.sql("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    stack.sql("INSERT INTO alembic_version VALUES ('ff2b1bbb8418')")
    by_hand(stack, "v2.1.5")
    stack.wait_ready()
    assert mark(stack) == "ff2b1bbb8418"
    by_hand(stack, version)
    assert eventually(lambda: ended(stack))
    raises = version in ("v2.4.0", "v2.5.1")
    assert ('DuplicateTable) relation "predictionsetup" already exists' in log(stack)) == raises
    assert ("modeltemplatedb_name_key" in log(stack)) != raises
    assert mark(stack) == "ff2b1bbb8418"
    stack.sql("DROP TABLE alembic_version")
    stack.compose("up", "-d", "--no-deps", stack.api_service)
    stack.wait_ready()
    assert mark(stack) == HEADS[version]
    works(stack)


def test_an_unknown_mark_is_passed_over_and_an_old_release_reads_a_new_database(make: Make) -> None:
    stack = make(version="v2.6.0")
    for version in ("v2.5.1", "v2.4.0", "v2.1.0"):
        by_hand(stack, version)
        stack.wait_ready()
        assert mark(stack) == HEADS["v2.6.0"] and stack.api("/v1/crud/datasets")[0] == 200
        warned = "Alembic revision 0b1c2d3e4f5a, which this release does not know" in log(stack)
        assert warned == (version != "v2.1.0")


@pytest.fixture
def configured(make: Make) -> SampleStack:
    """Return a stack that runs v2.3.1 with a model of the operator's own, named by a branch."""
    stack = make(version="v2.3.1")
    folder = stack.folder / "configured"
    folder.mkdir()
    (folder / "own.yaml").write_text('- url: https://git.example/own_model\n  versions: {v1: "@main"}\n')
    file = stack.files[0]
    mount = "      - ./configured:/app/config/configured_models:ro\n"
    logs = "      - chap-logs:/data/logs\n"
    file.write_text(file.read_text().replace(logs, logs + mount))
    stack.compose("up", "-d")
    stack.wait_ready()
    return stack


def test_a_configured_model_that_names_a_branch_ends_v2_4_0(configured: SampleStack) -> None:
    served = [model["name"] for model in configured.api("/v1/crud/configured-models")[1]]
    assert "own_model" in served
    by_hand(configured, "v2.4.0")
    assert eventually(lambda: ended(configured))
    last = [line for line in log(configured).splitlines() if line.strip()][-1]
    assert last.startswith("ValueError: Invalid model configuration file") and "'@main'" in last
    own = configured.folder / "configured/own.yaml"
    own.write_text(own.read_text().replace("main", "0123456789abcdef0123456789abcdef01234567"))
    configured.compose("up", "-d", "--no-deps", configured.api_service)
    configured.wait_ready()
