"""From one release of the sample to the next, the database and the API become what they become with the real CHAP.

Judged by SQL, the API and the container's state. Not part of a normal run: pytest tests/sample
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sample.stack import SampleStack
from tests.sample.test_sample import Make, by_hand, eventually, make

__all__ = ["make"]  # a fixture

HEADS = {
    "v2.0.0": "",
    "v2.1.0": "",
    "v2.2.0": "e1f2a3b4c5d6",
    "v2.3.0": "f2a3b4c5d6e1",
    "v2.3.1": "a3b4c5d6e7f2",
    "v2.4.0": "e7f8a3b4c5d6",
    "v2.5.1": "de7478f3ff6d",
    "v2.6.0": "0b1c2d3e4f5a",
}
# What a release has more than the one before it, and what it has no longer.
LENGTHS = {"modeltemplatedb.min_prediction_length", "modeltemplatedb.max_prediction_length"}
PARAMS = {
    f"backtest.{name}" for name in ("n_periods", "n_splits", "stride", "n_retrain", "future_weather_provider")
}
NEW_COLUMNS = {
    "v2.1.0": {"backtest.max_horizon_distance"},
    "v2.2.0": {
        "configuredmodeldb.configuration_digest", "configuredmodeldb.is_live", "modeltemplatedb.is_live",
        "modeltemplatedb.source_digest", "modeltemplatedb.min_prediction_periods",
        "modeltemplatedb.max_prediction_periods", *PARAMS,
    },
    "v2.3.0": {"backtest.specification_id"},
    "v2.3.1": {"backtest.chap_version"},
    "v2.4.0": {
        "dataset.created_manually", "predictionsetup.alert_policy_id", "backtestspecification.target_column",
    },
    "v2.5.1": {"modeltemplatedb.role"},
    "v2.6.0": {"dataset.source_revision"},
}
LOST_COLUMNS = {"v2.2.0": LENGTHS, "v2.3.0": PARAMS}
NEW_TABLES = {
    "v2.3.0": {"backtestspecification"},
    "v2.4.0": {"alertpolicy", "alert"},
    "v2.5.1": {"specificationbaseline"},
}
TARGET = {"CHAP_TEST_TARGET_COLUMN": "disease_cases"}


@dataclass(frozen=True)
class Road:
    """An upgrade of a filled database that ends well."""

    start: str
    target: str
    settings: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.start}-{self.target}"


def names(columns: dict[str, list[str]]) -> set[str]:
    """Return the columns as `table.column`, without Alembic's own."""
    return {f"{table}.{column}" for table, of_it in columns.items() for column in of_it if table != "alembic_version"}


def mark(stack: SampleStack) -> str:
    """Return Alembic's mark; empty when there is none."""
    return stack.sql("SELECT version_num FROM alembic_version")[0][0] if "alembic_version" in stack.columns() else ""


def ended(stack: SampleStack) -> bool:
    """Return whether the API has exited with 1."""
    api = stack.containers()["chap"]
    return api["state"] == "exited" and api["exit_code"] == 1


def log(stack: SampleStack) -> str:
    """Return what the API's container has printed since it was made."""
    return stack.compose("logs", "--no-log-prefix", stack.api_service).stdout


def one_backtest(stack: SampleStack) -> tuple[str, str]:
    """Return the id of a filled evaluation and of its dataset."""
    identity, dataset = stack.sql("SELECT id, dataset_id FROM backtest WHERE name LIKE 'Evaluation%' ORDER BY id")[0]
    return identity, dataset


def dangling(stack: SampleStack) -> int:
    """Return the number of evaluations whose specification is not there."""
    query = (
        "SELECT count(*) FROM backtest AS b"
        " WHERE NOT EXISTS (SELECT FROM backtestspecification AS s WHERE s.id = b.specification_id)"
    )
    return int(stack.sql(query)[0][0])


def works(stack: SampleStack) -> None:
    """Read an evaluation with its parameters, and save one for the same dataset."""
    identity, dataset = one_backtest(stack)
    status, found = stack.api(f"/v1/crud/backtests/{identity}/full")
    assert status == 200, found
    if stack.version() not in ("2.0.0", "2.1.0"):
        params = {name: found[name] for name in ("n_periods", "n_splits", "stride", "n_retrain")}
        assert params == {"n_periods": 3, "n_splits": 7, "stride": 1, "n_retrain": 1}
    assert stack.api(f"/v1/test/backtest?dataset_id={dataset}", "POST")[0] == 200


def between(start: str, target: str) -> list[str]:
    """Return the releases after `start` up to `target`."""
    return [version for version in HEADS if start < version <= target]


ROADS = [
    Road("v2.0.0", "v2.1.0"),
    Road("v2.1.0", "v2.2.0"),
    Road("v2.1.0", "v2.3.0"),
    Road("v2.0.0", "v2.3.1"),
    Road("v2.3.0", "v2.4.0"),
    Road("v2.3.1", "v2.5.1"),
    Road("v2.4.0", "v2.5.1"),
    Road("v2.5.1", "v2.6.0"),
    Road("v2.0.0", "v2.5.1", tuple(TARGET.items())),
    Road("v2.1.0", "v2.5.1", tuple(TARGET.items())),
    Road("v2.2.0", "v2.4.0", tuple(TARGET.items())),
]


@pytest.mark.parametrize("road", ROADS, ids=str)
def test_an_upgrade_that_ends_well(make: Make, road: Road) -> None:
    stack = make(version=road.start, settings=dict(road.settings))
    before, rows = stack.columns(), stack.counts()
    assert mark(stack) == HEADS[road.start]
    by_hand(stack, road.target)
    stack.wait_ready()
    assert mark(stack) == HEADS[road.target]
    expected, tables = names(before), set(before)
    for version in between(road.start, road.target):
        expected = (expected | NEW_COLUMNS[version]) - LOST_COLUMNS.get(version, set())
        tables |= NEW_TABLES.get(version, set())
    now = stack.columns()
    assert set(now) - {"alembic_version"} == tables - {"alembic_version"}
    assert {name for name in names(now) if name.partition(".")[0] in before} == {
        name for name in expected if name.partition(".")[0] in before
    }
    assert "Traceback" not in log(stack)
    seeded = {"modeltemplatedb", "configuredmodeldb", "alembic_version"}
    assert {t for t in rows if t not in seeded and stack.counts()[t] != rows[t]} == set()
    works(stack)


@pytest.mark.parametrize("version", [version for version in HEADS if version != "v2.0.0"])
def test_a_fresh_database_is_at_the_head_and_every_table_can_be_filled(make: Make, version: str) -> None:
    stack = make(version=version)
    assert mark(stack) == HEADS[version]
    assert {table for table, rows in stack.counts().items() if not rows} == {"modelspec", "modelfeaturelink"}
    stack.fill(rows=100)
    works(stack)
    if version == "v2.1.0":
        assert len(names(stack.columns())) == 128


def test_templates_and_configurations_get_versions_and_lose_their_horizon(make: Make) -> None:
    stack = make(version="v2.1.0")
    horizon = "SELECT name, version, min_prediction_{0}, max_prediction_{0} FROM modeltemplatedb ORDER BY id"
    assert stack.sql(horizon.format("length"))[:2] == [
        ["naive_model", "", "", ""], ["chap_auto_ewars_monthly", "v1", "1", "6"]
    ]
    by_hand(stack, "v2.2.0")
    stack.wait_ready()
    now = stack.sql(horizon.format("periods"))
    assert now[:2] == [["naive_model", "legacy-unversioned", "0", "0"], ["chap_auto_ewars_monthly", "v1", "0", "0"]]
    # The naive model has a version now, and so comes a second time; the older row is not served any more.
    assert [row[:2] for row in now[11:]] == [["naive_model", "1"]]
    assert stack.sql("SELECT is_live FROM modeltemplatedb WHERE name = 'naive_model' ORDER BY id") == [["f"], ["t"]]
    assert len(stack.api("/v1/crud/configured-models")[1]) == 11
    unique = "SELECT conname FROM pg_constraint WHERE contype = 'u' AND conrelid::regclass::text LIKE '%modeltemplatedb'"
    assert stack.sql(unique) == [["uq_modeltemplatedb_name_version"]]
    digests = stack.sql("SELECT DISTINCT length(configuration_digest) FROM configuredmodeldb")
    assert digests == [["64"]]


@pytest.mark.parametrize("version", ["v2.3.0", "v2.3.1"])
def test_from_v2_2_0_the_chain_is_not_committed_and_all_is_green(make: Make, version: str) -> None:
    stack = make(version="v2.2.0")
    by_hand(stack, version)
    stack.wait_ready()
    identity, _ = one_backtest(stack)
    assert mark(stack) == HEADS["v2.2.0"]
    assert PARAMS < names(stack.columns()) and "backtest.specification_id" in names(stack.columns())
    assert dangling(stack) == 12 and stack.counts()["backtestspecification"] == 0
    assert stack.api("/health/ready")[0] == 200 and stack.api("/v1/crud/backtests")[0] == 200
    assert stack.api(f"/v1/crud/backtests/{identity}/full")[0] == 500
    assert not any(word in log(stack).lower() for word in ("error", "warning", "traceback"))
    # From here v2.5.1 can still be reached.
    by_hand(stack, "v2.5.1")
    stack.wait_ready()
    assert mark(stack) == HEADS["v2.5.1"] and dangling(stack) == 0
    works(stack)


def test_after_a_try_to_save_on_such_a_database_no_release_can_be_reached(make: Make) -> None:
    stack = make(version="v2.2.0")
    by_hand(stack, "v2.3.1")
    stack.wait_ready()
    status, answer = stack.api(f"/v1/test/backtest?dataset_id={one_backtest(stack)[1]}", "POST")
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
def test_with_a_backtest_from_before_v2_3_0_the_newer_ones_exit(make: Make, start: str, target: str) -> None:
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


def test_baselines_are_queued_by_the_api_itself(make: Make) -> None:
    stack = make(version="v2.5.1", settings={"CHAP_TEST_BASELINE_SECONDS": "1"})
    identity = stack.sql("SELECT max(id) FROM backtestspecification")[0][0]
    before = stack.counts()
    assert stack.api(f"/v1/crud/backtest-specifications/{identity}")[0] == 200
    assert eventually(lambda: list(stack.jobs().values()) == ["SUCCESS"] * 3)
    jobs = stack.api("/v1/jobs")[1]
    assert {job["type"] for job in jobs} == {"run_baseline"}
    assert {job["name"] for job in jobs} == {
        "baseline/global_median", "baseline/persistence", "baseline/seasonal_median"
    }
    grown = {table for table, rows in stack.counts().items() if rows != before[table]}
    assert grown == {"backtest", "specificationbaseline"}
    assert stack.counts()["backtest"] == before["backtest"] + 3
    # Read a second time, nothing is queued again.
    stack.api(f"/v1/crud/backtest-specifications/{identity}")
    assert len(stack.jobs()) == 3


@pytest.fixture
def configured(make: Make) -> Iterator[SampleStack]:
    """Yield a stack that runs v2.3.1 with a model of the operator's own, named by a branch."""
    stack = make(version="v2.3.1")
    folder = stack.folder / "configured"
    folder.mkdir()
    (folder / "own.yaml").write_text('- url: https://git.example/own_model\n  versions: {v1: "@main"}\n')
    file = stack.files[0]
    mount = "      - ./configured:/app/config/configured_models:ro\n"
    file.write_text(file.read_text().replace("      - chap-logs:/data/logs\n", f"      - chap-logs:/data/logs\n{mount}"))
    stack.compose("up", "-d")
    stack.wait_ready()
    yield stack


def test_a_configured_model_that_names_a_branch_ends_v2_4_0(configured: SampleStack) -> None:
    names_of = [model["name"] for model in configured.api("/v1/crud/configured-models")[1]]
    assert "own_model" in names_of
    by_hand(configured, "v2.4.0")
    assert eventually(lambda: ended(configured))
    last = [line for line in log(configured).splitlines() if line.strip()][-1]
    assert last.startswith("ValueError: Invalid model configuration file") and "'@main'" in last
    own = configured.folder / "configured/own.yaml"
    own.write_text(own.read_text().replace("main", "0123456789abcdef0123456789abcdef01234567"))
    configured.compose("up", "-d", "--no-deps", configured.api_service)
    configured.wait_ready()


def test_from_v2_2_0_a_model_that_cannot_be_fetched_is_passed_over(make: Make) -> None:
    stack = make(version="v2.2.0", settings={"CHAP_TEST_MODELS_URL": "http://127.0.0.1:9"})
    assert [model["name"] for model in stack.api("/v1/crud/configured-models")[1]] == ["naive_model"]
    assert log(stack).count("Could not seed the model") == 10


def test_the_token_goes_by_each_of_three_ways(make: Make, tmp_path: Path) -> None:
    stack = make(version="v2.2.0", settings={"CHAP_API_TOKEN": "secret"})
    answers = {
        header: stack.docker(
            "exec", stack.containers()["chap"]["id"], "python3", "-c",
            "import urllib.request as u, sys; print(u.urlopen(u.Request('http://127.0.0.1:8000/v1/jobs',"
            " headers=dict([sys.argv[1].split(': ')]))).status)",
            header,
            check=False,
        ).stdout.strip()
        for header in ("Authorization: Bearer secret", "Authorization: ApiToken secret", "X-Service-Key: secret",
                       "Authorization: Basic secret", "Accept: secret")
    }
    assert list(answers.values()) == ["200", "200", "200", "", ""]
    stack.token = ""
    assert stack.api("/system/info")[1]["auth_required"] is True and stack.api("/health/ready")[0] == 200
