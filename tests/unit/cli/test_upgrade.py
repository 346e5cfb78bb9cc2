"""What the commands that change a stack refuse, tell and hold off before anything is changed, or while it is."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compose_chap.cli import app
from compose_chap.cli.call import Call
from compose_chap.cli.commands import upgrade as upgrade_command
from compose_chap.cli.screen.status import status_text
from compose_chap.detection import detect
from compose_chap.edit import Edit
from compose_chap.errors import StateError
from compose_chap.model import Origin
from compose_chap.operations import prune, status, upgrade_plan
from compose_chap.postgres.server import Session
from compose_chap.records import engine_lock, run_records
from compose_chap.records.downtime import Forecast
from compose_chap.records.files import durable
from compose_chap.stack.databases import server_of
from compose_chap.transaction.run.baseline import baseline_of
from compose_chap.transaction.run.change import Change, describe
from tests.fake_server import Database, FakeServer
from tests.fakes import API, WORKER, FakeEngine, world

FILE = f"chap {API}:v1\nworker {WORKER}:v1\ndb postgres:17\nredis valkey:8\n"
KEPT = "chap_core_before_20261123t000000z"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """An engine with a stack that was upgraded, where a command finds it."""
    file = tmp_path / "compose.yml"
    file.write_text(FILE)
    engine = FakeEngine(tmp_path)
    here, (stack,) = world(engine), detect(engine.containers())
    monkeypatch.setattr(Call, "world", lambda call: here)
    monkeypatch.setattr(run_records, "_ROOM", 16)
    monkeypatch.chdir(tmp_path)
    engine.databases[KEPT] = Database({"public.observation": 9})
    edit = Edit(file, FILE.replace(":v1", ":v0").encode(), FILE.encode())
    change = Change(
        operation="upgrade",
        **describe(stack, server_of(engine, stack)),
        kept=KEPT,
        incoming="",
        edits=(edit,),
        recreate=True,
        images_after={},
        expected="1",
        tables={},
        baseline=baseline_of(here, stack),
    )
    run_records.begin_run(tmp_path, "upgrade", change.to_facts(), here.clock).end("done")
    return engine


def another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be somebody who may write the files, as a member of their group may, and does not own them."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(os, "access", lambda *args: True)


def test_a_file_that_could_not_be_left_to_its_owner_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "compose.yml"
    durable.check_writable(file)
    file.write_text("")
    durable.check_writable(file)
    another_user(monkeypatch)
    with pytest.raises(StateError, match="belongs to another user or group"):
        durable.check_writable(file)
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid or 12345)
    monkeypatch.setattr(os, "getegid", lambda: file.stat().st_gid + 1)
    monkeypatch.setattr(os, "getgroups", lambda: [])
    with pytest.raises(StateError, match="belongs to another user or group"):
        durable.check_writable(file)


def test_a_rollback_that_could_not_write_a_file_stops_nothing(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = dict(engine.boxes)
    another_user(monkeypatch)
    assert app.main(["rollback", "--yes"]) == 1
    assert "compose.yml belongs to another user or group" in capsys.readouterr().err
    assert engine.boxes == boxes and not run_records.journal_file(engine.folder).exists()


@pytest.mark.parametrize("words", [["rollback"], ["restore", "--undo"]])
def test_who_will_be_disconnected_is_named_before_the_question(
    words: list[str], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[0] == "restore":
        for path in (engine.folder / run_records.FOLDER / "runs").rglob("*.json"):
            path.write_text(path.read_text().replace('"operation": "upgrade"', '"operation": "restore"'))
    sessions = [Session(1, "anna", "psql", "10.0.0.9", "idle"), Session(2, "chap", "", "172.18.0.5", "idle")]
    monkeypatch.setattr(FakeServer, "sessions", lambda server, name: sessions)
    for identity, box in list(engine.boxes.items()):
        if box.service == "chap":
            engine._set(identity, addresses=frozenset({"172.18.0.5"}))
    assert app.main(words) == 2  # there is nobody to ask
    output = capsys.readouterr().err
    assert "this connection will be closed: psql (role anna, from 10.0.0.9)." in output and "172.18.0.5" not in output


def test_nothing_to_do_needs_every_writer_to_be_new() -> None:
    def runs_already(api: str, *workers: str, changes: bool = False) -> bool:
        subject: Any = SimpleNamespace(
            changes_files=changes,
            target="v2.1.0",
            version=api,
            baseline=SimpleNamespace(worker_versions={str(at): worker for at, worker in enumerate(workers)}),
        )
        return upgrade_plan.runs_already(subject)

    assert runs_already("2.1.0", "2.1.0", "2.1.0")
    assert not runs_already("2.1.0", "2.1.0", "2.0.0") and not runs_already("2.1.0", "")
    assert not runs_already("2.0.0", "2.0.0") and not runs_already("2.1.0", "2.1.0", changes=True)


@pytest.mark.parametrize(
    ("status", "allowed", "drain"),
    [("ok", set(), 60.0), ("ok", {"jobs"}, None), ("warn", {"jobs"}, None), ("error", set(), None)],
)
def test_jobs_that_may_be_lost_are_not_waited_for(status: str, allowed: set[str], drain: float | None) -> None:
    checks: Any = [SimpleNamespace(name="jobs", status=status), SimpleNamespace(name="room", status="warn")]
    assert upgrade_plan._drain(checks, allowed, 60.0) == drain


def test_a_removal_that_has_begun_is_finished_whatever_the_operator_presses(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    removed = []

    def execute(*args: Any) -> None:
        for name in ("one", "two"):
            os.kill(os.getpid(), signal.SIGINT)
            removed.append(name)

    chosen = prune.PrunePlan((), (("chap_core_before_20260101t000000z", 1),), (), ())
    monkeypatch.setattr(prune, "plan", lambda *args, **options: chosen)
    monkeypatch.setattr(prune, "execute", execute)
    assert app.main(["prune", "--yes"]) == 0
    captured = capsys.readouterr()
    assert removed == ["one", "two"] and captured.out.startswith("Removed: ")
    assert captured.err == "", "cron mails it, and nothing went wrong"


def test_recover_waits_as_long_as_requested() -> None:
    command: Any = app.chap.get_command(None, "recover")  # type: ignore[arg-type]
    assert command.make_context("recover", ["--wait", "600"]).params["patience"] == 600.0


def test_a_run_that_was_cut_off_is_in_the_history(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def results(*words: str) -> list[str]:
        assert app.main(["--json", *words, "history"]) == 0
        runs = json.loads(capsys.readouterr().out)["runs"]
        assert not any("edits" in run["facts"] for run in runs)
        return [run["result"] for run in runs]

    stack = Origin("p", "engine-1", "north")
    run_records.begin_run(engine.folder, "restore", {"edits": "secret"}, world(engine).clock, stack=stack.to_json())
    assert results() == results("-p", "p") == ["done", "cut off"]
    here = status.look(world(engine), detect(engine.containers())[0])
    assert "The restore was cut off before its first step." in status_text(here, world(engine).clock())
    with monkeypatch.context() as patch:
        patch.setattr(engine_lock, "holder", lambda engine, project: {"operation": "restore"})
        assert results() == ["done"]
    monkeypatch.setattr(FakeEngine, "origin", lambda engine, project: Origin(project, "engine-2", "south"))
    assert results() == ["done"]


@pytest.mark.parametrize(
    ("chosen", "preserving", "words"),
    [
        ({}, 11.9, []),
        ({}, 111.0, ["For about 1m51s of that", "With --no-copy CHAP is down for about 3s, and about 10m25s longer"]),
        ({"no_copy": True}, 111.0, ["about 10m25s longer", "a copy of the database is made: down for about 1m54s."]),
        ({"by_dump": True}, 1250.0, []),
    ],
)
def test_the_plan_names_the_price_of_a_long_copy_and_of_none(
    chosen: dict[str, bool], preserving: float, words: list[str]
) -> None:
    # 50 GB, at 450 MB/s.
    expected = Forecast(preserving, 2.6, 625.0)
    plan: Any = SimpleNamespace(**{"no_copy": False, "by_dump": False, **chosen}, forecast=expected)
    text = " ".join(upgrade_command._price(plan))
    assert all(part in text for part in words) and bool(text) == bool(words), text
