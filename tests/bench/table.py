"""One table for all that is measured: this tool beside what is done by hand and beside the limit."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

HEAD = ("What", "Database", "docker chap", "By hand", "Limit", "to by hand", "to limit", "Goal", "Met")


@dataclass(frozen=True)
class Goal:
    """At most `most` times what is measured `beside` (`by_hand` or `limit`), and at least `least` times.

    Where `beside` is empty, at most `most`.
    """

    most: float
    beside: str = ""
    least: float = 0.0


@dataclass
class Row:
    """One thing, measured in turn in up to three ways; values of one place in the lists belong together."""

    what: str
    unit: str = "s"
    database: str = ""
    goal: Goal | None = None
    ours: list[float] = field(default_factory=list)
    by_hand: list[float] = field(default_factory=list)
    limit: list[float] = field(default_factory=list)

    def cells(self) -> tuple[str, ...]:
        """Return the row's cells: medians with lowest and highest, and medians of the ratios of each pair."""
        values = (self.text(value) for value in (self.ours, self.by_hand, self.limit))
        ratios = (self.ratio(self.by_hand), self.ratio(self.limit))
        return (self.what, self.database, *values, *ratios, self.wanted(), self.met())

    def wanted(self) -> str:
        """Return the goal, empty for none."""
        if not self.goal:
            return ""
        beside = f" × {self.goal.beside.replace('_', ' ')}" if self.goal.beside else f" {self.unit}"
        return f"{f'{self.goal.least:g} to' if self.goal.least else '≤'} {self.goal.most:g}{beside}"

    def met(self) -> str:
        """Return whether the goal is met, empty without a goal or without values."""
        if not self.goal or not self.ours:
            return ""
        if not self.goal.beside:
            return "yes" if statistics.median(self.ours) <= self.goal.most else "no"
        ratio = self.ratio(getattr(self, self.goal.beside))
        return "" if not ratio else "yes" if self.goal.least <= float(ratio) <= self.goal.most else "no"

    def text(self, values: Sequence[float]) -> str:
        """Return the median of values, and their spread."""
        if not values:
            return ""
        digits = 2 if max(values) < 10 and self.unit == "s" else 1 if max(values) < 100 else 0
        middle, low, high = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
        return f"{middle} {self.unit}" + (f" ({low} to {high})" if low != high else "")

    def ratio(self, beside: Sequence[float]) -> str:
        """Return how this tool's values are to others, pair by pair; empty where there are none."""
        pairs = [ours / other for ours, other in zip(self.ours, beside) if other]
        return f"{statistics.median(pairs):.2f}" if pairs else ""


def in_turn(row: Row, rounds: int, **ways: Callable[[], float]) -> Row:
    """Measure a row's ways in turn, so that a busy machine is busy for all of them; a first round is not counted."""
    for turn in range(rounds + 1):
        for name, way in ways.items():
            value = way()
            if turn:
                getattr(row, name).append(value)
    return row


def markdown(rows: Sequence[Row]) -> str:
    """Return the table, its columns aligned."""
    cells = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(HEAD))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
