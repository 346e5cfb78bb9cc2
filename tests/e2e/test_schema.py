"""What every command says of a database that is good, stuck, or was left half migrated by a CHAP that says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compose_chap.stack import schema
from tests.e2e.calls import chap
from tests.e2e.conftest import running
from tests.sample.stack import SampleStack

STATUSES = ("ok", "warn", "fail")
BOTH_REVISIONS = "Alembic's revision is e1f2a3b4c5d6, and CHAP 2.3.1 wants a3b4c5d6e7f2."


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """CHAP alone at v2.2.0, whose database has a mark: v2.3.1 does not commit its migration of it."""
    yield from running(SampleStack.create(tmp_path_factory.mktemp("schema"), version="v2.2.0"))


def schema_of(document: Any, *statuses: str) -> Any:
    """Return the last check of the schema, with one of these statuses: before a way back and after it there is one."""
    return [
        check for check in document["checks"] if check["name"] == "schema" and check["status"] in (statuses or STATUSES)
    ][-1]


def ids(stack: SampleStack) -> dict[str, str]:
    """Return the containers, by service."""
    return {name: container["id"] for name, container in stack.containers().items()}


def test_an_uncommitted_migration_is_detected_and_rolled_back(stack: SampleStack) -> None:
    assert chap(stack, "status")["schema"]["verdict"] == schema.COMPLETE
    assert schema_of(chap(stack, "check"))["status"] == "ok"
    before = stack.checksum()

    failed = chap(stack, "upgrade", "v2.3.1", "--yes", "--allow-uncommitted-migration", expect=3)
    result = schema_of(failed, "fail", "error")
    assert result["status"] == "fail" and result["details"]["verdict"] == schema.NOT_MIGRATED
    assert BOTH_REVISIONS in result["message"] and "does not fill backtest.n_periods" in result["message"]
    assert stack.version() == "2.2.0" and stack.checksum() == before

    tried = chap(stack, "rehearse", "v2.3.1", expect=1)
    assert tried["verdict"] == "bad" and BOTH_REVISIONS in schema_of(tried)["message"]


def test_a_database_that_was_left_half_migrated_by_hand_is_named_everywhere(stack: SampleStack) -> None:
    stack.pin("v2.3.1")
    stack.up()

    seen = chap(stack, "status")
    assert seen["health"]["level"] == "ready"
    assert seen["schema"]["verdict"] == schema.NOT_MIGRATED and seen["schema"]["pending"]
    assert any(BOTH_REVISIONS in problem for problem in seen["problems"])
    result = schema_of(chap(stack, "check", expect=1))
    assert result["status"] == "fail" and BOTH_REVISIONS in result["message"]

    # A backup of it goes back only to somebody who wants it so, and that is seen before anything is stopped.
    made, containers = chap(stack, "backup")["backup"]["id"], ids(stack)
    refused = chap(stack, "restore", made, "--yes", expect=1)
    assert BOTH_REVISIONS in refused["error"]["message"] and ids(stack) == containers
    done = chap(stack, "restore", made, "--yes", "--trust")
    result = schema_of(done)
    assert result["status"] == "warn" and result["message"].startswith("As before: ")


def test_a_good_database_of_the_newest_release_is_complete(tmp_path: Path) -> None:
    for stack in running(SampleStack.create(tmp_path, version="v2.5.1")):
        seen = chap(stack, "status")
        assert seen["schema"]["verdict"] == schema.COMPLETE and seen["schema"]["status"] == "ok"
        assert seen["schema"]["alembic"] == seen["schema"]["heads"] == ["de7478f3ff6d"]
        made = chap(stack, "backup")["backup"]["id"]
        assert schema_of(chap(stack, "restore", made, "--yes"))["status"] == "ok"

        # Each rule is seen by PostgreSQL itself.
        stack.sql("ALTER TABLE backtest ADD COLUMN n_periods integer NOT NULL DEFAULT 1")
        assert chap(stack, "status")["schema"]["verdict"] == schema.COMPLETE
        stack.sql("ALTER TABLE backtest ALTER COLUMN n_periods DROP DEFAULT")
        assert chap(stack, "status")["schema"]["unknown_columns"] == ["backtest.n_periods"]
        stack.sql("ALTER TABLE backtest DROP COLUMN n_periods")
        # As on a database that was made before v1.1.0: CHAP reads such predictions.
        stack.sql("ALTER TABLE prediction DROP CONSTRAINT IF EXISTS prediction_model_db_id_fkey")
        stack.sql("UPDATE prediction SET model_db_id = 0")
        seen = chap(stack, "status")["schema"]
        assert (seen["verdict"], seen["status"], seen["orphans"]) == (schema.COMPLETE, "ok", {})
        assert seen["older_orphans"] == {"prediction.model_db_id": stack.counts()["prediction"]}
        stack.sql("ALTER TABLE observation DROP CONSTRAINT observation_dataset_id_fkey")
        assert chap(stack, "status")["schema"]["verdict"] == schema.COMPLETE
        stack.sql("UPDATE observation SET dataset_id = 0 WHERE id IN (SELECT id FROM observation LIMIT 3)")
        assert chap(stack, "status")["schema"]["orphans"] == {"observation.dataset_id": 3}


def test_a_stuck_database_is_complete_for_v2_1_0_which_does_not_use_the_mark(tmp_path: Path) -> None:
    for stack in running(SampleStack.create(tmp_path, version="v2.1.0")):
        stack.sql("CREATE TABLE IF NOT EXISTS alembic_version (version_num varchar(32) PRIMARY KEY)")
        stack.sql("DELETE FROM alembic_version")
        stack.sql("INSERT INTO alembic_version VALUES ('ff2b1bbb8418')")
        seen = chap(stack, "status")
        assert seen["schema"]["verdict"] == schema.ALEMBIC_BEHIND and seen["schema"]["alembic"] == ["ff2b1bbb8418"]
        result = schema_of(chap(stack, "check"))
        assert result["status"] == "ok" and "up to v2.1.0 CHAP does not use it" in result["message"]
