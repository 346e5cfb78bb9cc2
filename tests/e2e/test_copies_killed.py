"""A copy, and a restore from a copy, killed at any moment."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e import repositories
from tests.e2e.calls import chap, kill, plugin_process, started
from tests.e2e.repositories import Store
from tests.sample.stack import SampleStack

pytestmark = pytest.mark.torture


@pytest.fixture
def store(small: SampleStack, tmp_path: Path) -> Iterator[Store]:
    """Give a folder for copies, with a copy of an earlier backup."""
    with repositories.folder(tmp_path) as store:
        chap(small, "backup")
        chap(small, "copy", *to(store), "--init")
        yield store


def to(store: Store) -> tuple[str, ...]:
    return ("--to", store.location, *store.words)


def from_(store: Store) -> tuple[str, ...]:
    return ("--from", store.location, *store.words)


def killed_after(stack: SampleStack, seconds: float, *words: str) -> bool:
    """Start a command and kill it after some time; return whether it had ended before."""
    with started(stack, *words) as child:
        # Read, or it would stand still when the pipe is full.
        assert child.stderr is not None
        time.sleep(seconds)
        if child.poll() is not None:
            return True
        try:
            plugin_process(child)
        except IndexError:
            return True
        kill(child)
        return False


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """Let a backup be lost while the block runs, and what came in its place be gone after it."""
    kept = folder.rename(folder.parent.with_name("away"))
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        kept.rename(folder)


def test_a_copy_killed_at_any_moment(small: SampleStack, store: Store) -> None:
    backup = chap(small, "backup")["backup"]
    earlier = chap(small, "copies", *from_(store))["copies"]
    ended, moment = False, 0.3
    while not ended:
        ended = killed_after(small, moment, "copy", *to(store))
        listed = chap(small, "copies", *from_(store))["copies"]
        assert listed[:1] == earlier and [item["id"] for item in listed[1:]] in ([], [backup["id"]])
        moment += 0.7
    chap(small, "copy", *to(store))
    assert chap(small, "verify", backup["id"], *from_(store))["tables"] == backup["tables"]
    assert not (Path(backup["folder"]) / "sending").exists()


def test_a_restore_from_a_copy_killed_at_any_moment(small: SampleStack, store: Store) -> None:
    backup = chap(small, "backups")["backups"][-1]
    rows = small.checksum()
    folder = Path(backup["folder"])
    with away(folder):
        ended, moment = False, 1.0
        while not ended:
            shutil.rmtree(folder, ignore_errors=True)
            ended = killed_after(small, moment, "restore", "latest", "--yes", *from_(store))
            subprocess.run(["docker", "chap", "recover", "--yes"], cwd=small.folder, capture_output=True, check=False)
            assert small.checksum() == rows
            for listed in chap(small, "backups")["backups"]:
                assert json.loads((Path(listed["folder"]) / "manifest.json").read_text())["id"] == listed["id"]
                assert (Path(listed["folder"]) / "dump.sql").exists() is False
            moment += 2.0
        chap(small, "verify", *from_(store))
        assert not list(folder.parent.glob("*.partial"))
