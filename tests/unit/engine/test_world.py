"""What runs beside the main thread: waited for, except at Ctrl-C."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from compose_chap.engine.world import World
from compose_chap.errors import ChapError
from tests.fakes import FakeEngine, world


@pytest.fixture
def here(tmp_path: Path) -> World:
    """Return a world in which waiting takes time."""
    return replace(world(FakeEngine(tmp_path)), sleep=time.sleep)


def test_ctrl_c_does_not_wait_and_what_waits_ends_at_its_next_pause(here: World) -> None:
    begun, ended = Event(), Event()

    def wait_for_nothing(beside: World) -> None:
        begun.set()
        try:
            while True:
                beside.sleep(0.01)
        except ChapError:
            ended.set()

    with pytest.raises(KeyboardInterrupt), here.parallel(1) as (pool, beside):
        pool.submit(wait_for_nothing, beside)
        assert begun.wait(10)
        raise KeyboardInterrupt
    assert ended.wait(10)


def test_all_is_waited_for(here: World) -> None:
    finished: list[str] = []

    def work(beside: World) -> None:
        beside.sleep(0.05)
        finished.append("it")

    with here.parallel(1) as (pool, beside):
        pool.submit(work, beside)
    assert finished == ["it"]


def test_where_something_else_fails_what_waits_ends_at_its_next_pause_and_is_waited_for(here: World) -> None:
    begun, finished = Event(), list[str]()

    def work(beside: World) -> None:
        begun.set()
        try:
            while True:
                beside.sleep(0.01)
        except ChapError:
            finished.append("it")

    with pytest.raises(ChapError, match="no"), here.parallel(1) as (pool, beside):
        pool.submit(work, beside)
        assert begun.wait(10)
        raise ChapError("no")
    assert finished == ["it"]
