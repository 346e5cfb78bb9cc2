"""From one release of the sample to the next, the database and the API become what they become with the real CHAP.

Judged by SQL, the API and the container's state. Not part of a normal run: pytest tests/sample
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.sample.steps import HEADS, PARAMS, TARGET, Make, by_hand, eventually, log, mark, names, works

# What a release has more than the one before it, and what it has no longer.
LENGTHS = {"modeltemplatedb.min_prediction_length", "modeltemplatedb.max_prediction_length"}
NEW_COLUMNS = {
    "v2.1.0": {"backtest.max_horizon_distance"},
    "v2.2.0": {
        "configuredmodeldb.configuration_digest",
        "configuredmodeldb.is_live",
        "modeltemplatedb.is_live",
        "modeltemplatedb.source_digest",
        "modeltemplatedb.min_prediction_periods",
        "modeltemplatedb.max_prediction_periods",
        *PARAMS,
    },
    "v2.3.0": {"backtest.specification_id"},
    "v2.3.1": {"backtest.chap_version"},
    "v2.4.0": {
        "dataset.created_manually",
        "predictionsetup.alert_policy_id",
        "backtestspecification.target_column",
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


@dataclass(frozen=True)
class Road:
    """An upgrade of a filled database that ends well."""

    start: str
    target: str
    target_column: bool = False

    def __str__(self) -> str:
        return f"{self.start}-{self.target}"


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
    Road("v2.0.0", "v2.5.1", target_column=True),
    Road("v2.1.0", "v2.5.1", target_column=True),
    Road("v2.2.0", "v2.4.0", target_column=True),
]


@pytest.mark.parametrize("road", ROADS, ids=str)
def test_an_upgrade_that_ends_well(make: Make, road: Road) -> None:
    stack = make(version=road.start, settings=TARGET if road.target_column else {})
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
    after = stack.counts()
    assert {table for table in rows if table not in seeded and after[table] != rows[table]} == set()
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
        ["naive_model", "", "", ""],
        ["chap_auto_ewars_monthly", "v1", "1", "6"],
    ]
    by_hand(stack, "v2.2.0")
    stack.wait_ready()
    now = stack.sql(horizon.format("periods"))
    assert now[:2] == [["naive_model", "legacy-unversioned", "0", "0"], ["chap_auto_ewars_monthly", "v1", "0", "0"]]
    # The naive model has a version now, and so comes a second time; the older row is not served any more.
    assert [row[:2] for row in now[11:]] == [["naive_model", "1"]]
    assert stack.sql("SELECT is_live FROM modeltemplatedb WHERE name = 'naive_model' ORDER BY id") == [["f"], ["t"]]
    assert len(stack.api("/v1/crud/configured-models")[1]) == 11
    unique = "SELECT conname FROM pg_constraint WHERE contype = 'u' AND conrelid = 'modeltemplatedb'::regclass"
    assert stack.sql(unique) == [["uq_modeltemplatedb_name_version"]]
    digests = stack.sql("SELECT DISTINCT length(configuration_digest) FROM configuredmodeldb")
    assert digests == [["64"]]


def test_baselines_are_queued_by_the_api_itself(make: Make) -> None:
    stack = make(version="v2.5.1", settings={"CHAP_TEST_BASELINE_SECONDS": "1"})
    identity = stack.sql("SELECT max(id) FROM backtestspecification")[0][0]
    before = stack.counts()
    assert stack.api(f"/v1/crud/backtest-specifications/{identity}")[0] == 200
    assert eventually(lambda: list(stack.jobs().values()) == ["SUCCESS"] * 3)
    jobs = stack.api("/v1/jobs")[1]
    assert {job["type"] for job in jobs} == {"run_baseline"}
    assert {job["name"] for job in jobs} == {
        "baseline/global_median",
        "baseline/persistence",
        "baseline/seasonal_median",
    }
    grown = {table for table, rows in stack.counts().items() if rows != before[table]}
    assert grown == {"backtest", "specificationbaseline"}
    assert stack.counts()["backtest"] == before["backtest"] + 3
    # Read a second time, nothing is queued again.
    stack.api(f"/v1/crud/backtest-specifications/{identity}")
    assert len(stack.jobs()) == 3


def test_from_v2_2_0_a_model_that_cannot_be_fetched_is_passed_over(make: Make) -> None:
    stack = make(version="v2.2.0", settings={"CHAP_TEST_MODELS_URL": "http://127.0.0.1:9"})
    assert [model["name"] for model in stack.api("/v1/crud/configured-models")[1]] == ["naive_model"]
    assert log(stack).count("Could not seed the model") == 10


def test_the_token_goes_by_each_of_three_ways(make: Make) -> None:
    stack = make(version="v2.2.0", settings={"CHAP_API_TOKEN": "secret"})
    answers = {
        header: stack.docker(
            "exec",
            stack.containers()["chap"]["id"],
            "python3",
            "-c",
            "import urllib.request as u, sys; print(u.urlopen(u.Request('http://127.0.0.1:8000/v1/jobs',"
            " headers=dict([sys.argv[1].split(': ')]))).status)",
            header,
            check=False,
        ).stdout.strip()
        for header in (
            "Authorization: Bearer secret",
            "Authorization: ApiToken secret",
            "X-Service-Key: secret",
            "Authorization: Basic secret",
            "Accept: secret",
        )
    }
    assert list(answers.values()) == ["200", "200", "200", "", ""]
    stack.token = ""
    assert stack.api("/system/info")[1]["auth_required"] is True and stack.api("/health/ready")[0] == 200
