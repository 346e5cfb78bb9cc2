"""A program on a terminal of a given size: what it wrote, when, and which lines that leaves on the screen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_COLOUR = re.compile(r"\x1b\[\d*m")
_PATIENCE = 120.0  # seconds


class Terminal:
    """A program as the leader of its session on a terminal of its own. Closing that is a dropped line.

    `written` has each piece of output, with the seconds from the start at which it came.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        environ: Mapping[str, str],
        *,
        columns: int = 80,
        lines: int = 24,
    ) -> None:
        self.columns = columns
        self.written: list[tuple[float, str]] = []
        self.status: int | None = None
        self._begun = time.monotonic()
        self.process, self._master = pty.fork()
        if self.process == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.chdir(folder)
            os.execvpe(words[0], list(words), {**environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"})

    @property
    def screen(self) -> str:
        """All that was written so far."""
        return "".join(text for _, text in self.written)

    def type_in(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._master, keys.encode())

    def wait_for(self, pattern: str) -> str:
        """Return what the first group of a pattern is in what was written, as soon as it was."""
        end = time.monotonic() + _PATIENCE
        while not (match := re.search(pattern, self.screen, re.MULTILINE)):
            assert time.monotonic() < end, self.screen
            more = self._read(0.5)
            assert more or re.search(pattern, self.screen, re.MULTILINE), self.screen
        return match[1]

    def to_end(self, heard: Callable[[str], object] = lambda text: None) -> int:
        """Read until the program ends, and return its exit status; `heard` is called with each piece of output."""
        end, known = time.monotonic() + 3 * _PATIENCE, len(self.written)
        while self._read(1):
            assert time.monotonic() < end, self.screen
            for _, text in self.written[known:]:
                heard(text)
            known = len(self.written)
        if self.status is None:
            _, ended = os.waitpid(self.process, 0)
            self.status = os.waitstatus_to_exitcode(ended)
        return self.status

    def drop(self) -> None:
        """Close the line: the kernel sends SIGHUP to all that is on it."""
        with contextlib.suppress(OSError):
            os.close(self._master)
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.process, 0)

    def lines(self) -> list[str]:
        """Return the lines that stay on the screen, as they were before the terminal's edge broke any."""
        return [_last_state(line).rstrip() for line in self.screen.split("\n")]

    def states(self) -> list[str]:
        """Return every state of every line, in the order in which they were drawn."""
        return [state for state in re.split(r"[\r\n]+", _COLOUR.sub("", self.screen).replace("\x1b[K", "")) if state]

    def longest_stillness(self) -> float:
        """Return the longest time, in seconds, in which nothing was written, from the first piece on."""
        times = [at for at, _ in self.written]
        return max((after - before for before, after in zip(times, times[1:])), default=0)

    def _read(self, seconds: float) -> bool:
        """Read what comes within this time. Return whether the program still has the terminal."""
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other end is closed
            return False
        self.written.append((time.monotonic() - self._begun, data.decode(errors="replace")))
        return bool(data)


def _last_state(line: str) -> str:
    """Return what a line shows in the end: every return to its beginning draws it again, to its end."""
    states = [_COLOUR.sub("", state).replace("\x1b[K", "") for state in line.split("\r")]
    return next((state for state in reversed(states) if state.strip()), "")
