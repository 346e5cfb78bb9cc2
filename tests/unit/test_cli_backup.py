"""The commands about backups: what they refuse before they begin, and what they say when it goes wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compose_chap import cli_backup, dump_only
from compose_chap.cli_options import Call
from compose_chap.errors import DumpError
from tests.fakes import FakeEngine, world


def test_a_pipe_that_is_full_is_told_of_and_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def into(engine: Any, stack: Any, sink: Callable[[bytes], object], notify: Any) -> None:
        sink(b"a piece of a dump")

    monkeypatch.setattr(dump_only, "into", into)
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(DumpError, match="Cannot write the dump: No space left on device") as told:
            cli_backup._dump_only(Call(("docker",)), world(FakeEngine(tmp_path)), None, "-")
    assert told.value.state == "The dump is not whole." and "Make room" in told.value.hint
