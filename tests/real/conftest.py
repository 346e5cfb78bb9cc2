"""The table of all roads: each test adds its line, and it is shown at the end."""

from __future__ import annotations

import pytest

from tests.real.images import WORK

TABLE = WORK / "table.tsv"
TITLES = {
    "became": "what the data become",
    "upgrade": "upgrade",
    "truth": "and in truth",
    "rollback": "rollback",
    "restore": "restore of the backup",
    "rehearse": "rehearse",
}


def write_line(road: str, line: dict[str, str]) -> None:
    """Add a road's line; the processes of a run write to one file."""
    with TABLE.open("a") as table:
        table.write("\t".join([road, *(line.get(title, "-") for title in TITLES)]) + "\n")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Begin with an empty table, in the first process only."""
    if not hasattr(session.config, "workerinput"):
        TABLE.unlink(missing_ok=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the table."""
    if not TABLE.exists():
        return
    rows = [["road", *TITLES.values()], *(line.split("\t") for line in sorted(TABLE.read_text().splitlines()))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    terminalreporter.section("real releases")
    for row in rows:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line("  ".join(padded).rstrip())
