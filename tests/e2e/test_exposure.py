"""What others can see and what they can slip in: no secret in any command line or record, no name that is run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.calls import chap
from tests.e2e.faults import SECRETS, assert_no_secret
from tests.sample.stack import SampleStack

# What a careless shell would run, and what a careless reader of words would split.
TRAP = "$(touch hacked) `touch hacked`; touch hacked 'one\" \\two"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """Give a small stack in a folder with a hostile name, with secrets, and with a table that is hostile too."""
    result = SampleStack.create(tmp_path_factory.mktemp("exposure") / TRAP, settings=SECRETS)
    try:
        result.up()
        result.fill(rows=2_000)
        name = TRAP.replace('"', '""')
        result.sql(f'CREATE TABLE "{name}" ("{name}" int); INSERT INTO "{name}" VALUES (1)')
        yield result
    finally:
        result.down()


@contextmanager
def watched() -> Iterator[set[str]]:
    """Gather the command lines of all processes of this machine, those in containers too, while the block runs."""
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    seen.add(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            time.sleep(0.03)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


MORE = [("upgrade", "v2.1.0", "--yes"), ("restore", f"{TRAP}.dump", "--yes")]


@pytest.mark.parametrize("more", [[], pytest.param(MORE, marks=pytest.mark.torture)])
def test_all_main_commands_expose_no_secret_and_run_no_name(stack: SampleStack, more: list[tuple[str, ...]]) -> None:
    rows = stack.counts()
    assert rows[TRAP] == 1
    with watched() as seen:
        answers = [chap(stack, "backup", "--reason", TRAP), chap(stack, "verify", "latest")]
        answers.append(chap(stack, "backup", "--dump-only", f"{TRAP}.dump"))
        answers += [chap(stack, *words) for words in more]
        answers += [chap(stack, "status"), chap(stack, "history")]

    assert stack.counts()[TRAP] == 1 and set(rows) <= set(stack.counts())
    assert any("pg_dump" in line for line in seen) and any("compose" in line for line in seen)
    for secret in SECRETS.values():
        assert not [line for line in seen if secret in line]
        assert secret not in str(answers)
    assert_no_secret(stack, str(answers))
    hacked = [*stack.folder.parent.rglob("hacked"), *Path.cwd().glob("hacked")]
    inside = stack.docker("exec", f"{stack.project}-chap-postgres-1", "find", "/", "-xdev", "-name", "hacked")
    assert not hacked and not inside.stdout
