"""What docker hands to a plugin, and what it gets back. The words were seen from docker 28.2.2."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import compose_chap
from compose_chap import cli, plugin

Call = tuple[list[str], tuple[str, ...]]


class CommandLine:
    """Stands in for compose_chap.cli.app: keeps what it is given, and ends as the test wishes."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.completions: list[Call] = []
        self.end: Callable[[], int] = lambda: 0

    def main(self, words: list[str], docker: tuple[str, ...]) -> int:
        self.calls.append((words, docker))
        return self.end()

    def complete(self, words: list[str], docker: tuple[str, ...]) -> int:
        self.completions.append((words, docker))
        return 0


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    stand_in = CommandLine()
    monkeypatch.setitem(sys.modules, "compose_chap.cli.app", stand_in)
    monkeypatch.setattr(cli, "app", stand_in, raising=False)
    return stand_in


@pytest.fixture(autouse=True)
def as_if_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take away what docker would set, and put the signals back afterwards."""
    monkeypatch.delenv("DOCKER_CLI_PLUGIN_SOCKET", raising=False)
    monkeypatch.delenv("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def docker_runs(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the plugin as docker does, with these words behind its name."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/docker-chap", *words])
    return plugin.main()


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        (["chap", "status"], 0),
        (["--context", "default", "-l", "debug", "chap", "x"], 4),
        (["-Hunix:///var/run/docker.sock", "chap"], 1),
        (["-H", "tcp://a", "--host=tcp://b", "chap"], 3),
        (["--config", "D", "chap", "--", "--x"], 2),
        (["-c=x", "chap"], 1),
        (["-c", "", "chap"], 2),
        (["-Dc", "x", "chap"], 2),
        (["-Dcx", "chap"], 1),
        (["-DDlinfo", "chap"], 1),
        (["-D=false", "--debug=true", "--tls", "--tlsverify=false", "chap"], 4),
        (["--tlscacert", "a", "--tlscert", "b", "--tlskey=c", "chap"], 5),
        (["--context", "chap", "chap", "s"], 2),
        (["chap", "--context", "x"], 0),
        (["status", "-D"], 0),
        (["--json", "status"], 0),
        (["-", "chap"], 0),
        (["--host"], 1),
        ([], 0),
    ],
)
def test_docker_s_flags_end_where_its_command_begins(words: list[str], flags: int) -> None:
    assert plugin.split(words) == (words[:flags], words[flags:])


@given(st.lists(st.text("-cDHl=-chap", max_size=9)))
def test_no_word_is_ever_lost_or_changed(words: list[str]) -> None:
    flags, rest = plugin.split(words)
    assert flags + rest == words


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["chap"], ([], ("docker",))),
        (["chap", "status", "--json"], (["status", "--json"], ("docker",))),
        (["-Dc", "x", "chap", "status"], (["status"], ("docker", "-Dc", "x"))),
        (["chap", "chap"], (["chap"], ("docker",))),
        (["--", "chap", "status"], (["status"], ("docker",))),
        (["chap", "--", "--x"], (["--", "--x"], ("docker",))),
        (["help", "chap"], (["--help"], ("docker",))),
        (["-D", "help", "chap", "backup"], (["backup", "--help"], ("docker", "-D"))),
        (["--help", "chap", "backup"], (["backup", "--help"], ("docker",))),
        (["-h", "chap"], (["--help"], ("docker",))),
        (["-v", "chap"], (["version"], ("docker",))),
        (["status"], (["status"], ("docker",))),
        (["--context", "x", "status"], (["status"], ("docker", "--context", "x"))),
        (["--help"], (["--help"], ("docker",))),
        ([], ([], ("docker",))),
    ],
)
def test_the_command_line_gets_our_words_and_the_way_to_call_docker(
    monkeypatch: pytest.MonkeyPatch, command_line: CommandLine, words: list[str], call: Call
) -> None:
    assert docker_runs(monkeypatch, *words) == 0
    assert command_line.calls == [call]


def test_children_call_docker_as_it_was_called(monkeypatch: pytest.MonkeyPatch, command_line: CommandLine) -> None:
    monkeypatch.setenv("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", "/opt/docker")
    docker_runs(monkeypatch, "--context", "x", "chap", "status")
    assert command_line.calls == [(["status"], ("/opt/docker", "--context", "x"))]


def test_the_plugin_is_never_taken_for_docker(monkeypatch: pytest.MonkeyPatch, command_line: CommandLine) -> None:
    """See that we do not call ourselves for ever: when it completes, docker puts the plugin's path there."""
    monkeypatch.setenv("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", "/root/.docker/cli-plugins/docker-chap")
    docker_runs(monkeypatch, "__complete", "chap", "")
    assert command_line.completions == [([""], ("docker",))]


def test_completion_gets_the_words_so_far(monkeypatch: pytest.MonkeyPatch, command_line: CommandLine) -> None:
    assert docker_runs(monkeypatch, "__complete", "chap", "upgrade", "") == 0
    assert command_line.completions == [(["upgrade", ""], ("docker",))]
    assert command_line.calls == []


def test_metadata_is_what_docker_accepts(
    monkeypatch: pytest.MonkeyPatch, command_line: CommandLine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert docker_runs(monkeypatch, "docker-cli-plugin-metadata") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["SchemaVersion"] == "0.1.0"
    assert answer["Vendor"] and answer["ShortDescription"]
    assert answer["Version"] == compose_chap.__version__
    assert command_line.calls == []


def test_the_exit_status_is_the_command_s(monkeypatch: pytest.MonkeyPatch, command_line: CommandLine) -> None:
    command_line.end = lambda: 4
    assert docker_runs(monkeypatch, "chap", "status") == 4


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, command_line: CommandLine) -> None:
    command_line.end = raises(KeyboardInterrupt())
    assert docker_runs(monkeypatch, "chap", "status") == 130


def test_a_bug_is_reported_without_traceback_and_without_secrets(
    monkeypatch: pytest.MonkeyPatch, command_line: CommandLine, capsys: pytest.CaptureFixture[str]
) -> None:
    command_line.end = raises(ValueError("postgresql://chap:secret@db"))
    assert docker_runs(monkeypatch, "chap", "status") == 1
    output = capsys.readouterr().err
    assert "ValueError" in output and "plugin.py" in output and "docker --debug chap" in output
    assert "Traceback" not in output and "secret" not in output


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, command_line: CommandLine, capsys: pytest.CaptureFixture[str]
) -> None:
    command_line.end = raises(ValueError("this one"))
    assert docker_runs(monkeypatch, "-D", "chap", "status") == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_error_of_the_system_keeps_its_message(
    monkeypatch: pytest.MonkeyPatch, command_line: CommandLine, capsys: pytest.CaptureFixture[str]
) -> None:
    command_line.end = raises(PermissionError(13, "Permission denied", "/srv/chap/.env"))
    assert docker_runs(monkeypatch, "chap", "status") == 1
    assert "Permission denied: '/srv/chap/.env'" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_request_to_stop_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, command_line: CommandLine, number: signal.Signals
) -> None:
    command_line.end = sends(number)
    assert docker_runs(monkeypatch, "chap", "upgrade") == 130


@pytest.mark.parametrize("patience", [60.0, 0.0])
def test_only_a_later_request_breaks_off_the_way_back(
    monkeypatch: pytest.MonkeyPatch, command_line: CommandLine, patience: float
) -> None:
    """See that one request that comes as two signals, as when a service is stopped, is one interrupt."""
    monkeypatch.setattr(plugin, "_AT_ONCE", patience)
    way_back = []

    def end() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            way_back.append("began")
            os.kill(os.getpid(), signal.SIGHUP)
            way_back.append("done")
        return 0

    command_line.end = end
    assert docker_runs(monkeypatch, "chap", "upgrade") == 130
    assert way_back == (["began", "done"] if patience else ["began"])


def test_a_request_that_comes_when_python_ends_does_not_change_the_exit_status() -> None:
    script = """
import os, signal, sys
from compose_chap import plugin
from compose_chap.cli import app

class Last:
    def __del__(self, kill=os.kill, me=os.getpid(), number=signal.SIGINT):
        kill(me, number)

def interrupted(words, docker):
    raise KeyboardInterrupt

last = Last()
app.main = interrupted
sys.exit(plugin.main())
"""
    done = subprocess.run([sys.executable, "-c", script, "chap", "status"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_under_nohup_a_lost_terminal_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, command_line: CommandLine
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    command_line.end = sends(signal.SIGHUP)
    assert docker_runs(monkeypatch, "chap", "upgrade") == 0


@pytest.mark.parametrize("abstract", [True, False], ids=["abstract", "path"])
@pytest.mark.parametrize("first", [b"", b"more"], ids=["silent", "talking"])
def test_when_docker_closes_its_socket_we_stop(
    monkeypatch: pytest.MonkeyPatch, command_line: CommandLine, tmp_path: Path, abstract: bool, first: bytes
) -> None:
    name = f"@chap-test-{os.getpid()}-{first!r}" if abstract else str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as docker:
        docker.bind("\0" + name[1:] if abstract else name)
        docker.listen()
        monkeypatch.setenv("DOCKER_CLI_PLUGIN_SOCKET", name)

        def end() -> int:
            connection = docker.accept()[0]
            connection.sendall(first)
            connection.close()
            return wait()

        command_line.end = end
        assert docker_runs(monkeypatch, "chap", "upgrade") == 130


def test_a_socket_that_nobody_listens_on_is_no_error(
    monkeypatch: pytest.MonkeyPatch, command_line: CommandLine, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CLI_PLUGIN_SOCKET", str(tmp_path / "nobody"))
    assert docker_runs(monkeypatch, "chap", "status") == 0


def raises(error: BaseException) -> Callable[[], int]:
    """Return a command that fails with the error."""

    def end() -> int:
        raise error

    return end


def sends(number: signal.Signals) -> Callable[[], int]:
    """Return a command during which this process gets the signal."""

    def end() -> int:
        os.kill(os.getpid(), number)
        return 0

    return end


def wait() -> int:
    """Wait for an interrupt, in small steps: Python sees a signal that comes just before a sleep only after it."""
    for _ in range(100):
        time.sleep(0.1)
    return 0
