"""A CHAP that does not commit its migration and says nothing of it is found out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from compose_chap.stack import schema
from tests.e2e.calls import chap
from tests.e2e.conftest import running
from tests.sample.stack import SampleStack

STATUSES = ("ok", "warn", "fail")
BOTH_REVISIONS = "Alembic's mark is e1f2a3b4c5d6, and CHAP 2.3.1 wants a3b4c5d6e7f2."


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """CHAP alone at v2.2.0, whose database has a mark: v2.3.1 does not commit its migration of it."""
    yield from running(SampleStack.create(tmp_path_factory.mktemp("schema"), version="v2.2.0"))


def schema_of(document: Any, *statuses: str) -> Any:
    """Return the last check of the schema, with one of these statuses: before a way back and after it there is one."""
    return [one for one in document["checks"] if one["name"] == "schema" and one["status"] in (statuses or STATUSES)][
        -1
    ]


def test_a_migration_that_nobody_commits_is_found_and_rolled_back(stack: SampleStack) -> None:
    assert chap(stack, "status")["schema"]["verdict"] == schema.COMPLETE
    assert schema_of(chap(stack, "check"))["status"] == "ok"
    before = stack.checksum()

    failed = chap(stack, "upgrade", "v2.3.1", "--yes", "--allow-uncommitted-migration", expect=3)
    found = schema_of(failed, "fail", "error")
    assert found["status"] == "fail" and found["details"]["verdict"] == schema.NOT_MIGRATED
    assert BOTH_REVISIONS in found["message"] and "does not fill backtest.n_periods" in found["message"]
    assert stack.version() == "2.2.0" and stack.checksum() == before

    tried = chap(stack, "rehearse", "v2.3.1", expect=1)
    assert tried["verdict"] == "bad" and BOTH_REVISIONS in schema_of(tried)["message"]
