"""What a status says of containers that do not run, and of disks that fill."""

from __future__ import annotations

from pathlib import Path

import pytest

from compose_chap.detection import detect
from compose_chap.operations import disks, status
from tests.fakes import FakeEngine, world


@pytest.mark.parametrize(
    ("service", "kind"), [("chap", "API"), ("worker", "worker"), ("redis", "broker"), ("db", "database")]
)
def test_each_container_of_chap_that_does_not_run_is_a_problem(service: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yml").touch()
    engine = FakeEngine(tmp_path)
    engine.stop(next(container.id for container in engine.containers() if container.service == service))
    seen = status.look(world(engine), detect(engine.containers())[0])
    problem = f"The {kind} container p-{service}-1 is not running (it is exited)."
    assert [text for text in seen.problems if "not running" in text] == [problem]


@pytest.mark.parametrize(
    ("database", "backups", "newest", "low"),
    [
        (1 << 30, 3 << 20, 1 << 20, []),
        ((1 << 30) - 1, 3 << 20, 1 << 20, ["database"]),
        (1 << 30, (3 << 20) - 1, 1 << 20, ["backups"]),
        (0, 0, 1, ["database", "backups"]),
        (None, None, 1 << 20, []),
        (1 << 30, 0, 0, []),
    ],
)
def test_too_little_room_is_named(database: int | None, backups: int | None, newest: int, low: list[str]) -> None:
    sentences = list(disks.shortages(database, backups, newest))
    assert [next(word for word in ("backups", "database") if word in text) for text in sentences] == low
