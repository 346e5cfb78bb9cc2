"""The sample behaves as the real CHAP does, its vices included: else the other tests prove nothing.

Not part of a normal run: pytest tests/sample
"""

from __future__ import annotations

import time

import pytest

from tests.sample.stack import SampleError
from tests.sample.steps import Make, answers, by_hand, eventually


def test_good_upgrade_adds_a_column_keeps_the_rows_and_leaves_no_alembic_version(make: Make) -> None:
    stack = make()
    rows, columns = stack.checksum(), stack.columns()
    assert len(columns) == 14
    by_hand(stack, "v2.1.0")
    stack.wait_ready()
    after = stack.checksum(columns=columns)
    assert stack.version() == "2.1.0"
    assert {"max_horizon_distance"} == set(stack.columns()["backtest"]) - set(columns["backtest"])
    assert sum(map(len, columns.values())) == 127
    assert {table for table in rows if after[table] != rows[table]} == {"modeltemplatedb", "configuredmodeldb"}
    assert "alembic_version" not in stack.columns()
    logs = stack.compose("logs", stack.api_service).stdout
    assert "Running upgrade ff2b1bbb8418 -> a1b2c3d4e5f6" in logs
    assert "Listening at" not in logs and "Error during Alembic" not in logs


def test_a_build_that_exits_changes_nothing(make: Make) -> None:
    stack = make()
    columns = stack.columns()
    by_hand(stack, "v2.1.1")
    assert eventually(lambda: stack.containers()["chap"]["state"] == "exited")
    assert stack.containers()["chap"]["exit_code"] == 1
    assert stack.columns() == columns


@pytest.mark.parametrize("how", ["v2.1.10", "CHAP_TEST_MODELS_URL"])
def test_seeding_fails_after_the_schema_changed(make: Make, how: str) -> None:
    stack = make()
    if how == "CHAP_TEST_MODELS_URL":
        with (stack.folder / ".env").open("a") as settings:
            settings.write("CHAP_TEST_MODELS_URL=http://127.0.0.1:9\n")
    by_hand(stack, "v2.1.10" if how == "v2.1.10" else "v2.1.0")
    assert eventually(lambda: stack.containers()["chap"]["state"] == "exited")
    assert stack.containers()["chap"]["exit_code"] == 1
    assert "max_horizon_distance" in stack.columns()["backtest"]


@pytest.mark.parametrize("version", ["v2.1.2", "v2.1.6", "v2.1.9"])
def test_healthy_and_never_ready(make: Make, version: str) -> None:
    stack = make()
    by_hand(stack, version)
    assert eventually(lambda: answers(stack))
    with pytest.raises(SampleError):
        stack.wait_ready(5)
    assert stack.api("/health") == (200, {"status": "success", "message": "healthy"})
    assert stack.api("/health/ready")[1]["checks"] == {
        "db": "ok",
        "redis": "ok",
        "celery": "error: no workers responded",
    }
    assert (stack.containers()["chap-worker"]["state"] == "exited") == (version == "v2.1.6")


def test_silent_migration_failure_is_green_and_breaks_a_page(make: Make) -> None:
    stack = make()
    by_hand(stack, "v2.1.3")
    stack.wait_ready()
    assert "calibration" not in stack.columns()["prediction"]
    assert stack.api("/v1/crud/datasets")[0] == 200
    assert stack.api("/v1/crud/predictions")[0] == 500


def test_slow_migration_binds_the_port_at_its_end(make: Make) -> None:
    stack = make(settings={"CHAP_TEST_MIGRATION_SECONDS": "6"})
    by_hand(stack, "v2.1.4")
    begin = time.monotonic()
    assert eventually(lambda: "max_horizon_distance" in stack.columns()["backtest"], 10)
    assert stack.api("/health")[0] == 0
    stack.wait_ready()
    assert time.monotonic() - begin > 5


def test_migration_loses_rows(make: Make) -> None:
    stack = make()
    by_hand(stack, "v2.1.5")
    stack.wait_ready()
    assert stack.counts()["observation"] == 1800


def test_wrong_version(make: Make) -> None:
    stack = make()
    by_hand(stack, "v2.1.7")
    stack.wait_ready()
    assert stack.version() == "2.1.0"


def test_a_single_image_is_missing(make: Make) -> None:
    stack = make()
    stack.pin("v2.1.8")
    assert stack.compose("pull", "-q", "chap", check=False).returncode == 0
    assert stack.compose("pull", "-q", "chap-worker", check=False).returncode != 0


def test_a_killed_worker_leaves_a_zombie_and_a_recreated_broker_forgets(make: Make) -> None:
    stack = make()
    done, running = stack.start_job(0.1), stack.zombie()
    stack.wait_ready()
    assert stack.jobs() == {done: "SUCCESS", running: "STARTED"}
    assert stack.api(f"/v1/jobs/{running}", "DELETE")[0] == 400
    stack.compose("rm", "-sfv", "chap-redis")
    stack.compose("up", "-d", "chap-redis")
    stack.wait_ready()
    assert stack.jobs() == {}


def test_token_is_asked_for_in_newer_versions_only(make: Make) -> None:
    stack = make(settings={"CHAP_API_TOKEN": "secret"})
    stack.token = ""
    assert stack.api("/v1/jobs")[0] == 200
    by_hand(stack, "v2.2.0")
    stack.wait_ready()
    assert stack.api("/v1/jobs") == (401, {"detail": "Missing or invalid API token"})
    assert stack.api("/system/info")[1]["auth_required"] is True
    stack.token = "secret"
    assert stack.api("/v1/jobs")[0] == 200


def test_bundled_stack_has_its_traps(make: Make) -> None:
    stack = make(kind="bundled")
    assert stack.dhis2("/api/routes/chap/run/system/info")[1]["chap_core_version"] == "2.0.0"
    assert stack.services() == ["chapkit-ewars-model"]

    # A plain `up` runs the one-shot again without the Makefile's variable.
    stack.compose("up", "-d")
    assert eventually(lambda: (stack.route() or {})["url"] == "http://host.docker.internal:8000/**")
    assert stack.dhis2("/api/routes/chap/run/health")[0] == 502

    # Reading the templates while the model service is away archives its template.
    stack.compose("stop", "chap-ewars")
    assert eventually(lambda: stack.services() == [])
    assert "chapkit-ewars-model" not in [each["name"] for each in stack.api("/v1/crud/model-templates")[1]]
    assert "chapkit-ewars-model" not in [each["name"] for each in stack.api("/v1/crud/configured-models")[1]]
    stack.compose("start", "chap-ewars")
    assert eventually(lambda: stack.services() == ["chapkit-ewars-model"])
    assert "chapkit-ewars-model" in [each["name"] for each in stack.api("/v1/crud/configured-models")[1]]
