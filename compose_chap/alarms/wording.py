"""What alarms say: which stack, what fails and why, since when, how things are now, and the command to run next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from shlex import quote

from compose_chap import units
from compose_chap.alarms.changes import Failing, StateChange
from compose_chap.redact import redact

_LONGEST = 700  # bytes of the reason of one failure


@dataclass(frozen=True)
class AlarmText:
    """What is sent: a title and a text, and whether it is about something bad."""

    title: str
    body: str
    bad: bool = False


def title(stack: str, change: StateChange) -> str:
    """Return the line that a phone shows. `stack` names the stack and its server."""
    parts = [f"{_subjects(failing)} {word}" for failing, word in _groups(change)]
    return f"CHAP {stack}: {', '.join(parts)}"


def text(
    stack: str, user: str, folder: str, change: StateChange, state: Sequence[tuple[str, str]], now: datetime
) -> str:
    """Return the message about a change, as of `now`; `state` is what things are in, as names and values.

    `user` and `folder` are those of the schedule.
    """
    blocks = [f"CHAP {stack}, {units.moment(now)}"]
    blocks += [f"FAILS: {failing.subject}\n{_reason(failing.fault)}" for failing in change.began]
    blocks += [
        f"WORKS AGAIN: {failing.subject}\nIt had been failing since {units.moment(failing.since)}."
        for failing in change.ended
    ]
    old = [failing for failing in change.failing if failing not in change.began]
    blocks += [f"Still fails, since {units.moment(failing.since)}: {failing.subject}" for failing in old]
    blocks.append("\n".join(f"{name}: {value}" for name, value in state))
    if hints := list(dict.fromkeys(failing.hint for failing in (*change.began, *old) if failing.hint)):
        blocks.append("\n".join([f"Next, on that server, as user {user}:", f"cd {quote(folder)}", *hints]))
    else:
        blocks.append("Nothing fails now. There is nothing to do.")
    return redact("\n\n".join(block for block in blocks if block))


def _groups(change: StateChange) -> list[tuple[Sequence[Failing], str]]:
    began, ended = change.began, change.ended
    words = [
        (began, "fails" if len(began) == 1 else "fail"),
        (ended, "works again" if len(ended) == 1 else "work again"),
    ]
    return [(failing, word) for failing, word in words if failing]


def _subjects(failing: Sequence[Failing]) -> str:
    return " and ".join(each.subject for each in failing) if len(failing) < 4 else f"{len(failing)} parts"


def _reason(fault: str) -> str:
    return fault if len(fault.encode()) <= _LONGEST else units.clipped(fault, _LONGEST) + "…"
