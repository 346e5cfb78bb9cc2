"""A child's words are read as they come, however many there are."""

from __future__ import annotations

import sys

import pytest

from compose_chap.processes import process


def test_a_child_that_says_much_on_both_ways_does_not_stand_still() -> None:
    # A pipe holds 64 KiB: Compose writes what a build says to standard output, and warnings to standard error.
    chatter = "import sys\nfor n in range(9999): print('step', n); print('warning', n, file=sys.stderr)\nsys.exit(3)"
    lines: list[str] = []
    finished = process.run([sys.executable, "-c", chatter], on_line=lines.append)
    assert finished.status == 3
    assert sorted(lines) == sorted(f"{word} {n}" for n in range(9999) for word in ("step", "warning"))
    assert finished.last_lines.splitlines()[-1] == lines[-1]


def test_a_variable_is_given_and_another_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSE_ENV_FILES", "elsewhere")
    shown = [sys.executable, "-c", "import os; print(os.getenv('COMPOSE_ENV_FILES'), os.getenv('COMPOSE_ANSI'))"]
    environment = {"COMPOSE_ENV_FILES": None, "COMPOSE_ANSI": "never"}
    assert process.run(shown, environment=environment).stdout == "None never\n"
