"""What tests of several commands share: an engine with a stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from compose_chap.cli.call import Call
from compose_chap.records import run_records
from tests.fakes import API, WORKER, FakeEngine, world

FILE = f"chap {API}:v1\nworker {WORKER}:v1\ndb postgres:17\nredis valkey:8\n"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """An engine with a stack, in whose folder the commands are called."""
    (tmp_path / "compose.yml").write_text(FILE)
    engine = FakeEngine(tmp_path)
    here = world(engine)
    monkeypatch.setattr(Call, "world", lambda call: here)
    monkeypatch.setattr(run_records, "_ROOM", 16)
    monkeypatch.chdir(tmp_path)
    return engine
