"""What the README says of nightly runs and of scripts, run as it is printed there."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import click

from compose_chap import cli
from tests.e2e.faults import Run
from tests.sample.stack import SampleStack, environment

README = (Path(__file__).parents[2] / "README.md").read_text()
# What README leaves out of a line, in the order in which README has them: each finds what it needs.
ARGUMENTS = {
    "backup --dump-only FILE": "backup --dump-only only.dump",
    "prune": "prune --yes",
    "pin": "pin v2.0.0",
    "upgrade --dry-run": "upgrade v2.1.0 --dry-run",
    "rehearse": "rehearse v2.1.0",
    "upgrade": "upgrade v2.1.0 --yes",
    "upgrade when that version runs already": "upgrade v2.1.0 --yes",
    "rollback": "rollback --yes",
    "restore": "restore latest --yes",
    "recover when nothing was cut off": "recover",
    "recover after a run was cut off": "recover",
}
COMMON = {"version", "command", "ok"}


def here(text: str, stack: SampleStack) -> str:
    return text.replace("/srv/docker-dhis2-core", str(stack.folder)).replace(
        "/var/lib/prometheus/node-exporter", str(stack.folder)
    )


def run(words: list[str], stack: SampleStack) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=stack.folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def backups(stack: SampleStack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(["docker", "chap", "backups", "--json"], stack).stdout)["backups"]
    return found


def test_the_unit_s_commands_work_as_printed(small: SampleStack) -> None:
    commands = re.findall(r"^Exec\w+=(.*)$", README, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        done = run(shlex.split(here(command, small)), small)
        assert done.returncode == 0, command + done.stderr
    assert backups(small)[-1]["reason"] == "nightly"
    numbers = (small.folder / "chap.prom").read_text()
    named = set(re.findall(r"docker_chap_\w+", README))
    assert named and all(f"\n{name}{{project=" in "\n" + numbers for name in named)
    assert (small.folder / "chap.prom").stat().st_mode & 0o777 == 0o644


def test_the_line_for_cron_works_as_printed(small: SampleStack) -> None:
    [line] = re.findall(r"^30 1 \* \* \* root (.*)$", README, re.MULTILINE)
    before = backups(small)
    done = run(["sh", "-c", here(line, small)], small)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(backups(small)) == len(before) + 1


def cut_off(stack: SampleStack) -> None:
    """Kill an upgrade while CHAP is down."""
    killed = Run(stack, "upgrade", "v2.1.0", "--yes", at="stop", hit=lambda run: run.signal(signal.SIGKILL))
    assert killed.end() == -signal.SIGKILL, killed.stdout + killed.stderr


def test_every_document_has_the_names_that_are_promised(small: SampleStack) -> None:
    promised = README.partition("| Command | Names in the document |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([^`]+)`([^|]*) \| (.*) \|$", promised, re.MULTILINE)
    assert {words.split()[0] for words, _, _ in rows} == set(cli.chap.list_commands(click.Context(cli.chap)))
    for line, when, names in rows:
        words = line + (when if when.startswith((" when", " after")) else "")
        if "cut off" in words.partition("after")[2]:
            cut_off(small)
        done = run(["docker", "chap", *ARGUMENTS.get(words, words).split(), "--json"], small)
        document = json.loads(done.stdout)
        assert document["version"] == 1 and document["command"] == words.split()[0], words
        assert document["ok"] is (done.returncode == 0), done.stdout
        assert set(document) - COMMON == set(re.findall(r"`(\w+)`", names)), words


def test_a_failure_is_a_document_too(small: SampleStack) -> None:
    done = run(["docker", "chap", "upgrade", "v9.9.9", "--json", "--yes"], small)
    document = json.loads(done.stdout)
    assert set(document) - COMMON == {"error", "exit_status"} and not document["ok"]
    assert document["exit_status"] == done.returncode == 1
    assert set(document["error"]) == {"code", "message", "state", "hint"}
    assert all(document["error"].values())
