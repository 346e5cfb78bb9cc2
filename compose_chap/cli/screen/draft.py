"""What is known at once, shown on a terminal until all of it is: the whole takes its place."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from compose_chap.cli.screen.plain import plain


@contextmanager
def shown(text: str, stream: TextIO | None = None) -> Iterator[None]:
    """Show a text while the block runs, and take it away then. Where it cannot be taken away, nothing is shown."""
    stream = stream or sys.stdout
    height = _rows(text, stream)
    if not height:
        yield
        return
    stream.write(plain(text) + "\n")
    stream.flush()
    try:
        yield
    finally:
        stream.write(f"\x1b[{height}A\r\x1b[J")
        stream.flush()


def _rows(text: str, stream: TextIO) -> int:
    """Return how many rows of a terminal a text takes; 0 where it is none, or has no room for it."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return 0
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 0
    needed = sum(max(1, -(-len(line) // columns)) for line in plain(text).split("\n")) if columns else 0
    return needed if needed < rows else 0
