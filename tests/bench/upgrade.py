"""Measure, on the sample stack, how long CHAP is down and how long data take to come back.

    tests/bench/upgrade.py [MEGABYTES ...]        default: 20 200

For each size, in turn on one stack: the upgrade by hand (dump, edit, pull, up) and back by hand (drop, create,
restore from the dump), then `docker chap upgrade` and `docker chap rollback`. The API is asked ten times a second;
down is the longest time in which it did not answer.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.sample.stack import SampleStack  # noqa: E402


class Watch:
    """Ask the API all the time, and know the longest silence."""

    def __init__(self, stack: SampleStack) -> None:
        self._stack, self._ends = stack, threading.Event()
        self.down = 0.0
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        last = time.monotonic()
        while not self._ends.wait(0.1):
            answered = self._stack.api("/system/info", timeout=2)[0] == 200
            now = time.monotonic()
            if answered:
                self.down, last = max(self.down, now - last), now

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()


def by_hand(stack: SampleStack) -> None:
    """Upgrade as the guide tells it."""
    stack.docker("exec", _postgres(stack), "sh", "-c", f"pg_dump -U {stack.user} -Fc {stack.database} > /tmp/by-hand")
    stack.pin("v2.1.0")
    stack.compose("pull", "chap", "chap-worker")
    stack.compose("up", "-d")
    stack.wait_ready(600)


def back_by_hand(stack: SampleStack) -> None:
    """Roll back as the guide tells it."""
    stack.pin("v2.0.0")
    stack.compose("stop", "chap", "chap-worker")
    for words in (
        f"dropdb -U {stack.user} --force {stack.database}",
        f"createdb -U {stack.user} {stack.database}",
        f"pg_restore -U {stack.user} -d {stack.database} < /tmp/by-hand",
    ):
        stack.docker("exec", _postgres(stack), "sh", "-c", words)
    stack.compose("up", "-d", "chap", "chap-worker")
    stack.wait_ready(600)


def _postgres(stack: SampleStack) -> str:
    return f"{stack.project}-{stack.database_service}-1"


def with_the_tool(stack: SampleStack, *words: str) -> float:
    """Run `docker chap`; return the seconds between the steps `swap` and `start api`, the data's own way back."""
    stack.docker("chap", *words, "--yes", "--json")
    run = json.loads(stack.docker("chap", "history", "--json").stdout)["runs"][-1]
    at = {step["step"]: step["at"] for step in run["steps"]}
    if "swap" not in at:
        return 0.0
    seconds = [float(at[step][17:26]) + 60 * float(at[step][14:16]) for step in ("swap", "start api")]
    return (seconds[1] - seconds[0]) % 3600


def measure(stack: SampleStack, what: str, do: Callable[[], float | None]) -> None:
    """Do something and print how long it took and how long CHAP was down."""
    begun = time.monotonic()
    with Watch(stack) as watch:
        data = do()
    took = time.monotonic() - begun
    more = f", data {data:.2f} s" if data else ""
    print(f"  {what:<24} {took:7.1f} s in all, {watch.down:6.1f} s down{more}", flush=True)


def main(sizes: list[float]) -> None:
    """Measure at each size."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            stack = SampleStack.create(Path(folder))
            try:
                stack.up()
                stack.fill(megabytes=size)
                print(f"{stack.size() >> 20} MiB")
                measure(stack, "upgrade by hand", lambda: by_hand(stack))
                measure(stack, "back by hand", lambda: back_by_hand(stack))
                measure(stack, "docker chap upgrade", lambda: with_the_tool(stack, "upgrade", "v2.1.0"))
                measure(stack, "docker chap rollback", lambda: with_the_tool(stack, "rollback"))
            finally:
                stack.down()


if __name__ == "__main__":
    main([float(size) for size in sys.argv[1:]] or [20, 200])
