"""The fakes know what they are asked, or fail: they must not call done what they did not do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from compose_chap.postgres.server import Server
from tests import fake_server
from tests.fake_server import FakeServer
from tests.fakes import FakeEngine


@pytest.mark.parametrize(
    "ask",
    [
        lambda server: server.command("DELETE FROM observation;"),
        lambda server: server.query("SELECT 2"),
        lambda server: server.answers("SELECT 2"),
        lambda server: server.document("SELECT 2;"),
        lambda server: server.psql("SELECT 1;"),
        lambda server: server.end_sessions("chap"),
        lambda server: server.properties("chap_core"),
        lambda server: server.tool("pg_dump"),
        lambda server: server.processors(),
    ],
)
def test_what_they_do_not_know_is_an_error(tmp_path: Path, ask: Callable[[Server], object]) -> None:
    engine = FakeEngine(tmp_path)
    (database,) = (box.id for box in engine.boxes.values() if box.service == "db")
    with pytest.raises(AssertionError, match="does not know"):
        ask(FakeServer(engine, database, "chap"))
    assert len(fake_server.UNKNOWN) == 1
    fake_server.UNKNOWN.clear()
