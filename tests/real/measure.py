"""How long the parts of a real release take, as a basis for what the tool can do about it.

python -m tests.real.measure [VERSION...]      seconds, the best of three
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.real.releases import RELEASES, Release
from tests.real.stack import PATIENCE, RealStack

TIMES = 3
IMPORTS = (
    "chap_core.database.database", "chap_core.rest_api.celery_tasks", "chap_core.rest_api.app", "celery",
    "importlib.metadata",
)  # fmt: skip


def seconds(what: Callable[[], object]) -> float:
    """Return the shortest time that something takes: what else runs on the machine only adds to it."""
    best = float("inf")
    for _ in range(TIMES):
        begin = time.monotonic()
        what()
        best = min(best, time.monotonic() - begin)
    return best


def starts(stack: RealStack) -> tuple[float, float]:
    """Return how long the API takes from its start to its first answer, and to stop."""
    begin = time.monotonic()
    stack.compose("start", stack.api_service)
    while stack.api("/health")[0] != 200:
        if time.monotonic() - begin > PATIENCE:
            sys.exit(f"the API of {stack.version()} does not answer")
        time.sleep(0.05)
    began = time.monotonic() - begin
    begin = time.monotonic()
    stack.compose("stop", stack.api_service)
    return began, time.monotonic() - begin


def worker_stop(stack: RealStack) -> float:
    """Return how long a worker without a job takes to stop, and start it again."""
    begin = time.monotonic()
    stack.compose("stop", stack.worker_service)
    took = time.monotonic() - begin
    stack.compose("start", stack.worker_service)
    stack.wait_ready(PATIENCE)
    return took


def measures(stack: RealStack) -> Iterator[tuple[str, float]]:
    """Yield what was measured on a stack that runs, with its name."""
    container = f"{stack.project}-{stack.api_service}-1"
    for module in IMPORTS:
        words = ["exec", container, "python", "-W", "ignore", "-c", f"import {module}"]
        yield f"import {module}", seconds(lambda words=words: stack.docker(*words))  # type: ignore[misc]
    yield "GET /health/ready", seconds(lambda: stack.api("/health/ready", timeout=60))
    yield "worker's stop", min(worker_stop(stack) for _ in range(TIMES))
    stack.compose("stop", stack.api_service)
    begun, stopped = (min(times) for times in zip(*(starts(stack) for _ in range(TIMES)), strict=True))
    yield "API's start to its first answer", begun
    yield "API's stop", stopped


def measure(release: Release) -> None:
    """Measure a release on a stack of its own, and print it."""
    with tempfile.TemporaryDirectory() as folder:
        stack = RealStack.of(Path(folder), release, {})
        try:
            stack.up(PATIENCE)
            for name, took in measures(stack):
                print(f"{release.version}  {took:6.2f}  {name}", flush=True)
        finally:
            stack.down()


if __name__ == "__main__":
    for version in sys.argv[1:] or ("2.1.0", "2.5.1"):
        measure(RELEASES[version])
