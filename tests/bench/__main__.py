"""Measure everything, print one table, and write it to build/out/bench with the date, the machine, and time lines.

    . build/out/env.sh
    build/out/venv/bin/python -m tests.bench [--sizes 56 560] [--rounds 3] [--real 2.1.0 2.5.1] [--large 5000] [--docs]

With --real, images of real releases are needed too: python -m tests.real.images
With --docs, the table and the pictures come into docs/measurements.md too.

On two quiet processors this takes about a quarter of an hour, half of it for the larger size; --large 5000 as long
again.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from tests.bench import backup_restore, copies, pictures, plugin, upgrade
from tests.bench.table import Row, markdown
from tests.real.releases import RELEASES
from tests.real.roads import MENDED
from tests.real.stack import PATIENCE, RealStack
from tests.sample.stack import SampleStack, environment

DOCS, FOLDER = Path(__file__).resolve().parents[2] / "docs", "measurements"
# Between these, docs/measurements.md has what was measured last.
BEGIN, END = "<!-- measured -->\n", "<!-- end -->\n"


def main() -> None:
    """Measure at the sizes that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="+", default=[56, 560], help="megabytes of each database")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=float, metavar="MB", help="upgrade twice with a database of this size too")
    parser.add_argument("--real", nargs=2, metavar="VERSION", help="upgrade a real CHAP from one version to another")
    parser.add_argument("--docs", action="store_true", help="write table and pictures into docs/ too")
    options = parser.parse_args()
    rows = plugin.measure(options.rounds * 5)
    for size in options.sizes:
        # What the real CHAP is measured with need not be measured with the sample.
        rows += on_a_stack(size, options.rounds, large=size == max(options.sizes), alone=not options.real)
    if options.real:
        rows += on_a_real_stack(options.real[0], options.real[1], options.rounds)
    if options.large:
        rows += on_a_large_stack(options.large)
    order = [row.what for row in rows]
    rows.sort(key=lambda row: order.index(row.what))  # both sizes of one thing stand together
    text = f"{machine()} {options.rounds} rounds; median (lowest to highest).\n\n{markdown(rows)}\n"
    pictures.FOLDER.mkdir(exist_ok=True)
    (pictures.FOLDER / "bench.md").write_text(text)
    pictures.write(pictures.FOLDER)
    if options.docs:
        into_docs(text)
    print(text, end="")


def into_docs(text: str) -> None:
    """Write a table, and the pictures of the time lines, into docs/measurements.md."""
    page = DOCS / "measurements.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    drawn = [f"![Time line of docker chap {path.stem}]({FOLDER}/{path.name})" for path in pictures.write(DOCS / FOLDER)]
    page.write_text(f"{before}{BEGIN}\n{text}\n" + "\n\n".join(drawn) + f"\n{END}{after}")


def on_a_stack(megabytes: float, rounds: int, *, large: bool, alone: bool) -> list[Row]:
    """Return the rows of one size; `alone` says that no real CHAP is asked and upgraded."""
    with tempfile.TemporaryDirectory() as folder:
        stack = SampleStack.create(Path(folder))
        try:
            stack.up()
            stack.fill(megabytes=megabytes)
            stack.sql("CHECKPOINT")
            database = f"{stack.size() >> 20} MiB"
            rows = plugin.measure_questions(stack, rounds * 2, "v2.1.0") if alone and not large else []
            rows += backup_restore.measure(stack, rounds, database, large=large)
            rows += copies.measure(stack, database) if large else []
            return rows + (upgrade.measure(stack, rounds, database) if alone else [])
        finally:
            stack.down()


def on_a_large_stack(megabytes: float) -> list[Row]:
    """Return the rows of two upgrades of the sample's CHAP with a large database; only the forecast has a goal."""
    with tempfile.TemporaryDirectory() as folder:
        stack = SampleStack.create(Path(folder))
        try:
            stack.up()
            stack.fill(megabytes=megabytes)
            stack.sql("CHECKPOINT")
            rows = upgrade.measure(stack, 2, f"{stack.size() / 2**30:.1f} GiB", ", a large database")
            return [row if row.goal and row.goal.least else replace(row, goal=None) for row in rows]
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
