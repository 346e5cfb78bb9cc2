"""What the engine is asked for, where its answer alone would not show it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from compose_chap.engine.engine import Engine
from compose_chap.engine.link import Link
from compose_chap.engine.throwaway import Recipe, throwaway
from compose_chap.errors import EngineError


def engine_with(monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], **api: Any) -> Engine:
    engine = Engine()
    engine.__dict__.update(_link=Link("unix:///engine.sock", "unix:///engine.sock"), api=SimpleNamespace(**api))
    monkeypatch.setattr(engine, "_inspect", lambda identity: facts)
    return engine


@pytest.mark.parametrize(
    ("facts", "at_once", "limit"),
    [
        ({"Config": {"StopTimeout": 600}}, False, 600),
        ({"Config": {"StopTimeout": 600}}, True, 0),
        ({"Config": {}}, False, None),
        ({}, False, None),
    ],
)
def test_a_stop_is_waited_for_as_long_as_the_container_may_take(
    facts: dict[str, Any], at_once: bool, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int | None] = []
    engine = engine_with(monkeypatch, facts, stop=lambda identity, timeout: limits.append(timeout))
    engine.stop("1", at_once=at_once)
    assert limits == [limit]


def test_a_throwaway_that_cannot_be_removed_spoils_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    api = {
        "create_container": lambda image, **settings: {"Id": "1"},
        "create_host_config": lambda **settings: settings,
        "start": started.append,
    }
    engine = engine_with(monkeypatch, {}, **api)

    def refuse(identity: str) -> None:
        raise EngineError("Docker does not finish removing a container.")

    monkeypatch.setattr(engine, "discard", refuse)
    with throwaway(engine, Recipe("postgres:17", {})) as identity:
        assert identity == "1"
    assert started == ["1"]
    with pytest.raises(ZeroDivisionError), throwaway(engine, Recipe("postgres:17", {})):
        _ = 1 / 0
