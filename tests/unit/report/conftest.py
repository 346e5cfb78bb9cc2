"""What the tests of a report share: facts gathered from records alone, at a fixed time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from compose_chap.engine.world import World
from compose_chap.report import gather
from compose_chap.report.facts.known import ReportFacts
from tests.fakes import FakeEngine, world
from tests.unit.report import years

Read = Callable[[], ReportFacts]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let years of records be written without waiting for the disk, and no timer of this machine be asked."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.fixture
def here(tmp_path: Path) -> World:
    """A world whose time is that of the records."""
    return replace(world(FakeEngine(tmp_path)), clock=lambda: years.NOW)


@pytest.fixture
def read(tmp_path: Path, here: World) -> Read:
    """Return what reads the facts from the records."""
    return lambda: gather.gather(here, tmp_path, years.HERE, None, "The engine does not answer.")
