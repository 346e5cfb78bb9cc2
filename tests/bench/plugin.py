"""What Docker waits for, and what a person waits for: the plugin itself beside its limits."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from tests.bench.pictures import timeline
from tests.bench.table import Goal, Row, in_turn
from tests.sample.stack import SampleStack, environment

PLUGIN = Path(__file__).resolve().parents[2] / "build" / "out" / "docker-chap"


def docker_config(folder: Path, *plugins: Path) -> dict[str, str]:
    """Make a configuration with these plugins and return what selects it."""
    (folder / "cli-plugins").mkdir(parents=True)
    for plugin in plugins:
        shutil.copy(plugin, folder / "cli-plugins" / plugin.name)
    return {"DOCKER_CONFIG": str(folder)}


def plugin_file(name: str) -> Path:
    """Return the file of a plugin that Docker has."""
    done = subprocess.run(
        ["docker", "info", "--format", "{{json .}}"], env=environment(), capture_output=True, check=True
    )
    output = json.loads(done.stdout)["ClientInfo"]["Plugins"]
    return Path(next(plugin["Path"] for plugin in output if plugin["Name"] == name)).resolve()


def milliseconds(*words: str | Path, **more: str) -> float:
    """Return how long a command took that must end well."""
    begun = time.perf_counter()
    subprocess.run(words, env={**environment(), **more}, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - begun) * 1000


def measure(rounds: int) -> list[Row]:
    """Return the rows that need no stack."""
    python = os.path.realpath(sys.executable)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compose = folder / "docker-compose"
        shutil.copy(plugin_file("compose"), compose)
        alone = docker_config(folder / "alone", compose)
        beside = docker_config(folder / "beside", compose, PLUGIN)
        return [
            in_turn(
                Row("metadata; limit: docker-compose's", "ms"),
                rounds,
                limit=lambda: milliseconds(compose, "docker-cli-plugin-metadata"),
                ours=lambda: milliseconds(PLUGIN, "docker-cli-plugin-metadata"),
            ),
            in_turn(
                Row("docker --help; limit: without the plugin", "ms"),
                rounds,
                limit=lambda: milliseconds("docker", "--help", **alone),
                ours=lambda: milliseconds("docker", "--help", **beside),
            ),
            in_turn(
                Row("version; limit: starting Python", "ms"),
                rounds,
                limit=lambda: milliseconds(python, "-I", "-S", "-c", "pass"),
                ours=lambda: milliseconds(PLUGIN, "version", CHAP_PYTHON=python),
            ),
        ]


def first_line(*words: str | Path, **more: str) -> float:
    """Return after how many milliseconds a command writes its first line to a terminal."""
    ours, its = pty.openpty()
    # One without a size has no room for anything.
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
    begun = time.perf_counter()
    child = subprocess.Popen(
        words, env={**environment(), "TERM": "xterm", **more}, stdin=its, stdout=its, stderr=subprocess.DEVNULL
    )
    os.close(its)
    written = b""
    while b"\n" not in written:
        written += os.read(ours, 1)
    took = (time.perf_counter() - begun) * 1000
    while child.poll() is None:
        if select.select([ours], [], [], 0.1)[0]:
            with contextlib.suppress(OSError):  # at its end
                os.read(ours, 4096)
    os.close(ours)
    assert child.returncode == 0
    return took


def measure_questions(stack: SampleStack, rounds: int, version: str, what: str = "") -> list[Row]:
    """Return the rows of `status` and `check`; `what` says which CHAP it is, where it is not the sample's.

    The slowest question of both is whether CHAP is ready, which takes CHAP a second.
    """
    container = stack.containers()[stack.api_service]["id"]
    ask = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/ready').read()"
    python = {"CHAP_PYTHON": os.path.realpath(sys.executable)}
    command = (PLUGIN, "-p", stack.project)

    def ready() -> float:
        return milliseconds("docker", "exec", container, "python", "-c", ask)

    return [
        in_turn(
            Row(f"status{what}; limit: asking CHAP whether it is ready", "ms", goal=Goal(1.15, "limit")),
            rounds,
            limit=ready,
            ours=lambda: milliseconds(*command, "status", **python, **timeline("status")),
        ),
        in_turn(
            Row(f"status{what}, its first line on a terminal", "ms", goal=Goal(300)),
            rounds,
            ours=lambda: first_line(*command, "status", **python),
        ),
        in_turn(
            Row(f"check VERSION{what}; limit: asking CHAP whether it is ready", "ms", goal=Goal(2, "limit")),
            rounds,
            limit=ready,
            ours=lambda: milliseconds(*command, "check", version, **python),
        ),
    ]
