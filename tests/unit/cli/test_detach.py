"""What a command does before it hands its work over: it asks, refuses, and lets go of the lock."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from compose_chap.cli import app
from compose_chap.cli.call import Call, common
from compose_chap.cli.commands import attach
from compose_chap.cli.options import detach_option
from compose_chap.cli.screen import render
from compose_chap.cli.screen.detached import detached_text
from compose_chap.engine.world import World
from compose_chap.errors import EngineError
from compose_chap.operations import detach
from compose_chap.records import audit, detached, lock, run_records
from compose_chap.records.detached import Detached
from tests.fakes import FakeEngine, world


class Handed(list[dict[str, Any]]):
    """What was handed over; the lock was free each time."""

    def __call__(self, here: World, directory: Path, program: Any, words: Any, flags: Any, secrets: Any) -> Detached:
        with lock.locked(directory, "another", here.clock()):
            self.append({"directory": directory, "words": words, "flags": flags, "secrets": secrets})
        return Detached(directory, "20261123T000000Z", words, "anna@here", here.clock(), "", 42, True)


@pytest.fixture
def handed(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Handed:
    """Take what is handed over instead of a process."""
    taken = Handed()
    monkeypatch.setattr(detach, "hand_over", taken)
    return taken


def test_the_words_go_on_and_the_lock_is_free(
    handed: Handed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = run_records.begin_run(tmp_path, "upgrade", {}, world(FakeEngine(tmp_path)).clock)
    words = ["recover", "--detach", "--json"]
    assert app.main(words, ("docker", "--context", "default")) == 0
    (order,) = handed
    assert order == {
        "directory": tmp_path, "words": tuple(words), "flags": ("--context", "default"), "secrets": {},
    }  # fmt: skip
    shown = json.loads(capsys.readouterr().out)
    assert shown["ok"] and shown["detached"]["id"] == "20261123T000000Z"
    # What goes on writes its own entry; the run that was cut off is as it was.
    assert audit.entries(tmp_path) == []
    still = run_records.open_run(tmp_path, world(FakeEngine(tmp_path)).clock)
    assert still and still.id == journal.id


def test_what_is_refused_is_not_handed_over(handed: Handed, tmp_path: Path) -> None:
    assert app.main(["rollback", "--yes", "--detach"]) == 1
    assert app.main(["restore", "nothing", "--yes", "--detach"]) == 1
    assert app.main(["recover", "--detach"]) == 0  # nothing was cut off
    assert not handed


def test_what_was_confirmed_goes_on_too(
    handed: Handed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`latest` may mean another backup by the time the work begins."""

    @click.command("restore")
    @detach_option
    @common
    def restore(call: Call) -> None:
        call.hand_over(tmp_path, "/b/1")

    monkeypatch.delenv(detach.CONFIRMED, raising=False)
    restore.main(["--detach"], obj=Call(("docker",), words=("restore", "latest", "--detach")), standalone_mode=False)
    (order,) = handed
    assert order["secrets"] == {detach.CONFIRMED: "/b/1"} and detach.confirmed() == ""
    for name, value in {**order["secrets"], detach.DETACHED: "1"}.items():
        monkeypatch.setenv(name, value)
    assert detach.confirmed() == "/b/1"


def test_a_run_in_the_background_does_its_work_itself_and_is_asked_nothing(
    handed: Handed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_records.begin_run(tmp_path, "upgrade", {}, world(FakeEngine(tmp_path)).clock)
    monkeypatch.setenv(detach.DETACHED, "1")
    assert app.main(["recover", "--detach"]) == 0
    assert not handed
    assert [entry.operation for entry in audit.entries(tmp_path)] == ["recover"]


def test_a_run_that_does_not_start_is_a_failure(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any) -> Detached:
        raise EngineError("The run could not be started in the background.")

    monkeypatch.setattr(detach, "hand_over", fails)
    run_records.begin_run(tmp_path, "upgrade", {}, world(engine).clock)
    assert app.main(["recover", "--detach"]) == 1
    assert "could not be started" in capsys.readouterr().err


def test_a_run_is_stopped_by_the_systemd_of_its_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Detached(tmp_path, "20261123T000000Z", ("backup",), "anna@here", render.now(), "docker-chap-x", 42, True)
    for user, command in ((0, "systemctl stop docker-chap-x"), (1000, "systemctl --user stop docker-chap-x")):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert detached_text(run).endswith(f"\n  {command}")
    assert detached_text(replace(run, unit="")).endswith("\n  kill 42")


def test_attach_lists_the_runs(engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["attach"]) == 1
    assert "No run was begun with --detach" in capsys.readouterr().err
    folder = detached.prepare(
        tmp_path, detached.Invocation(("true",), "/", 0o22, {}), ("backup",), world(engine).clock()
    )
    assert app.main(["attach", "20200101T000000Z"]) == 1
    assert f"There are: {folder.name}" in capsys.readouterr().err


def test_what_a_run_wrote_comes_as_json_lines_where_all_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    take = attach._JsonLines()
    for piece in (b'{"step": "pu', b'll"}\nWarning: hot', b"\n", b"[1]\nhalf a line"):
        take(piece)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines == [{"step": "pull"}, {"note": "Warning: hot"}, {"note": "[1]"}]
