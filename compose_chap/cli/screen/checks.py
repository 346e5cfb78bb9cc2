"""Checks as lines: how each stands, its name in words, what was found, and what to do about it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TextIO

from compose_chap.check import Check, words_of
from compose_chap.cli.screen.layout import NARROW, colourful, hanging, painted, width_of
from compose_chap.units import several

_MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL", "error": "FAIL", "skipped": "skip"}
_COLOURS = {"ok": "32", "warn": "33", "fail": "31", "error": "31", "skipped": "2"}

_NAME_WIDTH = 16

# A command in a hint, to the end of its sentence. It is copied from the screen, so it has a line of its own, unbroken.
_PROGRAMS = "docker|mkdir|chown|chmod|mount|systemctl|timedatectl|apt|git|cd|rm|mv|cp|df|ls|dmesg"
_COMMAND = re.compile(rf"(?:^|(?<=: ))((?:sudo |DOCKER_\w+=\S+ )?(?:{_PROGRAMS}) .+?)\.?(?:$| (?=[A-Z][a-z]+[ :]))")
_SEVERAL = re.compile(r", (?=docker )")


def checks_text(checks: Iterable[Check], stream: TextIO | None = None) -> str:
    """Return checks as lines for a stream, standard output when none is named.

    Checks in a row that found the same have one line together.
    """
    stream = stream or sys.stdout
    width, colour = width_of(stream), colourful(stream)
    narrow = 0 < width < NARROW
    indent = 8 if narrow else 8 + _NAME_WIDTH + 1
    lines = []
    for (status, message, hint), alike in groupby(checks, lambda check: (check.status, check.message, check.hint)):
        names = ", ".join(dict.fromkeys(words_of(check.name) for check in alike))
        mark = painted(_MARKS[status].ljust(4), _COLOURS[status], wanted=colour)
        alone = narrow or len(names) > _NAME_WIDTH
        name = f"{hanging(names, 8, width)}\n{'':<{indent}}" if alone else f"{names:<{_NAME_WIDTH}} "
        lines.append(f"  {mark}  {name}{hanging(message, indent, width)}")
        if hint and status != "ok":
            lines += hint_lines(hint, indent, width)
    return "\n".join(lines)


def hint_lines(hint: str, indent: int, width: int) -> list[str]:
    """Return a hint in lines behind an indent, each command in it on a line of its own, whole."""
    lines = []
    for line in hint.split("\n"):
        # Words and commands take turns.
        for at, part in enumerate(_COMMAND.split(line)):
            if not at % 2:
                lines += [f"{'':<{indent}}{hanging(part.strip(), indent, width)}"] if part.strip() else []
                continue
            for command in _SEVERAL.split(part):
                # Where there is no room for it behind the indent, it begins at the left.
                fits = not width or indent + 2 + len(command) <= width
                lines.append(f"{'':<{indent + 2 if fits else 2}}{command}")
    return lines


def summary(checks: Sequence[Check]) -> str:
    """Return how many checks passed, warned and failed."""
    count = {status: sum(check.status == status for check in checks) for status in ("ok", "warn", "skipped")}
    failed = sum(check.failed for check in checks)
    parts = [f"{several(count['ok'], 'check')} passed"]
    parts += [several(count["warn"], "warning")] if count["warn"] else []
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{count['skipped']} skipped"] if count["skipped"] else []
    return ", ".join(parts)


def concerns_text(checks: Sequence[Check], stream: TextIO | None = None) -> str:
    """Return how many checks passed, and each that did not."""
    if not checks:
        return ""
    concerns = [check for check in checks if check.status not in ("ok", "skipped")]
    if not concerns:
        return f"{summary(checks)}."
    return f"{summary(checks)}:\n{checks_text(concerns, stream)}"
