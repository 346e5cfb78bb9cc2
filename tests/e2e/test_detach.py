"""Runs in the background: begun on a terminal that goes away, followed from others, to the same end as ever."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest

from compose_chap.records import lock
from tests.e2e.calls import chap
from tests.sample.stack import SampleStack, environment
from tests.sample.terminal import Terminal

# It ends in a failure, and everything is put back.
SICK = "v2.1.5"


def on_terminal(stack: SampleStack, *words: str) -> Terminal:
    return Terminal(["docker", "chap", *words], stack.folder, environment())


@pytest.fixture
def dropped(small: SampleStack) -> Iterator[list[Terminal]]:
    """Give a list of terminals, all of which are closed in the end."""
    terminals: list[Terminal] = []
    yield terminals
    for terminal in terminals:
        terminal.drop()


def attach(stack: SampleStack, *words: str) -> subprocess.CompletedProcess[str]:
    """Follow a run to its end."""
    return subprocess.run(
        ["docker", "chap", "attach", *words], cwd=stack.folder, env=environment(), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_an_upgrade_is_asked_for_then_outlives_its_terminal_and_is_followed_twice(
    small: SampleStack, dropped: list[Terminal]
) -> None:
    terminal = on_terminal(small, "upgrade", "v2.1.0", "--detach")
    dropped.append(terminal)
    terminal.wait_for(r"(\[y/N\])")
    terminal.type_in("y\r")
    run = terminal.wait_for(r"docker chap attach (\w+)")
    terminal.drop()

    working = chap(small, "status")["detached"]
    assert working["id"] == run and working["running"] and working["words"] == ["upgrade", "v2.1.0", "--detach"]
    assert f"docker chap attach {run}" in small.docker("chap", "status").stdout
    others = [
        subprocess.Popen(["docker", "chap", "attach", *words], cwd=small.folder, env=environment(), text=True,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for words in ([], [run, "--lines", "0"])
    ]  # fmt: skip
    for other in others:
        out, err = other.communicate(timeout=300)
        assert other.returncode == 0, err
        assert "CHAP was upgraded from 2.0.0 to 2.1.0" in " ".join(out.split())
        assert "Verif" in err
    assert small.version() == "2.1.0"

    afterwards = attach(small)
    assert afterwards.returncode == 0 and "CHAP was upgraded" in afterwards.stdout
    ended = chap(small, "status")["detached"]
    assert (ended["running"], ended["exit_status"]) == (False, 0) and ended["ended_at"]
    entries = [entry for entry in chap(small, "history")["entries"] if entry["operation"] == "upgrade"]
    assert [(entry["result"], entry["exit_status"]) for entry in entries] == [("done", 0)]


def test_a_rollback_with_yes_asks_nothing_and_goes_on_when_its_parents_are_killed(
    small: SampleStack, dropped: list[Terminal]
) -> None:
    terminal = on_terminal(small, "rollback", "--yes", "--detach", "--json")
    dropped.append(terminal)
    run = terminal.wait_for(r'"id": "(\w+)"')
    with contextlib.suppress(ProcessLookupError):
        os.killpg(terminal.process, signal.SIGKILL)
    followed = attach(small, run)
    assert followed.returncode == 0 and json.loads(followed.stdout)["ok"], followed.stderr
    assert small.version() == "2.0.0"


def test_what_is_refused_is_refused_at_once_and_begins_nothing(small: SampleStack) -> None:
    before = chap(small, "status")["detached"]
    refused = chap(small, "upgrade", "v9.9.9", "--detach", "--yes", expect=1)
    assert refused["checks"]
    assert chap(small, "status")["detached"] == before


def test_a_failed_run_passes_its_exit_status_to_its_followers(small: SampleStack) -> None:
    begun = chap(small, "upgrade", SICK, "--detach", "--yes")["detached"]
    followed = attach(small, begun["id"])
    assert followed.returncode == 3 and '"code": "rolled-back"' in followed.stderr, followed.stderr
    assert small.version() == "2.0.0"
    assert chap(small, "status")["detached"]["exit_status"] == 3


def test_a_run_is_stopped_in_order_and_detaching_does_not_stop_it(small: SampleStack, dropped: list[Terminal]) -> None:
    small.docker("chap", "upgrade", "v2.1.0", "--detach", "--yes")
    watcher = on_terminal(small, "attach")
    dropped.append(watcher)
    watcher.wait_for(r"(Back(?:ing|ed) up)")
    watcher.type_in("\x03")
    assert watcher.wait_for(r"(goes on in the background)")
    going = chap(small, "status")["detached"]
    assert going["running"]
    os.kill(going["process"], signal.SIGTERM)
    assert attach(small).returncode == 130
    assert small.version() == "2.0.0"


def test_a_second_command_waits_for_the_first_on_request(small: SampleStack) -> None:
    with lock.locked(small.folder, "restore", datetime.now(timezone.utc)):
        assert "Another run works" in chap(small, "prune", "--yes", expect=5)["error"]["message"]
        waits = subprocess.Popen(
            ["docker", "chap", "backup", "--wait-lock", "300"], cwd=small.folder, env=environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(3)
        assert waits.poll() is None
    out, err = waits.communicate(timeout=300)
    assert waits.returncode == 0, out + err
    pruned, made = chap(small, "history")["entries"][-2:]
    assert (pruned["operation"], pruned["result"], pruned["exit_status"]) == ("prune", "refused", 5)
    assert (made["operation"], made["result"], made["words"]) == ("backup", "done", ["backup", "--wait-lock", "300"])
