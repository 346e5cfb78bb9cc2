"""Measure everything, print one table, and write it to build/out/bench.md with the date and the machine.

    . build/out/env.sh
    build/out/venv/bin/python -m tests.bench [--sizes 56 560] [--rounds 3] [--real 2.1.0 2.5.1]

With --real, images of real releases are needed too: python -m tests.real.images

On two quiet processors this takes about half an hour, nearly all of it for the larger size.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import tempfile
from datetime import datetime
from pathlib import Path

from tests.bench import backup_restore, plugin, upgrade
from tests.bench.table import Row, markdown
from tests.real.releases import RELEASES
from tests.real.roads import MENDED
from tests.real.stack import PATIENCE, RealStack
from tests.sample.stack import OUT, SampleStack, environment


def main() -> None:
    """Measure at the sizes that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="+", default=[56, 560], help="megabytes of each database")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--real", nargs=2, metavar="VERSION", help="upgrade a real CHAP from one version to another")
    options = parser.parse_args()
    rows = plugin.measure(options.rounds * 5)
    for number, size in enumerate(options.sizes):
        rows += on_a_stack(size, options.rounds, questions=number == 0)
    if options.real:
        rows += on_a_real_stack(options.real[0], options.real[1], options.rounds)
    order = [row.what for row in rows]
    rows.sort(key=lambda row: order.index(row.what))  # both sizes of one thing stand together
    text = f"{machine()} {options.rounds} rounds; median (lowest to highest).\n\n{markdown(rows)}\n"
    (OUT / "bench.md").write_text(text)
    print(text, end="")


def on_a_stack(megabytes: float, rounds: int, *, questions: bool) -> list[Row]:
    """Return the rows of one size."""
    with tempfile.TemporaryDirectory() as folder:
        stack = SampleStack.create(Path(folder))
        try:
            stack.up()
            stack.fill(megabytes=megabytes)
            stack.sql("CHECKPOINT")
            database = f"{stack.size() >> 20} MiB"
            rows = plugin.measure_questions(stack, rounds * 2, "v2.1.0") if questions else []
            rows += backup_restore.measure(stack, rounds, database)
            return rows + upgrade.measure(stack, rounds, database)
        finally:
            stack.down()


def on_a_real_stack(old: str, new: str, rounds: int) -> list[Row]:
    """Return the rows of real releases of CHAP: the old one is asked and upgraded to the new one."""
    with tempfile.TemporaryDirectory() as folder:
        stack = RealStack.of(Path(folder), RELEASES[old], MENDED)
        try:
            stack.up(PATIENCE)
            stack.seed()
            database = f"{stack.size() >> 20} MiB"
            what = f", real {old} to {new}"
            rows = plugin.measure_questions(stack, rounds * 2, new, f", real {old}")
            return rows + upgrade.measure(stack, rounds, database, what, f"v{old}", f"v{new}")
        finally:
            stack.down()


def machine() -> str:
    """Say when and on what this was measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    engine = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout.strip()
    load = os.getloadavg()[0]
    return (
        f"{datetime.now().astimezone():%Y-%m-%d}; {os.cpu_count()} processors, {memory:.0f} GiB of memory,"
        f" Docker Engine {engine}, Python {platform.python_version()}, load average {load:.1f} at the end;"
    )


if __name__ == "__main__":
    main()
