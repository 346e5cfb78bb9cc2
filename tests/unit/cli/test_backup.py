"""The commands about backups: what they refuse before they begin, and what they say when it goes wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compose_chap.backups import dump_only
from compose_chap.cli import app
from compose_chap.records import audit, run_records
from compose_chap.report.facts import lines
from compose_chap.schedule import digest, routine
from tests.fakes import FakeEngine, world


def _wrote(engine: Any, stack: Any, sink: Callable[[bytes], object], notify: Any) -> dump_only.DumpOnly:
    sink(b"a dump")
    return dump_only.DumpOnly({"public.a": 2, "public.b": 5}, 6, [], [])


def test_a_full_pipe_is_reported_and_is_no_bug(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dump_only, "into", _wrote)
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert app.main(["backup", "--dump-only", "-"]) == 1
    shown = capsys.readouterr().err
    assert "Cannot write the dump: No space left on device" in shown
    assert "The dump is incomplete." in shown and "Make room" in shown
    (entry,) = audit.entries(tmp_path)
    assert (entry.operation, entry.result, entry.facts) == ("dump", audit.FAILED, {"dump": "standard output"})


def test_a_folder_is_refused_before_a_dump_is_made(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dump_only, "into_file", lambda *args: pytest.fail("a dump is made"))
    assert app.main(["backup", "--dump-only", str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert "is a folder" in shown and "--dump-only FILE" in shown


def test_a_dump_that_leaves_is_written_down_and_counts_as_no_backup(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dump_only, "into", _wrote)
    assert app.main(["backup", "--dump-only", "alone.dump"]) == 0
    (entry,) = audit.entries(tmp_path)
    assert entry.words == ("backup", "--dump-only", "alone.dump") and entry.result == audit.DONE
    assert entry.facts == {"dump": str(tmp_path / "alone.dump"), "size": 6, "tables": 2, "rows": 7}
    assert routine.look(tmp_path, entry.origin, world(engine).clock()).last_backup is None
    assert lines.backup_lines([], [entry]) == () and lines.proof_lines([entry]) == ()
    assert dict(digest.facts([entry], routine.Routine(), {}, entry.began_at))["Backups made"] == "0"


def test_a_dump_that_cannot_be_written_down_says_so(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dump_only, "into", _wrote)
    (tmp_path / run_records.FOLDER).symlink_to("/dev/null")
    assert app.main(["backup", "--dump-only", "alone.dump"]) == 0
    assert "Warning: this could not be recorded: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        *([name, "-o", ""] for name in ("backup", "backups", "verify", "prune", "check")),
        *([name, "x", "--output="] for name in ("restore", "upgrade", "rehearse")),
        ["backup", "--dump-only", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(words) == 2
    assert "It is empty. Is a variable of your shell not set?" in capsys.readouterr().err
