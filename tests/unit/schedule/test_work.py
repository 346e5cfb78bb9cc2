"""The work of a night, week and month: which commands, in which order, and what becomes of it when a part fails."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from compose_chap.errors import StateError, UsageError
from compose_chap.schedule import plan, work
from compose_chap.schedule.plan import KINDS, MONTHLY, NIGHTLY, WEEKLY, CopyStore, Schedule

STORE = CopyStore("s3:http://host/b", "/p", "/k", 300)
ALONE = Schedule("chap", "root", "cron", 1, 30, ("docker",), ("-p", "chap"), "/srv/chap")
FULL = replace(ALONE, store=STORE, output="/mnt", metrics_file="/m.prom", ping="https://hc-ping.com/x")

# Stands in for docker: it does what a file beside it says of each command, and writes down what it was asked.
DOCKER = f"""#!{sys.executable}
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
with open(folder / "asked", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
name = next(word for word in ("backup", "copy", "prune", "verify", "copies", "status") if word in sys.argv)
status, document = json.loads((folder / "answers").read_text()).get(name, [0, {{}}])
print(json.dumps(document))
sys.exit(status)
"""


def now() -> datetime:
    return datetime(2026, 11, 28, 4, tzinfo=timezone.utc)


def names(schedule: Schedule, kind: str) -> list[str]:
    return [part.name for part in work.parts(schedule, kind)]


def test_what_is_done_when() -> None:
    assert names(ALONE, NIGHTLY) == ["backup", "prune"]
    assert names(FULL, NIGHTLY) == ["backup", "copy", "prune", "prune copies", "metrics"]
    assert names(ALONE, WEEKLY) == ["verify"]
    assert names(FULL, WEEKLY) == ["verify", "check copies", "metrics"]
    assert names(ALONE, MONTHLY) == ["drill"] and names(FULL, MONTHLY) == ["drill", "metrics"]
    drill = work.parts(FULL, MONTHLY)[0].words
    assert drill == (
        "verify",
        "latest",
        "--from",
        "s3:http://host/b",
        "--password-file",
        "/p",
        "--keys",
        "/k",
        *("-o", "/mnt"),
        *("--wait-lock", "14400"),
    )
    assert "--deep" in work.parts(ALONE, MONTHLY)[0].words
    copy = work.parts(FULL, NIGHTLY)[1].words
    assert copy[-6:] == ("--limit-upload", "300", "-o", "/mnt", "--wait-lock", "14400")
    # It repacks, which sends.
    assert work.parts(FULL, NIGHTLY)[3].words[-6:] == copy[-6:]


def test_no_password_is_in_a_command() -> None:
    words = [word for kind in KINDS for part in work.parts(FULL, kind) for word in part.words]
    assert "--password-file" in words and not any("secret" in word for word in words)


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    program = tmp_path / "docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    (tmp_path / "answers").write_text("{}")
    return program


def run(docker: Path, answers: dict[str, object]) -> dict[str, work.WorkOutcome]:
    (docker.parent / "answers").write_text(json.dumps(answers))
    outcomes = work.run(replace(FULL, docker=(str(docker),)), NIGHTLY, now, lambda part: None)
    return {outcome.name: outcome for outcome in outcomes}


def asked(docker: Path) -> list[list[str]]:
    return [json.loads(line) for line in (docker.parent / "asked").read_text().splitlines()]


def test_everything_is_done_and_what_it_made_is_known(docker: Path) -> None:
    outcomes = run(docker, {"backup": [0, {"backup": {"id": "20261128T013000Z"}}], "copy": [0, {"sent": 70}]})
    assert not any(outcome.failed for outcome in outcomes.values()) and len(outcomes) == 5
    assert outcomes["backup"].facts == {"backup": "20261128T013000Z"} and outcomes["copy"].facts == {"sent": 70}
    assert asked(docker)[0][:5] == ["chap", "-p", "chap", "--json", "backup"]


def test_a_failed_backup_removes_nothing_and_the_rest_is_done(docker: Path) -> None:
    failure = {"ok": False, "error": {"message": "The database does not answer."}}
    outcomes = run(docker, {"backup": [1, failure]})
    assert outcomes["backup"].failed and outcomes["backup"].message == "The database does not answer."
    assert outcomes["prune"].exit_status is None and not outcomes["prune"].failed
    assert outcomes["copy"].exit_status == 0 and outcomes["metrics"].exit_status == 0
    assert not any("prune" in words and "--from" not in words for words in asked(docker))


def test_a_backup_that_lost_a_table_is_a_failure_of_the_night(docker: Path) -> None:
    made = {"backup": {"id": "20261128T013000Z", "fault": "It is missing public.prediction."}}
    outcomes = run(docker, {"backup": [0, made]})
    assert outcomes["backup"].failed and outcomes["backup"].facts == {"backup": "20261128T013000Z"}
    fault = "Backup 20261128T013000Z cannot be relied on. It is missing public.prediction."
    assert outcomes["backup"].message == fault
    assert not any("prune" in words and "--from" not in words for words in asked(docker))


def test_a_link_that_is_down_costs_no_copy(docker: Path) -> None:
    outcomes = run(docker, {"copy": [1, {"error": {"message": "The repository cannot be reached."}}]})
    assert outcomes["prune copies"].exit_status is None and outcomes["prune"].exit_status == 0


def test_docker_is_gone() -> None:
    schedule = replace(ALONE, docker=("/not/there/docker",))
    outcomes = work.run(schedule, WEEKLY, now, lambda part: None)
    assert outcomes[0].failed and "/not/there/docker" in outcomes[0].message


def test_a_schedule_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert plan.read(tmp_path) is None
    for schedule in (ALONE, FULL):
        plan.write(tmp_path, schedule)
        assert plan.read(tmp_path) == schedule
    file = tmp_path / ".docker-chap" / "schedule.json"
    assert file.stat().st_mode & 0o777 == 0o600
    plan.remove(tmp_path)
    assert plan.read(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{}", '{"project": 3}', "[]"])
def test_a_schedule_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    plan.write(tmp_path, ALONE)
    (tmp_path / ".docker-chap" / "schedule.json").write_text(text)
    with pytest.raises(StateError, match=r"schedule\.json"):
        plan.read(tmp_path)


def test_a_time_of_day() -> None:
    assert plan.time_of_day("01:30") == (1, 30) and plan.time_of_day("9:05") == (9, 5)
    for text in ("", "24:00", "1:60", "0130", "01:30:00", "١:30"):
        with pytest.raises(UsageError, match="time of day"):
            plan.time_of_day(text)
