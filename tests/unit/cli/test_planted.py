"""Something else where a file of ours is due, put there by anybody: no command hangs, follows it, or breaks."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compose_chap.cli import app
from tests.fakes import FakeEngine

NAMES = (
    ".docker-chap",
    ".docker-chap/journal.json",
    ".docker-chap/lock",
    ".docker-chap/runs",
    ".docker-chap/runs/20260101T000000Z.json",
    "backups",
    "backups/20260101T000000Z",
    "backups/20260101T000000Z/manifest.json",
)


def _sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(20 << 30)


def _of_others(path: Path) -> None:
    path.write_text("{}")
    path.chmod(0o666)


PLANTED: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a folder": Path.mkdir,
    "a link out": lambda path: path.symlink_to("/etc"),
    "a link to a file": lambda path: path.symlink_to("/etc/passwd"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("/no/such"),
    "20 GB": _sparse,
    "a file that all may write": _of_others,
    "no text": lambda path: path.write_bytes(os.urandom(3000)),
    "depth": lambda path: path.write_text("[" * 100_000),
}


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Fail instead of waiting for ever."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_stops_no_command(what: str, engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        path = engine.folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        PLANTED[what](path)
        before = Path("/etc/passwd").read_bytes(), sorted(os.listdir("/etc"))
        for words in (["backups"], ["history"], ["recover"], ["status"]):
            assert app.main([*words]) in (0, 1, 4, 5), (name, words, capsys.readouterr())
        assert (Path("/etc/passwd").read_bytes(), sorted(os.listdir("/etc"))) == before
        for folder in (".docker-chap", "backups"):
            top = engine.folder / folder
            shutil.rmtree(top) if top.is_dir() and not top.is_symlink() else top.unlink(missing_ok=True)
