"""What the tests of the sample do to a stack, and what they look at in it."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.sample.stack import SampleStack

Make = Callable[..., SampleStack]

# Alembic's newest revision in each release; none where it does not mark a database.
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
# What v2.3.0 moves into a table of its own.
PARAMS = {f"backtest.{name}" for name in ("n_periods", "n_splits", "stride", "n_retrain", "future_weather_provider")}
# A chain of v2.4.0 and newer that also migrates evaluations from before v2.3.0.
TARGET = {"CHAP_TEST_TARGET_COLUMN": "disease_cases"}


def by_hand(stack: SampleStack, version: str) -> None:
    """Upgrade as the manual procedure does."""
    stack.pin(version)
    stack.compose("pull", "-q", stack.api_service, stack.worker_service)
    stack.compose("up", "-d", "--no-deps", stack.api_service, stack.worker_service)


def eventually(condition: Callable[[], bool], seconds: float = 40) -> bool:
    """Return whether the condition becomes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def answers(stack: SampleStack) -> bool:
    """Return whether the API's port is bound."""
    return stack.api("/health")[0] == 200


def names(columns: dict[str, list[str]]) -> set[str]:
    """Return the columns as `table.column`, without Alembic's own."""
    return {f"{table}.{column}" for table, of_it in columns.items() for column in of_it if table != "alembic_version"}


def mark(stack: SampleStack) -> str:
    """Return Alembic's mark; empty when there is none."""
    return stack.sql("SELECT version_num FROM alembic_version")[0][0] if "alembic_version" in stack.columns() else ""


def ended(stack: SampleStack) -> bool:
    """Return whether the API has exited with 1."""
    api = stack.containers()["chap"]
    return (api["state"], api["exit_code"]) == ("exited", 1)


def log(stack: SampleStack) -> str:
    """Return what the API's container has printed since it was made."""
    return stack.compose("logs", "--no-log-prefix", stack.api_service).stdout


def first_backtest(stack: SampleStack) -> tuple[str, str]:
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
    identity, dataset = first_backtest(stack)
    status, answer = stack.api(f"/v1/crud/backtests/{identity}/full")
    assert status == 200, answer
    if stack.version() not in ("2.0.0", "2.1.0"):
        params = {name: answer[name] for name in ("n_periods", "n_splits", "stride", "n_retrain")}
        assert params == {"n_periods": 3, "n_splits": 7, "stride": 1, "n_retrain": 1}
    assert stack.api(f"/v1/test/backtest?dataset_id={dataset}", "POST")[0] == 200
