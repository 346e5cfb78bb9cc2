"""What docs/automation.md says of nightly runs and of scripts, run as it is printed there."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import Any

import click

from compose_chap.cli import app
from tests.e2e.calls import AUTOMATION, COMMON, OF_A_FAILED_RUN, chap, promised
from tests.sample.stack import SampleStack, run_in

# Of these few other tests read the document; those of all other commands are looked at wherever a test runs one.
QUICK = (
    "version",
    "status --all-stacks",
    "pin v2.0.0",
    "upgrade v2.0.0 --yes",
    "recover",
)


def here(text: str, stack: SampleStack) -> str:
    return text.replace("/srv/docker-dhis2-core", str(stack.folder)).replace(
        "/var/lib/prometheus/node-exporter", str(stack.folder)
    )


def run(words: list[str], stack: SampleStack) -> subprocess.CompletedProcess[str]:
    return run_in(stack.folder, *words)


def backups(stack: SampleStack) -> list[dict[str, Any]]:
    return list(chap(stack, "backups")["backups"])


def test_the_unit_s_commands_work_as_printed(small: SampleStack) -> None:
    commands = re.findall(r"^Exec\w+=(.*)$", AUTOMATION, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        done = run(shlex.split(here(command, small)), small)
        assert done.returncode == 0, command + done.stderr
    assert backups(small)[-1]["reason"] == "nightly"
    numbers = (small.folder / "chap.prom").read_text()
    named = set(re.findall(r"docker_chap_\w+", AUTOMATION))
    assert named and all(f"\n{name}{{project=" in "\n" + numbers for name in named)
    assert (small.folder / "chap.prom").stat().st_mode & 0o777 == 0o644


def test_the_line_for_cron_works_as_printed(small: SampleStack) -> None:
    [line] = re.findall(r"^30 1 \* \* \* root (.*)$", AUTOMATION, re.MULTILINE)
    before = backups(small)
    done = run(["sh", "-c", here(line, small)], small)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(backups(small)) == len(before) + 1


def test_every_document_has_the_names_that_are_promised(small: SampleStack) -> None:
    assert set(promised()) == set(app.chap.list_commands(click.Context(app.chap)))
    for line in QUICK:
        chap(small, *line.split())


def test_a_failure_is_a_document_too(small: SampleStack) -> None:
    document = chap(small, "upgrade", "v9.9.9", "--yes", expect=1)
    assert set(document) - COMMON == OF_A_FAILED_RUN and document["exit_status"] == 1
    assert document["run"] is None and [check["name"] for check in document["checks"] if check["status"] == "fail"]
    assert set(document["error"]) == {"code", "message", "state", "hint"}
    assert all(document["error"].values())
