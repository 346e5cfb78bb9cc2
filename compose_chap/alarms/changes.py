"""What changed: what fails that worked before, and what works again. Only that is worth a message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Sign:
    """How something was seen to be: `subject` says what, `fault` why it fails, empty where it works.

    `hint` is the command that helps, empty for none.
    """

    subject: str
    fault: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Failing:
    """What fails, since when, why, and the command that helps."""

    subject: str
    since: datetime
    fault: str
    hint: str = ""


@dataclass(frozen=True)
class StateChange:
    """What fails now, and of that what is new; and what failed before and works again."""

    failing: tuple[Failing, ...]
    began: tuple[Failing, ...]
    ended: tuple[Failing, ...]


def compare(before: Sequence[Failing], signs: Sequence[Sign], now: datetime) -> StateChange:
    """Return what the signs change. What there is no sign of stays as it was; of two signs the last counts."""
    known = {failing.subject: failing for failing in before}
    seen = {sign.subject: sign for sign in signs}
    after = dict(known)
    for subject, sign in seen.items():
        if sign.fault:
            since = known[subject].since if subject in known else now
            after[subject] = Failing(subject, since, sign.fault, sign.hint)
        else:
            after.pop(subject, None)
    return StateChange(
        tuple(after.values()),
        tuple(failing for subject, failing in after.items() if subject not in known),
        tuple(failing for subject, failing in known.items() if subject not in after),
    )
