"""What a terminal shows until all is known, and that nothing is left of it then."""

from __future__ import annotations

import os
import pty
from io import StringIO
from pathlib import Path

import pytest

from compose_chap.cli.screen import draft
from compose_chap.cli.screen.status import first_text
from compose_chap.detection import detect
from tests.fakes import FakeEngine


def test_the_containers_are_on_the_screen_before_anything_is_asked(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path)
    (stack,) = detect(engine.containers())
    before = engine.calls
    text = first_text(stack)
    assert engine.calls == before
    assert "Project      p" in text and "Health       …" in text and "running (healthy)" in text


def test_it_is_taken_away_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    monkeypatch.setattr(os, "get_terminal_size", lambda handle: os.terminal_size((10, 24)))
    monkeypatch.setenv("TERM", "xterm")
    with open(slave, "w") as stream, draft.shown("short\n" + "x" * 25, stream):
        assert os.read(master, 100).decode().split() == ["short", "x" * 25]
        # The second line takes three rows of ten columns.
    assert os.read(master, 100).decode() == "\x1b[4A\r\x1b[J"
    os.close(master)


@pytest.mark.parametrize("size", [(80, 3), (0, 0)])
def test_nothing_is_shown_that_could_not_be_taken_away(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = StringIO()
    with draft.shown("one\ntwo\nthree", stream):
        pass
    assert not stream.getvalue()
    monkeypatch.setattr(os, "get_terminal_size", lambda handle: os.terminal_size(size))
    master, slave = pty.openpty()
    with open(slave, "w") as terminal, draft.shown("one\ntwo\nthree", terminal):
        pass
    os.set_blocking(master, False)
    with pytest.raises(OSError, match="."):
        os.read(master, 100)
    os.close(master)
