"""Backups and restores of this tool beside the manual procedure's, in turn on one stack."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.bench.pictures import timeline
from tests.bench.table import Goal, Row
from tests.sample.stack import SampleStack, environment


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def run(
    stack: SampleStack,
    words: list[str],
    *,
    into: Path | None = None,
    stdin: Path | None = None,
    variables: Mapping[str, str] = {},
) -> str:
    """Run a command in the stack's folder and return its output; it must succeed."""
    with open(stdin or "/dev/null", "rb") as source, open(into or "/dev/null", "wb") as target:
        done = subprocess.run(
            words,
            cwd=stack.folder,
            env={**environment(), **variables},
            stdin=source,
            stdout=target if into else subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return (done.stdout or b"").decode()


class Manual:
    """What an operator does by hand: pg_dump -Fc to the host; stop, drop, create, restore from stdin, start."""

    def __init__(self, stack: SampleStack) -> None:
        self.stack = stack
        self.dump = stack.folder / "by-hand.dump"
        self.inside = ["docker", "compose", "exec", "-T", stack.database_service]

    def backup(self) -> float:
        tool = ["pg_dump", "-U", self.stack.user, "-Fc", self.stack.database]
        return timed(lambda: run(self.stack, [*self.inside, *tool], into=self.dump))

    def backup_into_nothing(self) -> float:
        tool = ["pg_dump", "-U", self.stack.user, "-Fc", "-Z", "zstd:1", "--no-sync", "-f", "/dev/null"]
        return timed(lambda: run(self.stack, [*self.inside, *tool, self.stack.database]))

    def restore(self) -> float:
        user, name = ["-U", self.stack.user], self.stack.database
        writers = [self.stack.api_service, self.stack.worker_service]

        def work() -> None:
            run(self.stack, ["docker", "compose", "stop", *writers])
            run(self.stack, [*self.inside, "dropdb", *user, "--force", name])
            run(self.stack, [*self.inside, "createdb", *user, name])
            run(self.stack, [*self.inside, "pg_restore", *user, "-d", name, "--no-owner"], stdin=self.dump)
            run(self.stack, ["docker", "compose", "start", *writers])
            self.stack.wait_ready()

        return timed(work)


class Tool:
    """The same by `docker chap`, with the peak of the plugin's memory."""

    def __init__(self, stack: SampleStack) -> None:
        self.stack = stack
        self.peak = 0.0
        self.size = 0
        self.downtime = 0.0

    def _chap(self, *words: str) -> dict[str, object]:
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stop,))
        watcher.start()
        try:
            document: dict[str, object] = json.loads(
                run(self.stack, ["docker", "chap", *words, "--json"], variables=timeline(words[0]))
            )
            return document
        finally:
            stop.set()
            watcher.join()

    def _watch(self, stop: threading.Event) -> None:
        while not stop.wait(0.05):
            for status in Path("/proc").glob("[0-9]*/status"):
                try:
                    command = (status.parent / "cmdline").read_bytes()
                    if (status.parent / "cwd").resolve() != self.stack.folder or b"python" not in command:
                        continue
                    lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
                    self.peak = max([self.peak, *(int(line.split()[1]) / 1024 for line in lines)])
                except OSError:
                    continue

    def backup(self) -> float:
        result: dict[str, object] = {}
        took = timed(lambda: result.update(self._chap("backup")))
        self.size = result["backup"]["dump"]["size"]  # type: ignore[index]
        return took

    def restore(self) -> float:
        result: dict[str, object] = {}
        took = timed(lambda: result.update(self._chap("restore", "latest", "--yes")))
        self.downtime = float(result["downtime_seconds"])  # type: ignore[arg-type]
        for name in self.stack.databases():
            if name.startswith(f"{self.stack.database}_before"):
                self.stack.sql(f'DROP DATABASE "{name}"', "postgres")
        return took


def measure(stack: SampleStack, rounds: int, database: str, *, large: bool) -> list[Row]:
    """Return the rows of backup and restore. By hand, all of a restore is downtime."""
    manual, tool = Manual(stack), Tool(stack)
    backup = Row("backup, proven; limit: pg_dump inside, into nothing", database=database)
    backup.goal = Goal(1.25, "limit") if large else None
    size = Row("backup's dump", "MiB", database)
    restore = Row("restore", database=database, goal=Goal(0.8 if large else 1.1, "by_hand"))
    down = Row("restore's downtime", database=database, goal=Goal(0.25, "by_hand") if large else None)
    peak = Row("peak memory of the plugin", "MiB", database, Goal(40))
    for _ in range(rounds):
        backup.by_hand.append(manual.backup())
        backup.limit.append(manual.backup_into_nothing())
        backup.ours.append(tool.backup())
        restore.by_hand.append(manual.restore())
        restore.ours.append(tool.restore())
        down.ours.append(tool.downtime)
        size.by_hand.append(manual.dump.stat().st_size / 2**20)
        size.ours.append(tool.size / 2**20)
    down.by_hand = restore.by_hand
    peak.ours.append(tool.peak)
    return [backup, size, restore, down, peak]
