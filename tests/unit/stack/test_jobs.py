"""How the broker is asked for the jobs that wait in it, while CHAP is down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compose_chap.detection import detect
from compose_chap.errors import EngineError
from compose_chap.processes.process import Finished
from compose_chap.stack.jobs import queued_jobs
from tests.fakes import FakeEngine, world


def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: str, answer: Any) -> tuple[int | None, list[Any]]:
    """Ask a broker that gives this answer; return what came of it, and the questions."""
    engine, questions = FakeEngine(tmp_path), []
    for box in list(engine.boxes.values()):
        engine._set(box.id, environment={**box.environment, "CELERY_BROKER": broker})

    def run(container: str, command: Any, **named: Any) -> Finished:
        questions.append((engine.boxes[container].service, command[4:], named["environment"]))
        if isinstance(answer, Exception):
            raise answer
        return Finished(0, answer, "")

    monkeypatch.setattr(engine, "run", run)
    (stack,) = detect(engine.containers())
    return queued_jobs(world(engine), stack), questions


@pytest.mark.parametrize(
    ("broker", "question", "environment"),
    [
        ("redis://redis:6379", ["6379", "0", "default", "celery"], {}),
        ("redis://redis", ["6379", "0", "default", "celery"], {}),
        (
            "redis://:p%40ss@redis:6380/2",
            ["6380", "2", "default", "celery"],
            {"REDISCLI_AUTH": "p@ss", "VALKEYCLI_AUTH": "p@ss"},
        ),
        ("redis://me:x@redis/1", ["6379", "1", "me", "celery"], {"REDISCLI_AUTH": "x", "VALKEYCLI_AUTH": "x"}),
    ],
)
def test_the_broker_of_the_project_is_asked_without_a_password_in_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: str, question: list[str], environment: dict[str, str]
) -> None:
    assert asked(tmp_path, monkeypatch, broker, "3\n") == (3, [("redis", question, environment)])


@pytest.mark.parametrize(
    "broker", ["", "redis://elsewhere:6379", "rediss://redis:6379", "amqp://redis", "redis://redis:x"]
)
def test_another_broker_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: str) -> None:
    assert asked(tmp_path, monkeypatch, broker, "3\n") == (None, [])


@pytest.mark.parametrize("answer", ["", "NOAUTH Authentication required.\n\n", EngineError("gone")])
def test_a_broker_that_gives_no_number_is_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    assert asked(tmp_path, monkeypatch, "redis://redis:6379", answer)[0] is None
