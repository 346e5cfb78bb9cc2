"""What is said when CHAP gives no answer."""

from __future__ import annotations

import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from compose_chap.errors import EngineError
from compose_chap.processes.process import Finished
from compose_chap.stack import chap
from compose_chap.stack.chap import Active, Chap, Jobs
from compose_chap.stack.chap_answers import Job
from compose_chap.stack.jobs import own_jobs

WARNING = "/app/chap_core/geometry.py:41: SyntaxWarning: invalid escape sequence '\\d'\n"
SHOWN = "/app/a.py:7: DeprecationWarning: old\n  old()\n"
TRACEBACK = """Traceback (most recent call last):
  File "/app/a.py", line 7, in ask
    redis()
    ~~~~~^^
redis.exceptions.ConnectionError: Error -2
The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "<string>", line 20, in <module>
kombu.exceptions.OperationalError: Error -2 connecting to redis:6379.
"""


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (137, WARNING, "its container is stopping, or has no memory left"),
        (1, WARNING, "it gave no output (exit status 1)"),
        (1, WARNING + SHOWN + "ImportError: no chap_core", "ImportError: no chap_core"),
        (1, WARNING + TRACEBACK, "kombu.exceptions.OperationalError: Error -2 connecting to redis:6379."),
    ],
)
def test_no_warning_of_python_and_no_frame_is_why_chap_gave_no_answer(status: int, message: str, expected: str) -> None:
    engine: Any = SimpleNamespace(run=lambda *words, **kwargs: Finished(status, "", message))
    with pytest.raises(EngineError) as failed:
        Chap(engine, "1").active(1)
    assert failed.value.message == f"CHAP could not be asked in its container: {expected}"
    assert Chap(engine, "1").health().problems == f"does not answer ({expected})"


def test_a_refused_connection_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(container: str, command: list[str], stdin: bytes, **words: Any) -> Finished:
        done = subprocess.run([sys.executable, "-c", command[-1]], input=stdin, capture_output=True, check=True)
        return Finished(0, done.stdout.decode(), "")

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and nothing listens
        monkeypatch.setattr(chap, "PORT", bound.getsockname()[1])
        engine: Any = SimpleNamespace(run=run)
        assert Chap(engine, "1").health().problems == "does not answer (connection refused)"


def test_jobs_that_chap_queues_by_itself_are_nobodys_work() -> None:
    listed = {
        "a": Job("STARTED", "create_prediction"),
        "b": Job("PENDING", "create_backtest"),
        "c": Job("STARTED", "run_baseline"),
        "d": Job("PENDING", "run_baseline"),
        "e": Job("STARTED", "run_baseline"),  # its worker died
    }
    jobs = Jobs.of(listed, Active(("w",), frozenset({"a", "c", "x"})))
    assert (jobs.running, jobs.waiting, jobs.zombies, jobs.own) == (("a", "x"), ("b",), ("e",), ("c", "d"))
    assert own_jobs(jobs).startswith("Jobs that CHAP queued by itself (baselines): 2.")
    assert own_jobs(Jobs.of({}, Active((), frozenset()))) == ""
