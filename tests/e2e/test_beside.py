"""A clock that was ahead, and an odd stack beside a good one: everything goes on, and what is odd is named."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.calls import chap
from tests.e2e.faults import Picture, Run, assert_old
from tests.sample.stack import SampleStack, engine, environment

AHEAD = "20380101T000000Z"


def dated_ahead(document: Any) -> Any:
    """Return a document as a clock that is years ahead makes it."""
    ahead = "2038-01-01T00:00:00+00:00"
    times = {name: ahead for name in ("created_at", "proven_at", "started_at", "ended_at", "order") if name in document}
    return {**document, **times, "id": AHEAD}


def test_what_was_made_while_the_clock_was_ahead_is_named_and_is_not_the_last_for_ever(small: SampleStack) -> None:
    made = Path(chap(small, "backup")["backup"]["folder"])
    ahead = made.rename(made.with_name(AHEAD))
    file = ahead / "manifest.json"
    file.write_text(json.dumps(dated_ahead(json.loads(file.read_text()))))
    seen = chap(small, "status")
    assert seen["last_backup"]["id"] == AHEAD and seen["last_backup"]["age_seconds"] is None
    assert any(text.startswith(f"Backup {AHEAD} is dated in the future") for text in seen["problems"])

    right = chap(small, "backup")["backup"]["id"]
    assert right < AHEAD
    listed = chap(small, "backups")
    assert listed["backups"][-1]["id"] == right and AHEAD in listed["warnings"][0]
    assert chap(small, "verify")["backup"]["id"] == right
    assert chap(small, "status")["last_backup"]["id"] == right


@pytest.mark.torture
def test_a_run_from_a_clock_that_was_ahead_does_not_stand_in_the_way_of_a_rollback(small: SampleStack) -> None:
    before = Picture.of(small)
    assert Run(small, "upgrade", "v2.1.0", "--yes").end() == 0
    back = Run(small, "rollback", "--yes")
    assert back.end() == 0, back.stdout + back.stderr[-3000:]
    assert_old(small, before)
    # The same two runs once more, after one that is dated later than both.
    runs = small.folder / ".docker-chap" / "runs"
    record = dated_ahead(json.loads((runs / f"{back.document['undone']}.json").read_text()))
    (runs / f"{AHEAD}.json").write_text(json.dumps(record))
    (runs / f"{AHEAD}.json").chmod(0o600)
    upgraded = Run(small, "upgrade", "v2.1.0", "--yes")
    assert upgraded.end() == 0, upgraded.stdout + upgraded.stderr[-3000:]
    history = chap(small, "history")
    assert history["runs"][-1]["id"] == upgraded.document["run"] and AHEAD in history["warnings"][0]
    back = Run(small, "rollback", "--yes")
    assert back.end() == 0, back.stdout + back.stderr[-3000:]
    assert back.document["undone"] == upgraded.document["run"]
    assert_old(small, before)


@pytest.mark.torture
def test_a_run_is_not_undone_with_the_variables_of_another_shell(small: SampleStack) -> None:
    before = Picture.of(small)
    run = Run(small, "upgrade", "v2.1.0", "--yes", at="verify api", hit=lambda run: run.signal(signal.SIGKILL))
    assert run.end() == -signal.SIGKILL, run.stderr[-3000:]
    ids = {name: each["id"] for name, each in small.containers().items()}
    refused = chap(small, "recover", expect=4, CHAP_API_TOKEN="an0ther")["error"]
    assert "variables CHAP_API_TOKEN" in refused["message"] and "an0ther" not in json.dumps(refused)
    assert {name: each["id"] for name, each in small.containers().items()} == ids, "nothing was stopped"
    assert chap(small, "recover")["outcome"] == "undone"
    assert_old(small, before)
    assert Run(small, "upgrade", "v2.1.0", "--yes").end() == 0
    refused = chap(small, "rollback", "--yes", expect=1, CHAP_API_TOKEN="an0ther")["error"]
    assert "variables CHAP_API_TOKEN" in refused["message"] and refused["state"] == "Nothing was changed."
    chap(small, "rollback", "--yes")
    assert_old(small, before)


LABELS: dict[str, dict[str, str]] = {
    "none": {},
    "odd": {"project.working_dir": "relative", "project.config_files": ",,", "container-number": "x"},
    "gone": {
        "project.working_dir": "/no/such",
        "project.config_files": "/no/such/compose.yml",
        "config-hash": "\u202e",
    },
}
URLS = ("postgresql://u:p@[::1/%zz?x=\n", "", "://:@:/", "postgresql://u:p@nowhere:99999/x")


@pytest.mark.parametrize(
    ("labels", "url"),
    [
        pytest.param(labels, url, marks=() if (labels, url) == ("odd", URLS[0]) else pytest.mark.torture)
        for labels in LABELS
        for url in URLS
    ],
)
def test_an_odd_stack_never_hides_the_others(small: SampleStack, labels: str, url: str, tmp_path: Path) -> None:
    odd = f"{small.project}-odd"
    named = {"project": odd, "service": "chap", "oneoff": "False", **LABELS[labels]}
    api = engine().containers.get(small.containers()[small.api_service]["id"])
    container = engine().containers.create(
        api.attrs["Config"]["Image"],
        labels={f"com.docker.compose.{name}": value for name, value in named.items()},
        environment={"CHAP_DATABASE_URL": url},
    )
    try:
        for words in (("status",), ("check",), ("backups",), ("history",), ("upgrade", "v2.1.0", "--dry-run")):
            chap(small, *words)
        done = subprocess.run(
            ["docker", "chap", "status", "--all-stacks", "--json"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        stacks = {seen["project"]["name"]: seen for seen in json.loads(done.stdout)["stacks"]}
        assert stacks[small.project]["health"]["level"] == "ready" and stacks[odd]["problems"]
    finally:
        container.remove(force=True)
