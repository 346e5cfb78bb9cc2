"""What a restore does for a database that is down, and what a person is told to do."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compose_chap.detection import detect
from compose_chap.errors import ChapError, StackError
from compose_chap.processes.process import Finished
from compose_chap.records import run_records
from compose_chap.restore import restore
from compose_chap.stack.databases import server_of
from compose_chap.transaction import evidence
from compose_chap.transaction.run.baseline import baseline_of
from compose_chap.transaction.run.change import Change, describe
from tests.fakes import API, WORKER, FakeEngine, world

NEITHER = {"--no-build", "--pull never"}


def test_the_image_of_the_database_is_neither_pulled_nor_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, commands = FakeEngine(tmp_path), []
    database = next(box.id for box in engine.boxes.values() if box.service == "db")
    engine.discard(database)
    (stack,) = detect(engine.containers())

    def compose(project: Any, *words: str, **more: Any) -> Finished:
        commands.append(" ".join(words))
        return Finished(1, "", "No such image: postgres:17")

    monkeypatch.setattr(engine, "compose", compose)
    with pytest.raises(ChapError, match="No such image") as raised:
        restore.start_database(world(engine), stack)
    assert commands[0].startswith("up -d --no-deps ") and commands[0].endswith(" db")
    assert all(words in commands[0] for words in NEITHER)
    assert "very version that wrote the data" in raised.value.hint


def test_a_pooler_is_not_started_as_the_database(tmp_path: Path) -> None:
    boxes = FakeEngine(tmp_path).containers()
    (gone,) = detect([box for box in boxes if box.service != "db"])
    assert restore.stopped_database(gone) == "db"
    (stack,) = detect([replace(box, image="edoburu/pgbouncer") if box.service == "db" else box for box in boxes])
    with pytest.raises(StackError, match="through 'db'.*a connection pooler"):
        restore.stopped_database(stack)


def test_by_hand_too_nothing_is_pulled_or_built(tmp_path: Path) -> None:
    (tmp_path / "compose.yml").write_text(f"chap {API}:v1\nworker {WORKER}:v1\ndb postgres:17\nredis valkey:8\n")
    engine = FakeEngine(tmp_path)
    here, (stack,) = world(engine), detect(engine.containers())
    change = Change(
        operation="restore",
        **describe(stack, server_of(engine, stack)),
        kept="k",
        incoming="i",
        edits=(),
        recreate=False,
        images_after={},
        expected="",
        tables={},
        baseline=baseline_of(here, stack),
    )
    journal = run_records.begin_run(tmp_path, "restore", change.to_facts(), here.clock)
    ups = [line for line in evidence.by_hand(here, change, journal).splitlines() if "up" in shlex.split(line)]
    assert len(ups) == 2 and all(words in line for words in NEITHER for line in ups)
