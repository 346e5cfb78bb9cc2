"""The engine in memory knows what it is asked, or fails: it must not call done what it did not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fakes
from tests.fakes import FakeEngine


@pytest.mark.parametrize("sql", ["DELETE FROM observation;", "ALTER DATABASE chap_core RENAME TO x;", "SELECT 2;"])
def test_sql_that_it_does_not_know_is_an_error(tmp_path: Path, sql: str) -> None:
    with pytest.raises(AssertionError, match="does not know"):
        FakeEngine(tmp_path)._psql(sql, "postgres")
    assert fakes.UNKNOWN == [sql]
    fakes.UNKNOWN.clear()
