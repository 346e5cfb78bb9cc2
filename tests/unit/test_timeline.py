"""The time line of a command: what it holds, what it does not, and that a command ends well without it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from compose_chap import timeline
from compose_chap.cli import app
from compose_chap.errors import UsageError
from compose_chap.processes import process
from compose_chap.timeline import Timeline


@pytest.fixture
def line(tmp_path: Path) -> Any:
    seconds = iter(range(1000))
    yield timeline.begin(str(tmp_path / "line"), lambda: float(next(seconds)))
    timeline.begin("", lambda: 0.0)


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_steps_questions_and_the_command_have_begin_and_end(line: Timeline, tmp_path: Path) -> None:
    heard: list[tuple[Any, ...]] = []
    notify = timeline.stepped(lambda *words: heard.append(words))
    notify("stop", "chap")
    notify("wait", "for it", 1, 2)
    process.run(["sh", "-c", "exit 3", "sh", "df"])
    notify("stop", "worker")
    notify("verify")
    line.close("upgrade")
    events_ = events(tmp_path / "line")
    assert [(event["kind"], event["name"]) for event in events_] == [
        ("question", "df"),
        ("step", "stop"),
        ("step", "verify"),
        ("command", "upgrade"),
    ]
    assert [(event["begin"], event["end"]) for event in events_] == [(2, 3), (1, 4), (5, 6), (0, 8)]
    assert heard == [("stop", "chap"), ("wait", "for it", 1, 2), ("stop", "worker"), ("verify",)]
    assert os.stat(tmp_path / "line").st_mode & 0o777 == 0o600


def test_a_program_is_called_by_its_name_without_what_it_is_given() -> None:
    called = timeline.program
    assert called(["docker", "compose", "-p", "x-1", "--file", "/a/b.yml", "config"]) == "docker compose"
    assert called(["sh", "-c", "exec", "sh", "sh", "-c", "more", "sh", "/usr/bin/psql", "-d", "dbname='x'"]) == "psql"
    assert called(["sh", "-c", "exec python", "sh", "\nimport os\n"]) == "python"


def test_it_is_written_only_where_somebody_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(timeline.VARIABLE, str(tmp_path / "line"))
    assert app.main(["version"]) == 0
    assert [event["name"] for event in events(tmp_path / "line")] == ["version"]
    monkeypatch.delenv(timeline.VARIABLE)
    assert app.main(["version"]) == 0
    assert len(events(tmp_path / "line")) == 1


def test_an_unwritable_path_is_refused_before_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="No such file"):
        Timeline(str(tmp_path / "missing/line"))
    monkeypatch.setenv(timeline.VARIABLE, str(tmp_path))
    assert app.main(["version"]) == 2
    assert "Cannot write the time line" in capsys.readouterr().err
