"""The worker's side: pickled functions run as tasks, and each job's state kept in the broker."""

import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.signals import worker_init

from chap_core.rest_api.broker import MESSAGES, RESULTS, jobs
from chap_core.release import RELEASE

app = Celery("worker", broker=MESSAGES, backend=RESULTS)
app.conf.update(
    task_serializer="pickle",
    result_serializer="pickle",
    accept_content=["pickle", "json"],
    broker_connection_retry_on_startup=True,
    # The broker connection of a request must fail at once, not hang.
    broker_transport_options={"socket_connect_timeout": 2},
)


def now() -> str:
    """Return the time as the job list shows it."""
    return datetime.now(timezone.utc).isoformat()


class Job(Task):
    """A task that keeps its own record beside Celery's."""

    def start(self, kind: str, name: str, function: Callable[..., Any], *arguments: Any) -> str:
        """Queue the function and return the job's id."""
        identity = os.urandom(16).hex()
        identity = "-".join([identity[:8], identity[8:12], identity[12:16], identity[16:20], identity[20:]])
        jobs().hset(f"job_meta:{identity}", mapping={"id": identity, "type": kind, "name": name, "status": "PENDING", "start_time": now()})
        self.apply_async((function, *arguments), task_id=identity)
        return identity

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Mark the job as started; nobody marks it when the worker is killed."""
        _record(task_id, status="STARTED", start_time=now())
        _log(task_id, "started")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Mark the job as done."""
        _record(task_id, status="SUCCESS", end_time=now(), result=str(retval))
        _log(task_id, "done")

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Mark the job as failed."""
        _record(task_id, status="FAILURE", end_time=now(), result=str(exc))
        _log(task_id, f"failed: {exc}")


def _record(task_id: str, **fields: str) -> None:
    key = f"job_meta:{task_id}"
    if jobs().exists(key):
        jobs().hset(key, mapping=fields)


def _log(task_id: str, line: str) -> None:
    folder = Path(os.environ.get("CHAP_LOGS_DIR", "/data/logs"))
    try:
        with open(folder / f"task_{task_id}.status.txt", "a") as log:
            log.write(f"{now()} {line}\n")
    except OSError:
        pass


@app.task(base=Job, name="chap_core.rest_api.celery_tasks.run")
def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run the function that came with the message."""
    return function(*arguments)


def sleep(seconds: float) -> str:
    """Stand in for a model run."""
    time.sleep(seconds)
    return f"slept {seconds:g} s"


def ask_database() -> str:
    """Prove that a worker process reaches the database."""
    from sqlmodel import text

    from chap_core.database.database import engine

    with engine().connect() as connection:
        connection.execute(text("SELECT 1"))
    return "ok"


@worker_init.connect
def _show_vice(**_: Any) -> None:
    if RELEASE.image != "chap-worker":
        return
    if RELEASE.vice == "worker-exits":
        print("ImportError: libINLA.so: cannot open shared object file", file=sys.stderr, flush=True)
        os._exit(1)
    if RELEASE.vice == "worker-silent":
        while True:
            time.sleep(3600)
