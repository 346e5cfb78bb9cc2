"""The audit trail as commands write it and `history` shows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from compose_chap.cli import app, recorded
from compose_chap.errors import EngineError
from compose_chap.model import Origin
from compose_chap.records import audit, lock, run_records
from compose_chap.stack import observe
from tests.fakes import FakeEngine, world


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """Return what gives the entries of `history --json`."""

    def entries() -> list[dict[str, Any]]:
        capsys.readouterr()
        assert app.main(["history", "--json"]) == 0
        return list(json.loads(capsys.readouterr().out)["entries"])

    return entries


def test_a_refused_try_is_written_down_with_its_words(
    engine: FakeEngine, tmp_path: Path, shown: Callable[[], list[dict[str, Any]]]
) -> None:
    with lock.locked(tmp_path, "restore", world(engine).clock()):
        assert app.main(["prune", "--keep-last", "2", "--yes"]) == 5
    (entry,) = shown()
    assert entry["words"] == ["prune", "--keep-last", "2", "--yes"] and entry["by"] == run_records.operator()
    assert (entry["result"], entry["exit_status"]) == ("refused", 5) and "Another run works" in entry["message"]


def test_what_prune_removed_is_written_down(
    engine: FakeEngine, shown: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.databases["chap_core_before_20250101t000000z"] = engine.databases["chap_core"]
    assert app.main(["prune", "--dry-run"]) == 0
    assert shown() == []
    assert app.main(["prune", "--yes"]) == 0
    (entry,) = shown()
    assert entry["result"] == "done" and entry["summary"] == "", "nobody decided"
    assert app.main(["prune", "--yes", "--set-aside"]) == 0
    *_, entry = shown()
    assert entry["result"] == "done" and entry["summary"] == "removed 1 kept database"
    assert entry["facts"]["databases"] == ["chap_core_before_20250101t000000z"]


def test_a_run_of_an_older_version_has_an_entry_too_and_no_run_has_two(
    engine: FakeEngine, tmp_path: Path, shown: Callable[[], list[dict[str, Any]]]
) -> None:
    clock = world(engine).clock
    run_records.begin_run(tmp_path, "upgrade", {}, clock, **{"from": "1.0.0", "to": "v2.0.0"}).end("done")
    entry = audit.begin(tmp_path, "restore", ["restore", "latest"], Origin(), clock())
    run = run_records.begin_run(tmp_path, "restore", {}, clock).id
    upgraded, restored = shown()
    assert (upgraded["operation"], upgraded["summary"], upgraded["words"]) == ("upgrade", "1.0.0 to 2.0.0", [])
    assert (restored["id"], restored["run"]) == (entry.id, run)


@pytest.mark.parametrize(
    ("downtimes", "summary"),
    [
        ({"downtime": 6.4}, "2.1.0 to 2.5.1, down 6s, 9s expected"),
        ({}, "2.1.0 to 2.5.1"),  # it failed before anything stopped
    ],
)
def test_how_long_chap_was_down_stands_beside_what_was_expected(
    engine: FakeEngine,
    tmp_path: Path,
    shown: Callable[[], list[dict[str, Any]]],
    downtimes: dict[str, float],
    summary: str,
) -> None:
    clock, about = world(engine).clock, {"from": "2.1.0", "to": "v2.5.1", "expected_downtime": 8.8}
    run_records.begin_run(tmp_path, "upgrade", {}, clock, **about).end("done", **downtimes)
    (upgraded,) = shown()
    assert upgraded["summary"] == summary

    # The same, as the command itself writes it down.
    entry = audit.begin(tmp_path, "upgrade", ["upgrade", "2.5.1"], Origin(), clock())
    run_records.begin_run(tmp_path, "upgrade", {}, clock, **about).end("done", **downtimes)
    audit.end(
        tmp_path, replace(entry, ended_at=clock() + timedelta(minutes=1), result=audit.DONE, summary="2.1.0 to 2.5.1")
    )
    assert shown()[-1]["summary"] == summary


def test_it_can_be_read_and_added_to_with_the_engine_off(
    engine: FakeEngine, shown: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.main(["prune", "--yes"]) == 0

    def off(*_: Any) -> Any:
        raise EngineError("The engine does not answer.")

    monkeypatch.setattr(observe, "find_stack", off)
    assert app.main(["upgrade", "v2.1.0", "--yes"]) == 1
    pruned, refused = shown()
    assert pruned["operation"] == "prune"
    assert (refused["operation"], refused["result"]) == ("upgrade", "failed")
    assert refused["message"] == "The engine does not answer." and refused["exit_status"] == 1


def test_nothing_secret_of_what_was_typed_is_kept(engine: FakeEngine, tmp_path: Path) -> None:
    assert app.main(["prune", "--yes"]) == 0
    assert app.main(["restore", "password=district", "--yes"]) == 1
    kept = (tmp_path / run_records.FOLDER / audit.FILE).read_text()
    assert '"restore", "password=***"' in kept and "district" not in kept


def test_ctrl_c_at_a_question_is_no_failure() -> None:
    assert recorded._outcome(click.Abort()) == recorded._outcome(KeyboardInterrupt()) == (audit.CANCELLED, 130, "")
