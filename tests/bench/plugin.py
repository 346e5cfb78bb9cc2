"""Measure the plugin itself beside its limits: what Docker waits for, and what a person waits for.

    python -m tests.bench.plugin [ROUNDS]        default: 15; needs build/out/docker-chap and a CHAP stack for `status`

The rows of a pair run in turn, so that a busy machine is busy for both. Milliseconds: median, and the spread from
the first to the third quarter.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLUGIN = Path(__file__).resolve().parents[2] / "build" / "out" / "docker-chap"

Row = tuple[str, list[str], dict[str, str]]


def docker_config(folder: Path, *plugins: Path) -> dict[str, str]:
    """Make a configuration with these plugins and return what selects it."""
    (folder / "cli-plugins").mkdir(parents=True)
    for plugin in plugins:
        shutil.copy(plugin, folder / "cli-plugins" / plugin.name)
    return {"DOCKER_CONFIG": str(folder)}


def plugin_file(name: str) -> Path:
    """Return the file of a plugin that Docker has."""
    done = subprocess.run(["docker", "info", "--format", "json"], capture_output=True, check=True)
    found = json.loads(done.stdout)["ClientInfo"]["Plugins"]
    return Path(next(one["Path"] for one in found if one["Name"] == name)).resolve()


def pairs(folder: Path) -> list[list[Row]]:
    """Return what is run, the limit first in each pair."""
    compose = folder / "docker-compose"
    shutil.copy(plugin_file("compose"), compose)
    alone = docker_config(folder / "alone", compose)
    beside = docker_config(folder / "beside", compose, PLUGIN)
    found = subprocess.run([PLUGIN, "versions"], capture_output=True, text=True, check=False)
    python = os.path.realpath(sys.executable)
    ours = {**beside, "CHAP_PYTHON": python}
    rows: list[list[Row]] = [
        [
            ("docker-compose metadata", [str(compose), "docker-cli-plugin-metadata"], {}),
            ("docker-chap metadata", [str(PLUGIN), "docker-cli-plugin-metadata"], {}),
        ],
        [
            ("docker --help without docker-chap", ["docker", "--help"], alone),
            ("docker --help with it", ["docker", "--help"], beside),
        ],
        [
            ("python3 -I -S -c pass", [python, "-I", "-S", "-c", "pass"], {}),
            ("docker-chap version", [str(PLUGIN), "version"], ours),
        ],
    ]
    if found.returncode == 0:
        rows.append(
            [
                ("docker ps and docker context inspect", ["sh", "-c", "docker context inspect && docker ps -a"], alone),
                ("docker-chap status", [str(PLUGIN), "status"], ours),
            ]
        )
    return rows


def milliseconds(words: list[str], environment: dict[str, str]) -> float:
    """Return how long a command took that must end well."""
    begun = time.perf_counter()
    subprocess.run(words, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - begun) * 1000


def main(rounds: int) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'':<38} {'median':>8} {'spread':>15}   beside")
        for pair in pairs(Path(folder)):
            times: dict[str, list[float]] = {what: [] for what, _, _ in pair}
            for what, words, environment in pair * (rounds + 1):
                times[what].append(milliseconds(words, environment))
            limit = 0.0
            for what, all_of_them in times.items():
                warm = all_of_them[1:]
                first, median, third = statistics.quantiles(warm, n=4)
                ratio = f"{median / limit:6.2f}" if limit else ""
                print(f"{what:<38} {median:5.1f} ms {f'{first:.1f} to {third:.1f}':>15}   {ratio}", flush=True)
                limit = limit or median


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 15)
