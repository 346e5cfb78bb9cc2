"""What an operator sees in the end: a result as text or JSON, a failure with its three parts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

from compose_chap.cli.screen.checks import hint_lines
from compose_chap.cli.screen.layout import colourful, hanging, width_of
from compose_chap.cli.screen.plain import plain
from compose_chap.errors import ChapError, Declined

JSON_VERSION = 1
_INDENT = 7  # columns, behind which each of the three parts stands
_BEGAN, _TICKED = datetime.now(timezone.utc), time.monotonic()


def failure(error: ChapError) -> str:
    """Return the three parts of a failure: what failed, the state now, the command to run next."""
    if isinstance(error, Declined):
        return error.message
    width = width_of(sys.stderr)
    parts = [("Error", error.message), ("State", error.state)]
    lines = [
        f"{title + ':':<{_INDENT}}"
        + f"\n{'':<{_INDENT}}".join(hanging(line, _INDENT, width) for line in text.split("\n"))
        for title, text in parts
        if text
    ]
    if error.hint:
        next_lines = hint_lines(error.hint, _INDENT, width)
        # A command alone needs no line above it.
        lines.append(f"{'Next:':<{_INDENT}}{next_lines[0].strip()}")
        lines += next_lines[1:]
    return "\n".join(lines)


def document(command: str, data: Mapping[str, Any]) -> str:
    """Return a result as the JSON document that scripts read."""
    return json.dumps({"version": JSON_VERSION, "command": command, **data}, indent=1, default=str)


def json_line(data: Mapping[str, Any]) -> None:
    """Write one line of JSON to standard error, where a program reads the progress."""
    with suppress(OSError):
        print(json.dumps(data, default=str), file=sys.stderr, flush=True)


def failure_facts(error: ChapError) -> dict[str, Any]:
    """Return the part of a JSON document that describes a failure."""
    parts = {"code": error.code, "message": error.message, "state": error.state, "hint": error.hint}
    return {"error": parts, "exit_status": error.exit_status}


def failure_document(command: str, error: ChapError) -> str:
    """Return the JSON document of a command that failed."""
    return document(command, {"ok": False, **failure_facts(error), **error.details})


def now() -> datetime:
    """Return the time, in UTC. The clock that procedures are handed: nobody sets it while they wait."""
    return _BEGAN + timedelta(seconds=time.monotonic() - _TICKED)


def tell(text: str) -> None:
    """Print something that is no result, if there still is a terminal."""
    with suppress(OSError):
        print(plain(text, colours=colourful(sys.stderr)), file=sys.stderr, flush=True)


def write(text: str) -> None:
    """Print a result."""
    if text:
        print(plain(text, colours=colourful(sys.stdout)), file=sys.stdout)
