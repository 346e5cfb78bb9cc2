"""Progress on standard error: live on a terminal, one plain line per step elsewhere, or nothing, or JSON lines.

On a terminal a thread of its own draws, so that the clock goes on while the work waits, and so that a terminal that is
slow, or stopped with Ctrl-S, does not hold up the work.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import TextIO

from compose_chap.cli.screen.layout import cells, clipped, colourful, hanging, painted, terminal_width
from compose_chap.cli.screen.plain import single_line
from compose_chap.cli.screen.steps import FAILED, WAITING, WAY_BACK, words_of
from compose_chap.errors import Cancelled, RolledBack
from compose_chap.units import duration, size, stopwatch

_TICK = 0.125  # seconds between two drawings
_LAST_WORD = 2.0  # seconds that a terminal has to take the last lines
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_MARKS, _PLAIN_MARKS = ("✔", "✘"), ("ok", "FAILED")


@dataclass
class _CurrentStep:
    """The step that goes on: since when, what it is busy with, and how much it has done by what it was busy with."""

    name: str
    begun: float
    detail: str = ""
    amounts: dict[str, float] = field(default_factory=dict)
    total: float = 0

    def amount(self) -> str:
        """Return how many bytes went by; what is only read back was counted already."""
        done = sum(count for detail, count in self.amounts.items() if not detail.startswith("read back"))
        return size(done) if done else ""


class Progress:
    """Tells of the steps of a run on a stream. As a context it ends with the last step done, or failed by an error."""

    def __init__(self, stream: TextIO, mode: str) -> None:
        live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._mode = ("live" if live else "plain") if mode == "auto" else mode
        self._stream = stream
        self._begun = time.monotonic()
        self._step: _CurrentStep | None = None
        self._last = ("", "")
        self._written = 0.0
        self._indent = ""
        self._screen: _Screen | None = None

    @property
    def json(self) -> bool:
        """Whether all that goes to the stream is JSON."""
        return self._mode == "json"

    def __call__(self, step: str, detail: str = "", done: float = 0, total: float = 0) -> None:
        """Tell of a step; with `done`, that it goes on. `failed` says, in `detail`, why the last one did."""
        if self._mode == "quiet":
            return
        if self._mode == "json":
            self._as_json(step, detail, done, total)
        elif step == FAILED:
            self._close(failure=detail)
        elif step == WAITING and self._step:
            self._step.detail = f"waiting {detail}"
        elif self._step and step == self._step.name:
            self._go_on(self._step, detail, done, total)
        else:
            self._close()
            self._open(step, detail)
            if self._step:
                self._go_on(self._step, detail, done, total)

    def note(self, kind: str, **facts: object) -> None:
        """Write a line of JSON that is no step: a note, or a failure."""
        self._write(json.dumps({kind: facts}, default=str) + "\n")

    def end(self) -> None:
        """Close the last step as done, and leave the terminal to others."""
        self._close()
        if self._screen:
            self._screen.stop()
            self._screen = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, RuntimeError):  # click's own way to say an exit status
            # Where everything was put back, the step that went on is the last one of the way back, and it is done.
            back = bool(self._indent) and isinstance(error, (RolledBack, Cancelled))
            self._close(failure=None if back else "")
        self.end()

    def _as_json(self, step: str, detail: str, done: float, total: float) -> None:
        # A log that keeps these lines must not grow with the bytes of a dump.
        if (step, detail) != self._last or done == total or time.monotonic() - self._written > 1:
            self._last, self._written = (step, detail), time.monotonic()
            self._write(json.dumps({"step": step, "detail": detail, "done": done, "total": total}) + "\n")

    def _open(self, step: str, detail: str) -> None:
        title = words_of(step).doing
        if step == WAY_BACK:
            self._line(title)
            self._indent = "  "
            return
        self._step = _CurrentStep(step, time.monotonic(), detail)
        if self._mode == "plain":
            self._line(f"{title}: {single_line(detail)}" if detail else title)
        elif self._screen is None:
            self._screen = _Screen(self._stream)
        if self._screen:
            self._screen.show(self._step, self._indent)

    def _go_on(self, step: _CurrentStep, detail: str, done: float, total: float) -> None:
        step.detail, step.total = detail or step.detail, total
        if done:
            step.amounts[step.detail] = done

    def _close(self, failure: str | None = None) -> None:
        """Leave the line of the step that went on: as done, or with why it failed; none of a mere look."""
        step, self._step = self._step, None
        if step is None:
            return
        words = words_of(step.name)
        if not words.done and not failure:
            if self._screen:
                self._screen.clear()
        elif failure is not None:
            why = f"{words.doing}: {single_line(failure)}" if failure else words.doing
            self._line(why, good=False)
        elif self._mode == "live":
            took = stopwatch(time.monotonic() - step.begun)
            self._line("  ".join(filter(None, (words.done, step.amount(), took))), good=True)

    def _line(self, text: str, *, good: bool | None = None) -> None:
        if self._screen:
            self._screen.add(self._indent, text, good)
        elif self._mode == "live":
            self._write(f"{self._indent}{text}\n")
        else:
            mark = f"{_PLAIN_MARKS[1]} " if good is False else ""
            self._write(f"[{duration(time.monotonic() - self._begun):>5}] {self._indent}{mark}{text}\n")

    def _write(self, text: str) -> None:
        # A terminal that went away must not stop a rollback.
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._mode = "quiet"


class _Screen:
    """The last lines of a terminal: finished ones, which stay, and a live one, drawn again and again by a thread."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colour = colourful(stream)
        self._marks = _MARKS if _can_show(stream, "".join(_MARKS) + _SPINNER) else _PLAIN_MARKS
        self._finished: list[str] = []
        self._live: tuple[_CurrentStep, str] | None = None
        self._drawn = False
        self._change = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def show(self, step: _CurrentStep, indent: str) -> None:
        """Make this step the live one."""
        self._live = (step, indent)

    def add(self, indent: str, text: str, good: bool | None) -> None:
        """Put a finished line above the live one, which is over."""
        mark = "" if good is None else painted(self._marks[not good], "32" if good else "31", wanted=self._colour) + " "
        behind = len(indent) + 2 * bool(mark)
        with self._change:
            self._live = None
            self._finished.append(f"{indent}{mark}{hanging(text, behind, terminal_width(self._stream))}")

    def clear(self) -> None:
        """Take the live line away."""
        with self._change:
            self._live = None

    def stop(self) -> None:
        """Draw what is left, and end. A terminal that takes nothing is not waited for."""
        self._over.set()
        self._thread.join(_LAST_WORD)

    def _run(self) -> None:
        while not self._over.wait(_TICK):
            self._draw()
        self._draw()

    def _draw(self) -> None:
        with self._change:
            finished, self._finished = self._finished, []
            live = self._live
        text = "".join(f"{line}\x1b[K\n" for part in finished for line in part.split("\n"))
        if live and not self._over.is_set():
            text += self._live_line(*live) + "\x1b[K"
        elif finished or self._drawn:
            text += "\x1b[K"
        self._drawn = bool(live) and not self._over.is_set()
        try:
            self._stream.write(f"\r{text}\r" if text else "")
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone, and the work goes on
            self._over.set()

    def _live_line(self, step: _CurrentStep, indent: str) -> str:
        """Return the line of a step: what it does, how far it is, its clock. It always fits on one line."""
        went = time.monotonic() - step.begun
        spinner = _SPINNER[int(went / _TICK) % len(_SPINNER)] if self._marks is _MARKS else "-\\|/"[int(went * 4) % 4]
        amount, took = step.amount(), stopwatch(went)
        if amount and step.total:
            amount += f" of {size(step.total)}" if len(step.amounts) == 1 else ""
        tail = "".join(f"  {part}" for part in (amount, took) if part)
        # Read again each time: the window may be another size now. The last column stays free, so that nothing wraps.
        room = terminal_width(self._stream) - 1 - cells(tail) - cells(indent) - 2
        title = words_of(step.name).doing
        if detail := single_line(step.detail):
            title = f"{title}: {detail}"
        if room < 8:
            return clipped(f"{indent}{spinner} {words_of(step.name).doing}", terminal_width(self._stream) - 1)
        return f"{indent}{painted(spinner, '36', wanted=self._colour)} {clipped(title, room)}{tail}"


def _can_show(stream: TextIO, letters: str) -> bool:
    try:
        letters.encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True
