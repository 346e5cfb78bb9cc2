"""What a status says of containers that do not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from compose_chap.detection import detect
from compose_chap.operations import status
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
