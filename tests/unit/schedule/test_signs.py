"""What an alarm tells to do next: whoever reads it ran no command, and is not at that server."""

from __future__ import annotations

from typing import Any

import pytest

from compose_chap.copies import failures
from compose_chap.schedule import signs
from compose_chap.schedule.plan import Schedule
from compose_chap.schedule.work import WorkOutcome

AGAIN = "docker chap schedule run nightly"


@pytest.mark.parametrize(
    ("hint", "following"),
    [
        ("", AGAIN),
        ("Run the command again.", AGAIN),
        (
            "Make room, or write elsewhere. Then run the command again.",
            f"Make room, or write elsewhere.\nThen: {AGAIN}",
        ),
        (
            "Run the command again when the link is back. What was sent already stays.",
            f"Wait until the link is back. What was sent already stays.\nThen: {AGAIN}",
        ),
        ("Connect it, then run the command again.", f"Connect it.\nThen: {AGAIN}"),
        ("Mount it, then run the command again: mount /mnt", f"Mount it: mount /mnt\nThen: {AGAIN}"),
        (
            "Run the command again: what was sent already stays. Is there enough memory?",
            f"What was sent already stays. Is there enough memory?\nThen: {AGAIN}",
        ),
        ("See what is wrong: docker chap verify X", f"See what is wrong: docker chap verify X\nThen: {AGAIN}"),
    ],
)
def test_the_command_to_run_again_is_the_work(hint: str, following: str) -> None:
    whole, part = signs.at_end("nightly", [WorkOutcome("copy", 1, message="It failed.", hint=hint)])
    assert part.hint == following and not whole.fault


def test_no_hint_about_a_repository_speaks_of_the_command() -> None:
    for _, _, _, hint in failures._MEANINGS:
        _, part = signs.at_end("nightly", [WorkOutcome("copy", 1, hint=hint)])
        assert "the command again" not in part.hint and part.hint.endswith(f"\nThen: {AGAIN}")


@pytest.mark.parametrize(
    ("status", "seen"),
    [
        ({}, None),
        ({"disks": {"database_free": 5}}, None),
        ({"disks": {"low": []}}, ("", "")),
        ({"disks": {"low": ["Only 9 B are free.", "And there too."]}}, ("Only 9 B are free. And there too.", "prune")),
    ],
)
def test_a_disk_that_fills_is_worth_an_alarm(status: dict[str, Any], seen: tuple[str, str] | None) -> None:
    read = signs.of_space(status)
    assert [(sign.fault, "prune" if "docker chap prune" in sign.hint else "") for sign in read] == (
        [seen] if seen else []
    )
    assert {sign.subject for sign in read} <= signs.subjects(Schedule("p", "root", "cron", 1, 30, (), (), "/"))
