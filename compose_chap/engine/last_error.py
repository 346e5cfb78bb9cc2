"""Why a program ended, read from the end of its log: the exception that it ended with, or else its last error line.

The last lines alone do not say it: SQLAlchemy prints the statement after the error, and gunicorn adds its own lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_LONGEST = 300
_MOST = 1 << 20  # letters at the end of a log that are read

# Colours, and the time that the engine puts before a line.
_DECORATION = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|^\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d) ?", re.MULTILINE)
# What SQLAlchemy adds to a message: statement, parameters and a link. A statement may hold any word.
_STATEMENT = re.compile(
    r"^\[SQL:\s.*?(?:^\(Background on this error at: [^\n]*\)$|(?=^[ \t|+]*Traceback \()|\Z)", re.M | re.S
)
_TRACEBACK = re.compile(
    r"^(?P<margin>[\s|+]*)(?![\s|+])(?:\S+ +)*?(?:Exception Group )?Traceback \(most recent call last\):\s*$"
)
_FRAME = re.compile(r"^ +File \"")
# `ValueError: text`, `psycopg2.errors.DuplicateTable: text`, `AssertionError`.
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?:\.[A-Z]\w*|Error|Exception|Interrupt|Exit|Group)(?::|$)")
_ERROR_LINE = re.compile(r"\b(?:ERROR|CRITICAL|FATAL|FAILED|PANIC)\b")
# What servers log after the reason, as they shut down: not the reason itself.
_AFTERMATH = re.compile(
    r"gunicorn\.errors\.HaltServer|^SystemExit\b|Exception in worker process|Worker .*exited with code|Shutting down: "
    r"|Reason: Worker failed to boot|Worker exiting|Worker \(pid:\s*\d+\) was sent|Application startup failed"
    r"|Handling signal|Exception in ASGI application|During handling of the above|direct cause of the following"
)


def last_error(log: str) -> str:
    """Return why the program that wrote a log ended, in one line of at most 300 characters; empty for an empty log."""
    lines = [line.rstrip() for line in _cleaned(log[-_MOST:]).splitlines()]
    reasons = [reason for reason in _reasons(lines) if not _AFTERMATH.search(reason)]
    reasons = reasons or [line.strip() for line in lines if line.strip() and not _AFTERMATH.search(line)]
    # Where nothing else is left, these lines are better than none.
    reason = " ".join((reasons or [line for line in lines if line.strip()] or [""])[-1].split())
    return reason if len(reason) <= _LONGEST else reason[: _LONGEST - 3] + "..."


def _cleaned(log: str) -> str:
    return _STATEMENT.sub("", _DECORATION.sub("", log.replace("\r\n", "\n").replace("\r", "\n")))


def _reasons(lines: Sequence[str]) -> Iterator[str]:
    """Yield everything that may be the reason, in the order of the log: the last one is the reason."""
    at = 0
    while at < len(lines):
        if header := _TRACEBACK.match(lines[at]):
            reason, at = _traceback(lines, at + 1, len(header["margin"]))
            if reason:
                yield reason
            continue
        if _EXCEPTION.match(lines[at]) or _ERROR_LINE.search(lines[at]):
            yield lines[at]
        at += 1


def _traceback(lines: Sequence[str], at: int, margin: int) -> tuple[str, int]:
    """Return the exception that follows the frames starting at line `at`, and the number of the line after it."""
    raising_line = ""
    while at < len(lines) and (not lines[at][margin:] or lines[at][margin:].startswith(" ")):
        if at and _FRAME.match(lines[at - 1][margin:]):
            raising_line = lines[at].strip(" |")
        at += 1
    if at == len(lines):
        # The log was cut within the frames: the last line of code is all we know.
        return raising_line, at
    reason = lines[at][margin:]
    # A bare `AssertionError` says nothing: show the line that raised it.
    return f"{reason}: {raising_line}" if raising_line and re.fullmatch(r"[\w.]+:?", reason) else reason, at + 1
