"""What an operator sees: nothing is cut off, whatever the width, and nothing is broken where a script reads it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import sys
import time

import click
import pytest

from compose_chap import units
from compose_chap.check import Check
from compose_chap.cli.call import Call
from compose_chap.cli.screen import layout, render
from compose_chap.cli.screen.checks import checks_text, hint_lines
from compose_chap.cli.screen.progress import Progress
from compose_chap.errors import ChapError

CHECK = Check("images", "fail", "The registry does not have this image at all. " * 3, "See all: docker chap versions")


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    width: int = request.param
    monkeypatch.setattr(layout, "terminal_width", lambda stream: width)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    return width


def test_each_line_of_a_message_stands_in_its_column() -> None:
    lines = checks_text([Check("jobs", "fail", "It could not be asked: first line\nsecond line")]).splitlines()
    assert lines[1].index("second") == lines[0].index("It could")


@pytest.mark.parametrize("columns", [40, 59, 60, 80, 200], indirect=True)
def test_lines_fit_the_terminal_and_lose_no_word(columns: int) -> None:
    failed = ChapError("The upgrade failed for a reason that takes long to tell. " * 3, state="All is as it was. " * 5)
    for text in (checks_text([CHECK]), render.failure(failed)):
        assert max(map(len, text.splitlines())) <= columns
    words = checks_text([CHECK]).split()
    assert words == ["FAIL", "images", *CHECK.message.split(), *CHECK.hint.split()]


@pytest.mark.parametrize("columns", [40], indirect=True)
def test_a_command_to_copy_is_never_broken(columns: int) -> None:
    command = "docker exec docker-chap-test-postgres-1 psql -U chap -d chap_core -c 'SELECT 1'"
    assert f"Next:  {command}" in render.failure(ChapError("No.", hint=command))


def test_off_a_terminal_a_line_is_a_line() -> None:
    assert len(checks_text([CHECK]).splitlines()) == 3  # the command in the hint has a line of its own


def test_checks_with_the_same_message_share_a_line() -> None:
    same = [Check(name, "skipped", "Not from source.") for name in ("sources", "services", "settings")]
    lines = checks_text([CHECK, *same]).splitlines()
    assert lines[3:] == ["  skip  sources, services, settings", f"{'':<25}Not from source."]


@pytest.mark.parametrize(
    ("bytes_", "expected"),
    [(0, "0 B"), (2048, "2 KiB"), (1.5 * 2**20, "1.5 MiB"), (200 * 2**20, "200 MiB"), (2**40, "1024 GiB")],
)
def test_sizes_are_for_people(bytes_: float, expected: str) -> None:
    assert units.size(bytes_) == expected


def test_a_time_is_that_of_the_clock_on_the_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    assert units.moment("2026-11-23T04:49:25+00:00") == "2026-11-23 10:34 +0545"
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0s"), (59.4, "59s"), (59.9, "1m00s"), (3599.9, "1h00m"), (7322, "2h02m")]
)
def test_times_are_for_people(seconds: float, expected: str) -> None:
    assert units.duration(seconds) == expected


@pytest.mark.parametrize("columns", [40, 80, 200], indirect=True)
def test_columns_that_do_not_fit_stand_below(columns: int) -> None:
    rows = [
        ["chap", "api", "running (healthy)", "2.0.0", "ghcr.io/chap:v2.0.0"],
        ["redis", "broker", "running", "", "x"],
    ]
    lines = layout.table(rows, ["SERVICE", "ROLE", "STATE", "VERSION", "IMAGE"]).splitlines()
    assert max(map(len, lines)) <= columns
    assert " ".join(lines).split() == ["SERVICE", "ROLE", "STATE", "VERSION", "IMAGE", *" ".join(sum(rows, [])).split()]
    assert len(lines) == {40: 6, 80: 3, 200: 3}[columns]


def test_a_result_begins_a_line_of_its_own_however_often_the_world_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        with open(theirs, "w") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            monkeypatch.setattr(sys, "stderr", stream)
            call = Call(("docker",))
            with click.Context(click.Command("verify")):
                first, second = call.world(), call.world()
                second.notify("check", "the stack")
                first.notify("prove", "chap_core.dump", 1, 2)
                call.world()
                call.result({}, "It is complete.")
        # The kernel hands a terminal's output over in pieces, and an error once its other end is closed.
        written = b""
        with contextlib.suppress(OSError):
            while piece := terminal.read(4096):
                written += piece
    assert re.search(rb"Verified the backup  1 B  0\.\ds\x1b\[K\r\n\x1b\[K\rIt is complete\.\r\n$", written), written


def test_json_tells_of_bytes_once_a_second_and_of_every_step_and_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    progress = Progress(stream, "json")
    for second in range(3):
        monkeypatch.setattr(time, "monotonic", lambda second=second: 1000 + 1.5 * second)
        for done in range(1, 101):
            progress("read dump", "mine.dump", 100 * second + done, 300)
    progress("verify")
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(event["step"], event["done"]) for event in events] == [
        ("read dump", 1), ("read dump", 101), ("read dump", 201), ("read dump", 300), ("verify", 0),
    ]  # fmt: skip


def test_each_command_of_a_hint_has_a_line_of_its_own() -> None:
    hint = (
        "Go to v2.3.1 first: docker chap upgrade v2.3.1. Then: docker chap upgrade v2.4.0\n"
        "Or make room: docker image prune, docker chap prune"
    )
    assert hint_lines(hint, 4, 0) == [
        "    Go to v2.3.1 first:",
        "      docker chap upgrade v2.3.1",
        "    Then:",
        "      docker chap upgrade v2.4.0",
        "    Or make room:",
        "      docker image prune",
        "      docker chap prune",
    ]
    assert hint_lines("docker chap recover", 0, 40) == ["  docker chap recover"]
