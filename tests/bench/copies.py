"""What a copy costs over a link: the bytes of the second night, in percent of the first, in three ways of sending.

Ours sends the dump as SQL; by hand the dump is sent as pg_dump writes it; beside them, a dump that is not compressed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from tests.bench.backup_restore import run
from tests.bench.table import Goal, Row
from tests.sample.stack import SampleStack, environment

Change = Callable[[SampleStack], None]
APPENDED = "1 % new rows"
CHANGED = "1 % changed rows, the newest"
SCATTERED = "1 % changed rows, all over the table"
# Where the changed rows lie all over a table, every piece of its dump is another, whoever cuts it.
_GOALS = {APPENDED: Goal(5), CHANGED: Goal(5)}


def _append(stack: SampleStack) -> None:
    stack.fill(rows=max(stack.counts()["observation"] // 100, 1))


def _change(stack: SampleStack) -> None:
    rows = stack.counts()["observation"]
    stack.sql(f"UPDATE observation SET value = value + 1 WHERE id > (SELECT max(id) FROM observation) - {rows // 100}")


def _scatter(stack: SampleStack) -> None:
    stack.sql("UPDATE observation SET value = value + 1 WHERE id % 100 = 7")


class _Ways:
    """Three repositories that get the same two nights."""

    def __init__(self, stack: SampleStack) -> None:
        self.stack = stack
        self.folder = stack.folder / "copies"
        self.folder.mkdir()
        self.password = self.folder / "password"
        self.password.write_text("of the measurement\n")

    def ours(self) -> float:
        to = ["--to", str(self.folder / "ours"), "--password-file", str(self.password), "--init"]
        run(self.stack, ["docker", "chap", "backup"])
        return self.sent("ours", lambda: run(self.stack, ["docker", "chap", "copy", *to]))

    def dump(self, name: str, *options: str) -> float:
        dump = self.folder / f"{name}.dump"
        tool = ["pg_dump", "-U", self.stack.user, "-Fc", *options, self.stack.database]
        run(self.stack, ["docker", "compose", "exec", "-T", self.stack.database_service, *tool], into=dump)
        self.restic(name, "init")
        return self.sent(name, lambda: self.restic(name, "backup", str(dump)))

    def sent(self, name: str, send: Callable[[], object]) -> float:
        """Return by how many bytes a repository grows, as restic packs and encrypts them."""
        before = self.size(name)
        send()
        return self.size(name) - before

    def size(self, name: str) -> float:
        return float(sum(path.stat().st_size for path in (self.folder / name).rglob("*") if path.is_file()))

    def restic(self, name: str, *words: str) -> str:
        variables = {"RESTIC_PASSWORD_FILE": str(self.password), "RESTIC_REPOSITORY": str(self.folder / name)}
        # A repository that is there already is not made once more, which restic counts as a failure.
        done = subprocess.run(
            ["restic", *words], env={**environment(), **variables}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or words[0] == "init", done.stderr
        return done.stdout

    def night(self) -> tuple[float, float, float]:
        """Return the bytes that a night costs in each way."""
        return self.ours(), self.dump("by-hand"), self.dump("not-compressed", "-Z0")


def measure(stack: SampleStack, database: str) -> list[Row]:
    """Return the rows of copies."""
    ways = _Ways(stack)
    first = ways.night()
    size = Row("copy: sent in the first night; limit: a dump that is not compressed", "MiB", database)
    size.ours, size.by_hand, size.limit = ([sent / 2**20] for sent in first)
    rows = [size]
    changes: dict[str, Change] = {APPENDED: _append, CHANGED: _change, SCATTERED: _scatter}
    for what, change in changes.items():
        change(stack)
        row = Row(f"copy: sent in a later night, after {what}; of the first", "%", database, _GOALS.get(what))
        row.ours, row.by_hand, row.limit = ([sent / before * 100] for sent, before in zip(ways.night(), first))
        rows.append(row)
    return rows
