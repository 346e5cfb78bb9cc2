"""The commands about backups: what they refuse before they begin, and what they say when it goes wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compose_chap.backups import dump_only
from compose_chap.cli import app, backup
from compose_chap.cli.call import Call
from compose_chap.errors import DumpError, UsageError
from tests.fakes import FakeEngine, world


def test_a_full_pipe_is_reported_and_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def into(engine: Any, stack: Any, sink: Callable[[bytes], object], notify: Any) -> None:
        sink(b"a piece of a dump")

    monkeypatch.setattr(dump_only, "into", into)
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(DumpError, match="Cannot write the dump: No space left on device") as raised:
            backup._dump_only(Call(("docker",)), world(FakeEngine(tmp_path)), None, "-")
    assert raised.value.state == "The dump is incomplete." and "Make room" in raised.value.hint


def test_a_folder_is_refused_before_a_dump_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump_only, "into_file", lambda *args: pytest.fail("a dump is made"))
    with pytest.raises(UsageError, match="is a folder") as raised:
        backup._dump_only(Call(("docker",)), world(FakeEngine(tmp_path)), None, str(tmp_path))
    assert "--dump-only FILE" in raised.value.hint


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
