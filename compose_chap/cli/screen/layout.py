"""Text in the columns of a terminal: lines, tables, facts. Off a terminal a line is a line, however long."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Sequence
from typing import TextIO

from compose_chap.cli.screen.plain import single_line

# A last column that is narrower than this goes below the others, with what is in it whole.
_LEAST = 14
NARROW = 60  # columns; below, names have lines of their own


def terminal_width(stream: TextIO) -> int:
    """Return the columns of the terminal behind a stream, 80 where there is none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def width_of(stream: TextIO) -> int:
    """Return the columns of a terminal, 0 for what is none."""
    return terminal_width(stream) if stream.isatty() else 0


def colourful(stream: TextIO) -> bool:
    """Tell whether colour is wanted on a stream."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str, colour: str, *, wanted: bool) -> str:
    """Return a text in a colour, as it is where none is wanted."""
    return f"\x1b[{colour}m{text}\x1b[0m" if wanted else text


def cells(text: str) -> int:
    """Return how many columns a text takes: a Chinese letter two, an accent on the letter before it none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def clipped(text: str, most: int) -> str:
    """Return a text cut to a number of columns, with dots in place of what was cut."""
    if cells(text) <= most:
        return text
    while text and cells(text) > most - 3:
        text = text[:-1]
    return text.rstrip() + "..."[: max(most, 0)]


def hanging(text: str, indent: int, width: int) -> str:
    """Return text in lines that fit behind an indent; where the width is 0, each of its lines stays whole."""
    lines: list[str] = []
    for line in text.splitlines():
        fits = not width or cells(line) <= width - indent
        lines += [line] if fits else _wrapped(line, max(width - indent, 20))
    return ("\n" + " " * indent).join(lines)


def paragraph(text: str, stream: TextIO | None = None) -> str:
    """Return sentences in lines that fit the terminal behind a stream, standard output when none is named."""
    return hanging(text, 0, width_of(stream or sys.stdout))


def facts(pairs: Sequence[tuple[str, str]], stream: TextIO | None = None) -> str:
    """Return names and what there is to say of each; what is long goes on in lines of its own on a terminal."""
    indent = max((cells(name) for name, _ in pairs), default=0) + 2
    width = width_of(stream or sys.stdout)
    return "\n".join(f"{_padded(name, indent)}{hanging(single_line(text), indent, width)}" for name, text in pairs)


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Return rows in columns, two spaces apart, without those that are empty.

    On a terminal the text of the last column goes on below itself. Where that is too narrow, as many of the last
    columns as need be go below the first ones.
    """
    everything = [[single_line(cell) for cell in row] for row in rows]
    used = [
        at for at in range(len(head) or len(everything[0]) if everything else 0) if any(row[at] for row in everything)
    ]
    everything = [[row[at] for at in used] for row in ([list(head), *everything] if head else everything)]
    if not everything or not used:
        return ""
    widths = [max(cells(row[at]) for row in everything) for at in range(len(used))]
    columns = width_of(sys.stdout)
    left = sum(widths[:-1]) + 2 * len(widths[:-1])
    if not columns or left + min(widths[-1], _LEAST) <= columns:
        return "\n".join(_line(row, widths, left, columns) for row in everything)
    return "\n".join(line for row in everything for line in _folded(row, widths, columns))


def _line(row: Sequence[str], widths: Sequence[int], left: int, columns: int) -> str:
    *first, last = row
    cells_before = "".join(_padded(cell, width + 2) for cell, width in zip(first, widths))
    return (cells_before + hanging(last, left, columns)).rstrip()


def _folded(row: Sequence[str], widths: Sequence[int], columns: int) -> list[str]:
    lines, used = [""], 0
    for cell, width in zip(row, widths):
        if lines[-1] and used + 2 + width > columns:
            lines.append("    " + _padded(hanging(cell, 4, columns), width))
            used = 4 + width
        else:
            lines[-1] += ("  " if used else "") + _padded(cell, width)
            used += (2 if used else 0) + width
    return [line.rstrip() for line in lines if line.strip()]


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cells(text))


def _wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text. A word is never broken: it may be a path or a command."""
    lines: list[str] = []
    for word in text.split():
        if lines and cells(lines[-1]) + 1 + cells(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
