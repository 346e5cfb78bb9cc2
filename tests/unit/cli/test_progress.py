"""Progress: a clock that never stands still, a line for what is done or failed, and a terminal that may be odd."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

import pytest

from compose_chap.cli.screen.layout import cells
from compose_chap.cli.screen.progress import Progress
from compose_chap.errors import Cancelled, ChapError, NeedsPerson, RolledBack

CLEAR = "\x1b[K"


class Terminal:
    """A terminal whose lines are read by a thread, and what a person sees on it."""

    def __init__(self, columns: int) -> None:
        self._ours, theirs = pty.openpty()
        self.stream: TextIO = open(theirs, "w", encoding="utf-8")
        self.written = b""
        self._reading = threading.Event()
        self._reading.set()
        self.resize(columns)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def stop(self) -> None:
        """Take nothing more, as after Ctrl-S."""
        self._reading.clear()

    def go_on(self) -> None:
        self._reading.set()

    def _read(self) -> None:
        while True:
            self._reading.wait()
            try:
                data = os.read(self._ours, 4096)
            except OSError:
                return
            self.written += data

    def frames(self) -> list[str]:
        """Return all that was drawn, without colours, each drawing of a line as an entry."""
        text = re.sub(r"\x1b\[\d+m", "", self.written.decode(errors="replace"))
        return [frame.replace(CLEAR, "") for frame in re.split(r"[\r\n]+", text)]

    def lines(self) -> list[str]:
        """Return what stands on the screen in the end."""
        text = re.sub(r"\x1b\[\d+m", "", self.written.decode()).replace("\r\n", "\n")
        return [line.rpartition("\r")[2].replace(CLEAR, "") for line in text.split("\n")]

    def until(self, pattern: str) -> None:
        end = time.monotonic() + 10
        while not re.search(pattern, "\n".join(self.frames())):
            assert time.monotonic() < end, self.frames()
            time.sleep(0.02)


@contextmanager
def terminal(columns: int = 80) -> Iterator[Terminal]:
    made = Terminal(columns)
    try:
        yield made
    finally:
        made.go_on()
        made.stream.close()


@pytest.fixture(autouse=True)
def xterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_step_ends_with_what_it_did_and_how_long_it_took() -> None:
    with terminal() as screen:
        progress = Progress(screen.stream, "auto")
        progress("backup", "dump", 700 << 10, 0)
        progress("backup", "dump", 721 << 10, 0)
        progress("backup", "read back dump", 721 << 10, 721 << 10)
        progress("stop", "chap, worker")
        progress.end()
        screen.until("Stopped CHAP")
        assert [re.sub(r"\d+\.\ds", "N s", line) for line in screen.lines() if line] == [
            "✔ Backed up  721 KiB  N s", "✔ Stopped CHAP  N s",
        ]  # fmt: skip
        assert b"\x1b[32m" in screen.written


def test_the_clock_goes_on_while_the_work_says_nothing() -> None:
    with terminal() as screen:
        progress = Progress(screen.stream, "auto")
        progress("start api", "chap")
        screen.until(r"Starting the API: chap  (0\.[3-9]|[1-9]\.\d)s")
        progress("wait", "for its first answer", 1, 0)
        screen.until(r"Starting the API: waiting for its first answer  \d\.\ds")
        progress.end()


def test_a_failure_is_shown_when_it_comes_and_the_way_back_stands_under_a_headline() -> None:
    with terminal() as screen:
        progress = Progress(screen.stream, "auto")
        progress("verify api")
        progress("failed", "column prediction.calibration is missing")
        screen.until("✘ Verifying the API: column prediction.calibration is missing")
        progress("go back")
        progress("files back")
        progress("data back", "chap_core")
        progress.end()
        screen.until("The data are back")
        result = [re.sub(r"\d+\.\ds", "N s", line) for line in screen.lines() if line]
        assert result[1:] == [
            "Putting everything back", "  ✔ The files are back  N s", "  ✔ The data are back  N s",
        ]  # fmt: skip


def test_a_command_that_fails_leaves_its_step_as_failed() -> None:
    with terminal() as screen:
        with pytest.raises(ChapError), Progress(screen.stream, "auto") as progress:
            progress("pull", "chap:v9.9.9")
            raise ChapError("No.")
        screen.until("✘ Pulling")
        assert [line for line in screen.lines() if line] == ["✘ Pulling"]


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_a_live_line_fits_a_window_of_any_width_also_when_that_changes(columns: int) -> None:
    with terminal(200) as screen:
        progress = Progress(screen.stream, "auto")
        progress("pull", "ghcr.io/dhis2-chap/chap-core:v2.1.0 図書館 " * 3, 5 << 20, 9 << 20)
        screen.until("5.0 MiB of 9.0 MiB")
        screen.resize(columns)
        time.sleep(0.4)
        screen.written = b""
        time.sleep(0.5)
        frames = [frame for frame in screen.frames()[1:-1] if frame]
        assert frames and max(map(cells, frames)) < columns, frames
        progress.end()


def test_a_terminal_that_takes_nothing_does_not_hold_up_the_work() -> None:
    with terminal() as screen:
        progress = Progress(screen.stream, "auto")
        progress("pull", "x")
        screen.until("Pulling")
        screen.stop()
        begun = time.monotonic()
        for number in range(20_000):  # more than a terminal's buffer holds
            progress("backup", str(number))
            progress("stop", str(number))
        assert time.monotonic() - begun < 5
        screen.go_on()
        progress.end()


def test_without_utf_8_the_marks_are_words() -> None:
    with terminal() as screen:
        screen.stream.reconfigure(encoding="ascii", errors="backslashreplace")  # type: ignore[attr-defined]
        progress = Progress(screen.stream, "auto")
        progress("stop", "chap")
        progress("failed", "no")
        progress.end()
        screen.until("FAILED Stopping CHAP: no")
        assert screen.written.isascii()


def test_without_colour_the_marks_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with terminal() as screen:
        progress = Progress(screen.stream, "auto")
        progress("stop", "chap")
        progress.end()
        screen.until("✔ Stopped CHAP")
        assert b"\x1b[3" not in screen.written


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with terminal() as screen:
        progress = Progress(screen.stream, "auto")
        progress("stop", "chap")
        progress.end()
        screen.until("Stopping CHAP: chap")
        assert b"\x1b" not in screen.written


def test_off_a_terminal_each_step_is_a_plain_line() -> None:
    stream = io.StringIO()
    progress = Progress(stream, "auto")
    progress("verify api", "chap")
    progress("wait", "for its first answer", 1, 0)
    progress("failed", "It ended.")
    progress("go back")
    progress("data back", "chap_core")
    progress.end()
    assert stream.getvalue().splitlines() == [
        "[   0s] Verifying the API: chap",
        "[   0s] FAILED Verifying the API: It ended.",
        "[   0s] Putting everything back",
        "[   0s]   Putting the data back: chap_core",
    ]


def test_quiet_prints_nothing_and_a_lost_terminal_does_no_harm() -> None:
    stream = io.StringIO()
    Progress(stream, "quiet")("stop", "chap")
    assert not stream.getvalue()
    progress = Progress(stream, "plain")
    stream.close()
    progress("stop", "chap")
    progress("failed", "chap")


def test_json_is_a_document_per_line_also_for_a_failure() -> None:
    stream = io.StringIO()
    progress = Progress(stream, "json")
    progress("verify api")
    progress("failed", "column a.b is missing")
    progress("go back")
    progress.end()
    assert [json.loads(line)["step"] for line in stream.getvalue().splitlines()] == ["verify api", "failed", "go back"]


@pytest.mark.parametrize(
    ("error", "last"),
    [
        (RolledBack("The upgrade failed."), "  ✔ Everything is as before  N s"),
        (Cancelled("The upgrade was cancelled."), "  ✔ Everything is as before  N s"),
        (NeedsPerson("Putting everything back failed too."), "  ✘ Verifying that all is as before"),
    ],
)
def test_the_last_step_of_a_way_back_is_done_where_everything_is_back(error: ChapError, last: str) -> None:
    with terminal() as screen:
        with suppress(ChapError), Progress(screen.stream, "auto") as progress:
            progress("start api")
            progress("failed", "it ended")
            progress("go back")
            progress("verify back")
            raise error
        screen.until("all is as before|Everything is as before")
        assert [re.sub(r"\d+\.\ds", "N s", line) for line in screen.lines() if line][-1] == last


def test_a_look_leaves_no_line_and_a_long_failure_is_broken_between_words() -> None:
    with terminal(columns=40) as screen:
        progress = Progress(screen.stream, "auto")
        progress("look", "chap")
        screen.until("Looking at CHAP")
        progress("verify api")
        progress("failed", "the database is missing what this version needs: prediction.calibration")
        progress.end()
        screen.until("calibration")
        assert [line for line in screen.lines() if line] == [
            "✘ Verifying the API: the database is",
            "  missing what this version needs:",
            "  prediction.calibration",
        ]
