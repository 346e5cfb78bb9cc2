"""A run apart from its terminal: it goes on whatever becomes of who began it, and can be followed more than once."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from compose_chap.engine.engine import Engine
from compose_chap.engine.world import World
from compose_chap.errors import EngineError, StateError
from compose_chap.operations import detach
from compose_chap.processes import background
from compose_chap.records import detached
from compose_chap.records.detached import Detached

# A program as this one is: it watches over a run, or does what the words say.
CODE = f"""
import os, signal, sys, time
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
words = sys.argv[1:]
if words[0] == "watch-over":
    from datetime import datetime, timedelta, timezone
    from pathlib import Path
    from compose_chap.operations import detach
    sys.exit(detach.watch_over(Path(words[1]), lambda: datetime.now(timezone.utc)))
def asked(*_):
    print("asked to stop", file=sys.stderr, flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, asked)
print("begun", os.environ.get("SECRET"), file=sys.stderr, flush=True)
end = time.monotonic() + 30
while not os.path.exists("go") and time.monotonic() < end:
    time.sleep(0.02)
print("the result")
sys.exit(int(words[-1]))
"""
PROGRAM = [sys.executable, "-c", CODE]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """A world with the real clock, in a folder of its own, in which systemd is not at work."""
    monkeypatch.setattr(background, "_SYSTEMD", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    clock = lambda: datetime.now(timezone.utc)  # noqa: E731
    return World(Engine(("docker",)), clock, time.sleep, lambda *_: None, environment=dict(os.environ))


def begun(world: World, directory: Path, *words: str) -> Detached:
    return detach.hand_over(world, directory, PROGRAM, ("backup", *words), (), {"SECRET": "district"})


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def followed(world: World, run: Detached, lines: int = 20) -> tuple[str, Detached]:
    heard: list[bytes] = []
    ended = detach.follow(world, run, lines, heard.append)
    return b"".join(heard).decode(), ended


def test_its_output_and_its_exit_status_are_those_of_the_command(world: World, tmp_path: Path) -> None:
    run = begun(world, tmp_path, "7")
    assert run.running and run.exit_status is None and not run.unit and os.getsid(run.process) == run.process
    (tmp_path / "go").touch()
    heard, ended = followed(world, run)
    assert heard == "begun district\n" and detach.result(ended) == b"the result\n"
    assert (ended.running, ended.exit_status) == (False, 7) and ended.ended_at
    # Again, when all is over.
    assert followed(world, run) == (heard, ended) and detached.runs(tmp_path) == [ended]


def test_no_password_is_stored_during_or_after_a_run(world: World, tmp_path: Path) -> None:
    run = begun(world, tmp_path, "0")
    until(lambda: (run.folder / "err").stat().st_size > 0)
    files = [path for path in run.folder.iterdir() if path.name != "err"]  # which this command writes it to by itself
    assert not [path for path in files if b"district" in path.read_bytes()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in run.folder.iterdir()} == {0o600}
    (tmp_path / "go").touch()
    followed(world, run)


def test_nothing_of_it_listens_to_the_docker_of_the_terminal(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CLI_PLUGIN_SOCKET", "@docker_cli_1")
    run = begun(replace(world, environment=dict(os.environ)), tmp_path, "0")
    for process in (run.process, *children(run.process)):
        assert b"DOCKER_CLI_PLUGIN_SOCKET" not in Path(f"/proc/{process}/environ").read_bytes()
    (tmp_path / "go").touch()
    assert followed(world, run)[1].exit_status == 0


def test_two_follow_it_from_different_lines_on(world: World, tmp_path: Path) -> None:
    run = begun(world, tmp_path, "0")
    until(lambda: (run.folder / "err").stat().st_size > 0)
    results: list[tuple[str, Detached]] = []
    both = [threading.Thread(target=lambda n=n: results.append(followed(world, run, n))) for n in (0, 5)]
    for thread in both:
        thread.start()
    time.sleep(0.5)
    (tmp_path / "go").touch()
    for thread in both:
        thread.join()
    assert sorted(heard for heard, _ in results) == ["", "begun district\n"]
    assert [ended.exit_status for _, ended in results] == [0, 0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_who_stops_it_gives_it_the_time_to_end_in_order(world: World, tmp_path: Path, number: int) -> None:
    run = begun(world, tmp_path, "0")
    until(lambda: (run.folder / "err").stat().st_size > 0)
    os.kill(run.process, number)
    heard, ended = followed(world, run)
    expected = {signal.SIGTERM: 130, signal.SIGHUP: 128 + signal.SIGHUP, signal.SIGINT: 130}
    assert ended.exit_status in (expected[signal.Signals(number)], 1)
    assert number != signal.SIGTERM or "asked to stop" in heard


def test_a_run_that_a_signal_ends_has_a_status_too(world: World, tmp_path: Path) -> None:
    run = begun(world, tmp_path, "0")
    child = children(run.process)[0]
    os.kill(child, signal.SIGKILL)
    assert followed(world, run)[1].exit_status == 128 + 9


def test_it_goes_on_without_the_process_that_watches_over_it_and_leaves_no_status_then(
    world: World, tmp_path: Path
) -> None:
    run = begun(world, tmp_path, "0")
    until(lambda: (run.folder / "err").stat().st_size > 0)
    os.kill(run.process, signal.SIGKILL)
    time.sleep(0.3)
    assert detached.look(run.folder).running
    (tmp_path / "go").touch()
    _, ended = followed(world, run)
    assert not ended.running and ended.exit_status is None


def test_what_cannot_be_started_is_a_failure_and_leaves_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detach, "_STARTS", 0.3)
    for program in (["/nowhere"], [sys.executable, "-c", ""]):
        with pytest.raises(EngineError, match="could not be started in the background"):
            detach.hand_over(world, tmp_path, program, ("backup",), (), {})
    assert detached.runs(tmp_path) == []


def test_an_order_is_taken_once(world: World, tmp_path: Path) -> None:
    order = detached.Invocation(("true",), str(tmp_path), 0o22, {"A": "b"})
    folder = detached.prepare(tmp_path, order, ("backup",), world.clock())
    assert detached.take(folder) == order and detached.taken(folder)
    with pytest.raises(StateError, match="taken already"):
        detached.take(folder)


def test_only_the_last_runs_are_kept(world: World, tmp_path: Path) -> None:
    order = detached.Invocation(("true",), str(tmp_path), 0o22, {})
    made = []
    for seconds in range(14):
        made.append(detached.prepare(tmp_path, order, ("backup",), world.clock() + timedelta(seconds=seconds)))
        detached.take(made[-1])
        detached.end(made[-1], 0, world.clock())
    assert [run.folder for run in detached.runs(tmp_path)] == made[-10:]


def test_an_order_that_nobody_took_does_not_stay(world: World, tmp_path: Path) -> None:
    order = detached.Invocation(("true",), str(tmp_path), 0o22, {"DHIS2_PASSWORD": "district"})
    left, begun = (detached.prepare(tmp_path, order, ("backup",), datetime.now(timezone.utc)) for _ in range(2))
    detached.take(begun)
    detached.prepare(tmp_path, order, ("backup",), datetime.now(timezone.utc) + timedelta(seconds=50))
    assert left.exists()
    detached.prepare(tmp_path, order, ("backup",), datetime.now(timezone.utc) + timedelta(seconds=70))
    assert not left.exists() and begun.exists()


def test_another_run_in_the_same_second_has_its_own_name(world: World, tmp_path: Path) -> None:
    still = replace(world, clock=lambda: datetime(2026, 11, 23, tzinfo=timezone.utc))
    order = detached.Invocation(("true",), str(tmp_path), 0o22, {})
    names = [detached.prepare(tmp_path, order, ("backup",), still.clock()).name for _ in range(2)]
    assert names == ["20261123T000000Z", "20261123T000000Z-02"]


def children(process: int) -> list[int]:
    """Return the processes that one started, as soon as there is one."""
    file = Path(f"/proc/{process}/task/{process}/children")
    until(lambda: bool(file.read_text().split()))
    return [int(number) for number in file.read_text().split()]
