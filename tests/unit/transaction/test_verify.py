"""What the verification of an upgrade or restore makes of the workers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from compose_chap.detection import detect
from compose_chap.transaction import verify
from compose_chap.transaction.run.baseline import Baseline
from tests.fakes import FakeEngine, world

NOTHING_KNOWN = Baseline("", {}, (), "", ready=False, has_data=True, untouched={})
NOT_RUNNING = "not running"


@pytest.mark.parametrize(
    ("expected", "workers", "wrong"),
    [
        ("v2", {"worker": "2"}, ""),
        ("v2", {"worker": "1"}, "Not every worker reports v2: p-worker-1: 1."),
        ("v2", {"worker": NOT_RUNNING}, "Not every worker reports v2: p-worker-1: not running."),
        ("v2", {"worker": ""}, "Not every worker reports v2: p-worker-1: nothing."),
        # The version that ran before may be unknown.
        ("", {"worker": "1"}, ""),
        ("", {"worker": ""}, ""),
        ("", {"worker": NOT_RUNNING}, "Not every worker reports the same version: p-worker-1: not running."),
        ("", {"worker": "1", "more": "2"}, "Not every worker reports the same version: p-more-1: 2, p-worker-1: 1."),
    ],
)
def test_a_worker_that_does_not_run_or_runs_another_version_is_named(
    expected: str, workers: Mapping[str, str], wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(tmp_path)
    if "more" in workers:
        engine._make("more", "registry.example/chap-worker:v1")
    services = {container.id: container.service for container in engine.containers()}
    for identity, service in services.items():
        if workers.get(service) == NOT_RUNNING:
            engine.stop(identity)
    monkeypatch.setattr(verify, "version_in", lambda engine, identity: workers[services[identity]])
    checks = verify.check_everything(world(engine), detect(engine.containers())[0], expected, NOTHING_KNOWN, {})
    (check,) = [check for check in checks if check.name == "worker_version"]
    assert (check.failed, check.message if wrong else "") == (bool(wrong), wrong)
