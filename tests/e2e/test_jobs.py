"""An upgrade while CHAP computes: jobs that run, jobs that only say so, jobs that begin meanwhile."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timezone
from pathlib import Path
from signal import SIGINT, SIGSTOP

import pytest

from compose_chap.detection import detect
from compose_chap.engine.engine import Engine
from compose_chap.engine.world import World
from compose_chap.model import Role
from compose_chap.stack.jobs import take_no_more
from tests.e2e.calls import chap
from tests.e2e.faults import Picture, Run, assert_old
from tests.sample.stack import SampleStack, environment


def test_a_worker_that_takes_no_more_jobs_has_none_and_takes_them_when_it_is_started_again(
    small: SampleStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    engine = Engine()
    world = World(engine, lambda: datetime.now(timezone.utc), time.sleep, lambda *_: None)
    stack = detect(engine.containers(small.project))[0]
    worker = stack.of(Role.WORKER)[0].containers[0].id
    job = small.start_job(4)
    small.wait_job(job, "STARTED")
    assert not take_no_more(world, stack)

    # It finishes what it has, and leaves what is queued from then on.
    small.wait_job(job, "SUCCESS")
    assert take_no_more(world, stack) == {worker}
    if os.geteuid() == 0:
        # From here on it does nothing, not even what it had asked the broker for.
        for line in small.docker("top", worker).stdout.splitlines()[1:]:
            os.kill(int(line.split()[1]), SIGSTOP)
    queued = [small.start_job(0.1) for _ in range(3)]
    time.sleep(0.5)
    assert [small.jobs()[identity] for identity in queued] == ["PENDING"] * 3
    engine.stop(worker, at_once=True)
    assert not take_no_more(world, stack)
    engine.start(worker)
    for identity in queued:
        small.wait_job(identity, "SUCCESS")


def test_a_job_that_begins_during_the_backup_is_not_lost(small: SampleStack) -> None:
    before, jobs = Picture.of(small), []
    run = Run(small, "upgrade", "v2.1.0", "--yes", at="backup", hit=lambda run: jobs.append(small.start_job(15)))
    assert run.end() == 1, run.stdout + run.stderr[-3000:]
    failure = run.document["error"]
    assert "started during pull and backup" in failure["message"] and "still runs as before" in failure["state"]
    small.wait_job(jobs[0], "SUCCESS")
    assert_old(small, before)


def test_drain_waits_for_a_job_and_two_operators_do_not_meet(small: SampleStack) -> None:
    job = small.start_job(8)
    small.wait_job(job, "STARTED")
    run = Run(small, "upgrade", "v2.1.0", "--yes", "--drain", "120", at="pull", hit=lambda run: run.signal(SIGINT))
    while not run.steps:
        assert run.process.poll() is None, run.stderr
        time.sleep(0.1)
    second = chap(small, "upgrade", "v2.1.0", "--yes", expect=5)["error"]
    assert "upgrade by" in second["message"] and "since" in second["message"] and "step" in second["message"]

    # What follows is as without a job.
    assert run.end() == 130, run.stderr[-3000:]
    assert run.steps[:3] == ["check", "drain", "pull"] and small.jobs()[job] == "SUCCESS"


def test_a_running_job_blocks_and_a_dead_job_does_not(small: SampleStack) -> None:
    dead = small.zombie()
    small.wait_ready()
    before = Picture.of(small)
    job = small.start_job(600)
    small.wait_job(job, "STARTED")

    failure = chap(small, "upgrade", "v2.1.0", "--yes", expect=1)["error"]
    assert "Jobs: 1 running" in failure["message"] and "1 more" in failure["message"] and "--drain" in failure["hint"]
    assert Picture.of(small).files == before.files

    checks = chap(small, "check", "v2.1.0", expect=1)["checks"]
    jobs = next(check for check in checks if check["name"] == "jobs")
    assert jobs["details"]["running"] == [job] and jobs["details"]["zombies"] == [dead]


@pytest.mark.torture
def test_the_operator_may_choose_to_lose_a_job(small: SampleStack) -> None:
    job = small.start_job(600)
    small.wait_job(job, "STARTED")
    done = chap(small, "upgrade", "v2.1.0", "--yes", "--abandon-jobs")
    report = json.loads(Path(done["report"]).read_text())
    assert report["overridden"] == ["jobs"] and report["result"] == "done" and report["checks"]
    assert report["digests"]["before"].keys() == report["digests"]["after"].keys() == {"chap", "chap-worker"}
    assert all("@sha256:" in digest for digests in report["digests"]["after"].values() for digest in digests)
    assert Path(done["report"]).stat().st_mode & 0o777 == 0o600
    # It says so for ever.
    assert small.jobs()[job] == "STARTED"
