"""How soon each command shows something on a terminal, and how long it is silent at most. Prints one table.

    . build/out/env.sh
    build/out/venv/bin/python -m tests.bench.first_output [--rounds 3]

`first` is what a person waits for: the first letter or sign on the screen. What asks a question is answered with no.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.table import Row
from tests.sample.stack import SampleStack, environment
from tests.sample.terminal import Terminal

COMMANDS = (
    "version",
    "--help",
    "status",
    "check v2.1.0",
    "versions",
    "backup",
    "backups",
    "verify",
    "verify --deep",
    "prune",
    "upgrade v2.1.0",
    "rehearse v2.1.0",
    "restore latest",
    "recover",
    "pin v2.1.0 --dry-run",
    "history",
    "upgarde",
)
_SIGN = re.compile(r"\x1b\[[\d;?]*[A-Za-z]|\s")
_QUESTION = re.compile(r"\[y/N\]")


def main() -> None:
    """Measure on a small stack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        stack = SampleStack.create(Path(folder))
        try:
            stack.up()
            stack.fill(rows=20_000)
            print(table(stack, rounds))
        finally:
            stack.down()


def table(stack: SampleStack, rounds: int) -> str:
    """Return the time to the first output, to the end, and the longest silence of every command."""
    lines = ["| Command | First output | Longest silence after it | End |", "|---|---|---|---|"]
    for line in COMMANDS:
        rows = [Row(line), Row(line), Row(line)]
        for _ in range(rounds):
            for row, value in zip(rows, measured(stack, line.split())):
                row.ours.append(value)
        lines.append(f"| `{line}` | " + " | ".join(row.text(row.ours) for row in rows) + " |")
    return "\n".join(lines)


def measured(stack: SampleStack, words: Sequence[str]) -> tuple[float, float, float]:
    """Return the seconds to the first sign on the terminal, of the longest silence after it, and to the end."""
    terminal = Terminal(["docker", "chap", *words], stack.folder, environment())
    try:
        terminal.to_end(lambda text: terminal.type_in("n\r") if _QUESTION.search(text) else None)
        first = next(at for at, text in terminal.written if _SIGN.sub("", text))
        return first, terminal.longest_stillness(), terminal.written[-1][0]
    finally:
        terminal.drop()


if __name__ == "__main__":
    main()
