"""What an operator sees: results as text or JSON, progress, failures. Only strings; the terminal is handed in."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from itertools import groupby
from typing import TYPE_CHECKING, Any, TextIO

from compose_chap.cli.screen.plain import on_one_line, plain
from compose_chap.errors import ChapError
from compose_chap.units import duration, size

if TYPE_CHECKING:
    from compose_chap.check import Check
    from compose_chap.postgres.server import Session

JSON_VERSION = 1

_BEGAN, _TICKED = datetime.now(timezone.utc), time.monotonic()

_MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL", "error": "FAIL", "skipped": "skip"}
_COLOURS = {"ok": "32", "warn": "33", "fail": "31", "error": "31", "skipped": "2"}

# What each step of a run is called on the screen.
_STEPS = {
    "check": "Looking at",
    "ask": "Asking",
    "pull": "Pulling",
    "checkout": "Checking out",
    "build": "Building",
    "backup": "Backing up",
    "stop": "Stopping CHAP",
    "keep": "Keeping the data",
    "rewrite": "Changing the files",
    "swap": "Swapping the databases",
    "start api": "Starting the API",
    "verify api": "Verifying the API",
    "start worker": "Starting the worker",
    "verify": "Verifying everything",
    "go back": "Going back",
    "read dump": "Reading the dump",
    "restore beside": "Restoring beside the live database",
    "check beside": "Checking what was restored",
    "start database": "Starting the database",
    "prove": "Proving the backup",
    "copy data": "Copying the data",
    "start copy": "Starting the new version on the copy",
    "verify copy": "Verifying the copy",
    "wait": "Waiting",
    "drain": "Waiting for jobs",
    "lock": "Waiting until it has ended",
}


class Progress:
    """Tells of steps on a stream: live on a terminal, one plain line per step elsewhere, or nothing, or JSON lines."""

    def __init__(self, stream: TextIO, mode: str) -> None:
        live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._mode = ("live" if live else "plain") if mode == "auto" else mode
        self._stream = stream
        self._begun = time.monotonic()
        self._step = self._line = ""
        self._told = ("", "")
        self._drawn = 0.0
        self._open = False

    def __call__(self, step: str, detail: str = "", done: float = 0, total: float = 0) -> None:
        """Tell of a step; with `done`, that it goes on."""
        if self._mode == "quiet":
            return
        if self._mode == "json":
            # A log that keeps these lines must not grow with the bytes of a dump.
            if (step, detail) != self._told or done == total or self._waited(1):
                self._told, self._drawn = (step, detail), time.monotonic()
                self._write(json.dumps({"step": step, "detail": detail, "done": done, "total": total}) + "\n")
            return
        new = step != self._step and step != "wait"
        if new:
            self.end()
            self._step, self._line = step, f"[{self._elapsed():>5}] {self._title(step, detail)}"
            if self._mode == "plain":
                self._write(self._line + "\n")
        if self._mode == "live" and (new or self._waited(0.1)):
            self._draw(step, detail, done, total)

    def end(self) -> None:
        """Leave the line of the last step as it stands where nothing is live."""
        if self._open:
            self._show(self._line)
            self._write("\n")
            self._open = False

    def _draw(self, step: str, detail: str, done: float, total: float) -> None:
        amount = ""
        if step == "wait":
            amount = f"{int(done)} s" if done else ""
            detail = f"{_STEPS['wait'].lower()} {detail}".strip()
        elif done:
            amount = size(done) + (f" of {size(total)}" if total else "")
        line = f"[{self._elapsed():>5}] {self._title(self._step or step, detail)}" + (f"  {amount}" if amount else "")
        self._show(line)
        self._drawn, self._open = time.monotonic(), True

    def _show(self, line: str) -> None:
        width = terminal_width(self._stream)
        self._write("\r" + (line if len(line) < width else line[: width - 4] + "...") + "\x1b[K")

    def _title(self, step: str, detail: str) -> str:
        name = _STEPS.get(step, step.capitalize())
        return f"{name}: {on_one_line(detail)}" if detail else name

    def _waited(self, seconds: float) -> bool:
        return time.monotonic() - self._drawn > seconds

    def _elapsed(self) -> str:
        return duration(time.monotonic() - self._begun)

    def _write(self, text: str) -> None:
        # A terminal that went away must not stop a rollback.
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._mode = "quiet"


def terminal_width(stream: TextIO) -> int:
    """Return the columns of the terminal behind a stream, 80 where there is none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def failure(error: ChapError) -> str:
    """Return the three parts of a failure: what failed, the state now, the command to run next."""
    width = _width_of_a_terminal(sys.stderr)
    # What to run next is never broken: it is copied from here.
    parts = [("Error", error.message, width), ("State", error.state, width), ("Next", error.hint, 0)]
    lines = []
    for title, text, columns in parts:
        if text:
            hanging = (_hanging(line, 7, columns) for line in text.split("\n"))
            lines.append(f"{title}: " + ("\n" + " " * 7).join(hanging))
    return "\n".join(lines)


def _width_of_a_terminal(stream: TextIO) -> int:
    return terminal_width(stream) if stream.isatty() else 0


def _hanging(text: str, indent: int, width: int) -> str:
    """Return text in lines that fit behind an indent; as it is where the width is 0."""
    if not width or len(text) <= width - indent:
        return text
    lines = textwrap.wrap(text, max(width - indent, 20), break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(lines)


def document(command: str, data: Mapping[str, Any]) -> str:
    """Return a result as the JSON document that scripts read."""
    return json.dumps({"version": JSON_VERSION, "command": command, **data}, indent=1, default=str)


def failure_document(command: str, error: ChapError) -> str:
    """Return a failure as a JSON document."""
    parts = {"code": error.code, "message": error.message, "state": error.state, "hint": error.hint}
    return document(command, {"ok": False, "error": parts, "exit_status": error.exit_status, **error.details})


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Return rows in columns, two spaces apart; on a narrow terminal the last columns go below the first ones."""
    everything = [[on_one_line(cell) for cell in row] for row in ([head, *rows] if head else rows)]
    if not everything:
        return ""
    widths = [max(len(row[at]) for row in everything) for at in range(len(everything[0]))]
    lines = [line for row in everything for line in _folded(row, widths, _width_of_a_terminal(sys.stdout))]
    return "\n".join(lines)


def _folded(row: Sequence[str], widths: Sequence[int], columns: int) -> list[str]:
    lines = [""]
    used = 0
    for cell, width in zip(row, widths):
        if columns and lines[-1] and used + 2 + width > columns:
            lines.append("    " + cell.ljust(width))
            used = 4 + width
        else:
            lines[-1] += ("  " if used else "") + cell.ljust(width)
            used += (2 if used else 0) + width
    return [line.rstrip() for line in lines if line.strip()]


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Return names and what is told of each; long tellings go on in lines of their own on a terminal."""
    indent = max(len(name) for name, _ in pairs) + 2
    width = _width_of_a_terminal(sys.stdout)
    return "\n".join(f"{name:<{indent}}{_hanging(on_one_line(told), indent, width)}" for name, told in pairs)


def paragraph(text: str, stream: TextIO | None = None) -> str:
    """Return sentences in lines that fit the terminal behind a stream, standard output when none is named."""
    return _hanging(text, 0, _width_of_a_terminal(stream or sys.stdout))


def checks_text(checks: Iterable[Check], *, colour: bool) -> str:
    """Return checks as lines: how each stands, its name, what was found, and what to do.

    Checks in a row that found the same have one line together.
    """
    width = _width_of_a_terminal(sys.stdout)
    narrow = 0 < width < 60
    indent = 8 if narrow else 25
    lines = []
    for (status, message, hint), alike in groupby(checks, lambda check: (check.status, check.message, check.hint)):
        names = ", ".join(check.name for check in alike)
        mark = _MARKS[status].ljust(4)
        if colour:
            mark = f"\x1b[{_COLOURS[status]}m{mark}\x1b[0m"
        name = f"{names}\n{'':<{indent}}" if narrow or len(names) > 16 else f"{names:<16} "
        lines.append(f"  {mark}  {name}{_hanging(message, indent, width)}")
        if hint and status != "ok":
            lines.append(f"{'':<{indent}}-> {_hanging(hint, indent + 3, width)}")
    return "\n".join(lines)


def session_ends(session: Session) -> str:
    """Say who will be disconnected from the database."""
    who = f"{session.application or 'unnamed'} of {session.role} from {session.address}"
    return f"This session will be ended: {who}."


def colourful(stream: TextIO) -> bool:
    """Tell whether colour is wanted on a stream."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def now() -> datetime:
    """Return the time, in UTC. The clock that procedures are handed: nobody sets it while they wait."""
    return _BEGAN + timedelta(seconds=time.monotonic() - _TICKED)


def tell(text: str) -> None:
    """Print something that is no result, if there still is a terminal."""
    with suppress(OSError):
        print(plain(text), file=sys.stderr, flush=True)


def write(text: str) -> None:
    """Print a result."""
    if text:
        print(plain(text, colours=colourful(sys.stdout)), file=sys.stdout)
