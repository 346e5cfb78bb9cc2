"""What holds for every small test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from compose_chap.backups import backup
from compose_chap.postgres.server import Server
from compose_chap.restore import restore
from compose_chap.stack import databases
from compose_chap.transaction import containers
from compose_chap.transaction.run import baseline
from tests import fake_server
from tests.fakes import FakeEngine


def server(engine: Any, container: str, *likely: str) -> Server:
    """Return the server in a container: one in memory for an engine in memory."""
    kind = fake_server.FakeServer if isinstance(engine, FakeEngine) else Server
    return kind(engine, container, *likely)


@pytest.fixture(autouse=True)
def an_engine_in_memory_has_such_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the server in memory wherever one is made. One that is forgotten here asks the engine, which raises."""
    for module in (backup, restore, databases, containers, baseline):
        monkeypatch.setattr(module, "Server", server)


@pytest.fixture(autouse=True)
def the_fakes_know_all_that_they_are_asked() -> Iterator[None]:
    """Fail a test in which a fake was asked what it does not know, also where that error was caught."""
    fake_server.UNKNOWN.clear()
    yield
    assert not fake_server.UNKNOWN, fake_server.UNKNOWN[:3]
