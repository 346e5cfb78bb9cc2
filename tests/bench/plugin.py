"""What Docker waits for, and what a person waits for: the plugin itself beside its limits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.table import Row, in_turn
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


def measure_status(stack: SampleStack, rounds: int) -> list[Row]:
    """Return the row of `status`. Its slowest question is whether CHAP is ready, which takes CHAP a second."""
    container = stack.containers()[stack.api_service]["id"]
    ask = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/ready').read()"
    row = in_turn(
        Row("status; limit: asking CHAP whether it is ready", "ms"),
        rounds,
        limit=lambda: milliseconds("docker", "exec", container, "python", "-c", ask),
        ours=lambda: milliseconds(PLUGIN, "-p", stack.project, "status", CHAP_PYTHON=os.path.realpath(sys.executable)),
    )
    return [row]
