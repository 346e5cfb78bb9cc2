"""Time backups and restores of this tool beside the manual procedure's, in turn, on stacks of two sizes.

    . build/out/env.sh
    build/out/venv/bin/python -m tests.bench.backup_restore [--sizes 56 560] [--rounds 3]

Each row is the median, with the lowest and highest in brackets.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.sample.stack import SampleStack, environment


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def run(stack: SampleStack, words: list[str], *, into: Path | None = None, given: Path | None = None) -> str:
    """Run a command in the stack's folder and return its output; it must succeed."""
    with open(given or "/dev/null", "rb") as source, open(into or "/dev/null", "wb") as target:
        done = subprocess.run(
            words,
            cwd=stack.folder,
            env=environment(),
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
            run(self.stack, [*self.inside, "pg_restore", *user, "-d", name, "--no-owner"], given=self.dump)
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
            found: dict[str, object] = json.loads(run(self.stack, ["docker", "chap", *words, "--json"]))
            return found
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
        found: dict[str, object] = {}
        took = timed(lambda: found.update(self._chap("backup")))
        self.size = found["backup"]["dump"]["size"]  # type: ignore[index]
        return took

    def restore(self) -> float:
        found: dict[str, object] = {}
        took = timed(lambda: found.update(self._chap("restore", "latest", "--yes")))
        self.downtime = float(found["downtime_seconds"])  # type: ignore[arg-type]
        for name in self.stack.databases():
            if name.startswith(f"{self.stack.database}_before"):
                self.stack.sql(f'DROP DATABASE "{name}"', "postgres")
        return took


def told(values: list[float]) -> str:
    """Return median and spread."""
    return f"{statistics.median(values):7.1f} s  [{min(values):.1f} to {max(values):.1f}]"


def measure(megabytes: float, rounds: int) -> None:
    """Print the rows for one size."""
    with tempfile.TemporaryDirectory() as folder:
        stack = SampleStack.create(Path(folder))
        try:
            stack.up()
            stack.fill(megabytes=megabytes)
            stack.sql("CHECKPOINT")
            manual, tool = Manual(stack), Tool(stack)
            times: dict[str, list[float]] = {}
            for _ in range(rounds):
                for name, work in (
                    ("backup: pg_dump -Fc by hand", manual.backup),
                    ("backup: pg_dump -Z zstd:1 into nothing", manual.backup_into_nothing),
                    ("backup: docker chap, proven", tool.backup),
                    ("restore: by hand (all of it is downtime)", manual.restore),
                    ("restore: docker chap, verified", tool.restore),
                ):
                    times.setdefault(name, []).append(work())
                times.setdefault("restore: docker chap, its downtime", []).append(tool.downtime)
            print(f"database {stack.size() >> 20} MiB, {rounds} rounds")
            for name, values in times.items():
                print(f"  {name:<42} {told(values)}")
            print(f"  {'size: pg_dump -Fc by hand':<42} {manual.dump.stat().st_size >> 20:7} MiB")
            print(f"  {'size: docker chap':<42} {tool.size >> 20:7} MiB")
            print(f"  {'peak memory of the plugin':<42} {tool.peak:7.0f} MiB", flush=True)
        finally:
            stack.down()


def main() -> None:
    """Measure at the sizes that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=float, nargs="+", default=[56, 560], help="megabytes of each database")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    for size in asked.sizes:
        measure(size, asked.rounds)


if __name__ == "__main__":
    main()
