"""Many servers in one table, whatever each of them answered."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timezone
from typing import Any

import pytest

from compose_chap.cli.screen.fleet import contexts_text
from compose_chap.errors import EngineError
from compose_chap.operations import fleet
from compose_chap.processes import process
from compose_chap.processes.process import Finished

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


def stack(**more: Any) -> dict[str, Any]:
    return {
        "project": {"name": "chap"},
        "services": [{"role": "api", "version": "2.0.0"}],
        "health": {"level": "ready"},
        "working": None,
        "open_run": None,
        "update_available": "v2.1.0",
        "last_backup": {"created_at": "2026-11-23T09:00:00+00:00"},
        "problems": [],
        "backups_known": True,
        **more,
    }


def test_each_stack_has_a_line_and_each_failure_its_reason() -> None:
    broken = {"project": {"name": "odd"}, "problems": ["Project 'odd' has several api services: a, b."]}
    remote = stack(project={"name": "far"}, last_backup=None, backups_known=False, update_available=None)
    cut_off = stack(open_run={"operation": "upgrade"}, update_available="", health=None)
    answers = [
        fleet.ContextStatus("north", "ssh://north", "srv1", (stack(), broken)),
        fleet.ContextStatus("south", "ssh://south", "srv2", (remote, cut_off)),
        fleet.ContextStatus("empty", "ssh://empty", "srv3"),
        fleet.ContextStatus("dead", "ssh://dead", error={"code": "engine", "message": "It does not answer."}),
    ]
    lines = [" ".join(line.split()) for line in contexts_text(answers, NOW).splitlines()]
    assert lines == [
        "CONTEXT SERVER PROJECT VERSION HEALTH LAST BACKUP UPDATE",
        "north srv1 chap 2.0.0 ready 3 hours ago v2.1.0",
        "north srv1 odd Project 'odd' has several api services: a, b.",
        "south srv2 far 2.0.0 ready not known not known",
        "south srv2 chap 2.0.0 not running; upgrade was cut off 3 hours ago none",
        "empty srv3 no CHAP",
        "dead not reached",
        "",
        "dead: It does not answer.",
    ]


def test_whatever_a_context_s_command_says_is_an_answer() -> None:
    assert fleet._answer("a", "x", None, 30).error == {
        "code": "late",
        "message": "It did not answer within 30 seconds.",
        "state": "",
        "hint": "Wait longer with --time-limit SECONDS.",
    }
    for answer in ("", "no json", "[]", "{}", '{"ok": true}'):
        odd = fleet._answer("a", "x", Finished(1, answer, "docker: 'chap' is not a docker command."), 30).error
        assert odd and odd["message"] == "docker: 'chap' is not a docker command."


def test_commands_run_together_and_those_that_hang_are_ended_with_what_they_started() -> None:
    begun = time.monotonic()
    stubborn = "trap '' TERM; sleep 60 & echo $!; wait; wait"
    done = process.run_together(
        [["sh", "-c", "echo out; echo said >&2; exit 3"], ["sh", "-c", stubborn], [sys.executable, "-c", "print(1)"]], 5
    )
    assert time.monotonic() - begun < 30
    assert done[0] == Finished(3, "out\n", "said\n") and done[1] is None and done[2] and done[2].stdout == "1\n"
    with pytest.raises(EngineError, match="no-such-program"):
        process.run_together([["sleep", "60"], ["no-such-program"]], 5)
    assert time.monotonic() - begun < 40
