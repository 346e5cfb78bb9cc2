"""How long CHAP is down in an upgrade, and how long its data take to come back: by hand and with this tool.

The API is asked ten times a second; down is the longest time in which it did not answer.
"""

from __future__ import annotations

import json
import threading
import time

from tests.bench.table import Row
from tests.sample.stack import SampleStack


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


def back_by_hand(stack: SampleStack) -> float:
    """Roll back as the guide tells it; return the seconds that the data took."""
    stack.pin("v2.0.0")
    stack.compose("stop", "chap", "chap-worker")
    begun = time.monotonic()
    for words in (
        f"dropdb -U {stack.user} --force {stack.database}",
        f"createdb -U {stack.user} {stack.database}",
        f"pg_restore -U {stack.user} -d {stack.database} < /tmp/by-hand",
    ):
        stack.docker("exec", _postgres(stack), "sh", "-c", words)
    took = time.monotonic() - begun
    stack.compose("up", "-d", "chap", "chap-worker")
    stack.wait_ready(600)
    return took


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


def measure(stack: SampleStack, rounds: int, database: str) -> list[Row]:
    """Return the rows of upgrade and rollback; by hand and with the tool, in turn on one stack."""
    down, data = Row("upgrade's downtime", database=database), Row("data rollback", database=database)
    for _ in range(rounds):
        with Watch(stack) as watch:
            by_hand(stack)
        down.by_hand.append(watch.down)
        data.by_hand.append(back_by_hand(stack))
        with Watch(stack) as watch:
            with_the_tool(stack, "upgrade", "v2.1.0")
        down.ours.append(watch.down)
        data.ours.append(with_the_tool(stack, "rollback"))
        for name in stack.databases():
            if name.startswith(f"{stack.database}_"):
                stack.sql(f'DROP DATABASE "{name}"', "postgres")
    return [down, data]
