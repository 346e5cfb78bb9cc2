"""How long CHAP is down in an upgrade, how long until all is well, and how long its data take to come back.

By hand and with this tool, in turn on one stack.

The API is asked ten times a second; down is the longest time in which it did not answer.
"""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime

from tests.bench.pictures import timeline
from tests.bench.table import Goal, Row
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


def by_hand(stack: SampleStack, version: str) -> float:
    """Upgrade as the guide tells it; return the seconds from `up` until CHAP is ready."""
    stack.docker("exec", _postgres(stack), "sh", "-c", f"pg_dump -U {stack.user} -Fc {stack.database} > /tmp/by-hand")
    stack.pin(version)
    stack.compose("pull", "chap", "chap-worker")
    begun = time.monotonic()
    stack.compose("up", "-d")
    stack.wait_ready(600)
    return time.monotonic() - begun


def back_by_hand(stack: SampleStack, version: str) -> float:
    """Roll back as the guide tells it; return the seconds that the data took."""
    stack.pin(version)
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


def with_the_tool(stack: SampleStack, *words: str) -> dict[str, float]:
    """Run `docker chap`; return when each step of the run began, and its `end`, in seconds.

    Besides for how long CHAP was `down`, and was `expected` to be.
    """
    stack.docker("chap", *words, "--yes", "--json", environ=timeline(words[0]))
    run = json.loads(stack.docker("chap", "history", "--json").stdout)["runs"][-1]
    at = {step["step"]: step["at"] for step in run["steps"]} | {"end": run["ended_at"]}
    moments = {step: datetime.fromisoformat(moment).timestamp() for step, moment in at.items()}
    return {**moments, "down": run["downtime"], "expected": run.get("expected_downtime", 0.0)}


def measure(
    stack: SampleStack, rounds: int, database: str, what: str = "", old: str = "v2.0.0", new: str = "v2.1.0"
) -> list[Row]:
    """Return the rows of upgrade and rollback; `what` says which CHAP it is, where it is not the sample's."""
    down = Row(f"upgrade's downtime{what}", database=database, goal=Goal(0.9, "by_hand"))
    whole = Row(f"upgrade, from the first stop until verified{what}; by hand: until ready", database=database)
    whole.goal = Goal(1.1, "by_hand")
    data = Row(f"data rollback{what}", database=database)
    # The first upgrade on a server knows least about it.
    expected = [
        Row(f"upgrade's downtime as the plan of {which} expects it{what}; limit: as it was", database=database)
        for which in ("the first one", "a later one")
    ]
    for turn in range(rounds):
        with Watch(stack) as watch:
            whole.by_hand.append(by_hand(stack, new))
        down.by_hand.append(watch.down)
        data.by_hand.append(back_by_hand(stack, old))
        with Watch(stack) as watch:
            at = with_the_tool(stack, "upgrade", new)
        down.ours.append(watch.down)
        whole.ours.append(at["end"] - at["stop"])
        expected[turn > 0].goal = Goal(1.25, "limit", 0.75)
        expected[turn > 0].ours.append(at["expected"])
        expected[turn > 0].limit.append(at["down"])
        at = with_the_tool(stack, "rollback")
        data.ours.append(at["start api"] - at["swap"])
        for name in stack.databases():
            if name.startswith(f"{stack.database}_"):
                stack.sql(f'DROP DATABASE "{name}"', "postgres")
    return [down, whole, *(row for row in expected if row.ours), data]
