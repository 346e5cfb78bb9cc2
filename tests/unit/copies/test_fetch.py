"""A copy that comes back: what is refused before it is written, and what is in its way. The rest needs a server."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from compose_chap.backups import catalogue, proof
from compose_chap.backups.catalogue import PIN_FILE
from compose_chap.backups.verdict import FILE as VERDICT
from compose_chap.copies import fetch
from compose_chap.copies.answers import Stored
from compose_chap.copies.catalogue import Copy
from compose_chap.errors import ChapError, CopyError, DumpError, StateError
from compose_chap.model import Origin
from compose_chap.records import lock

NOW = datetime(2026, 11, 28, 4, tzinfo=timezone.utc)
HERE = Origin("chap", "engine-1", "north")
COPY = Copy("20261128T010000Z", HERE, NOW, "f" * 64, "5" * 64, 10, "ab")


@dataclass
class FakeRestic:
    """Stands in for restic: what it stores, and what it writes when that is restored."""

    stored: Sequence[Stored]
    restored: bool = False
    sql: bytes = b""
    asked: list[str] = field(default_factory=list)

    def named(self, option: str) -> str:
        return f"{option} /mnt/usb"

    def contents(self, snapshot: str) -> Sequence[Stored]:
        return self.stored

    def restore(self, snapshot: str, target: Path) -> None:
        self.restored = True
        raise OSError(28, os.strerror(28))

    def read(self, snapshot: str, name: str) -> Iterator[bytes]:
        yield self.sql


class FakeWorld:
    """Only what is used before there is a server."""

    def notify(self, *words: Any) -> None:
        """Tell nobody."""


def brought(tmp_path: Path, *stored: Stored) -> FakeRestic:
    """Bring a copy that restic says to hold these files, which fails, and return restic."""
    restic = FakeRestic([Stored("/manifest.json", 5, "file"), *stored])
    with pytest.raises(ChapError) as caught:
        fetch.fetch(FakeWorld(), restic, COPY, tmp_path)  # type: ignore[arg-type]
    restic.asked.append(f"{caught.value.message} {caught.value.hint}")
    assert list(tmp_path.glob("2*")) == [] and isinstance(caught.value, (CopyError, StateError))
    return restic


@pytest.mark.parametrize("kind", ["symlink", "dev", "chardev", "fifo", "socket", "irregular", "anything"])
def test_nothing_is_written_of_a_copy_with_links_or_devices(tmp_path: Path, kind: str) -> None:
    restic = brought(tmp_path, Stored("/files/evil", 0, kind))
    assert not restic.restored and "damaged: /files/evil" in restic.asked[0]


@pytest.mark.parametrize("name", [PIN_FILE, VERDICT, "sending", "dump.sql"])
def test_nothing_is_written_of_a_copy_with_what_no_copy_has(tmp_path: Path, name: str) -> None:
    restic = brought(tmp_path, Stored(f"/{name}", 0, "file"))
    assert not restic.restored and f"damaged: /{name}" in restic.asked[0]


def test_all_that_comes_back_has_room_or_nothing_is_written(tmp_path: Path) -> None:
    restic = brought(tmp_path, Stored("/dhis2.dump", 1 << 60, "file"))
    assert not restic.restored and "Not enough room" in restic.asked[0] and "-o FOLDER" in restic.asked[0]


def test_a_disk_that_gets_full_meanwhile_is_this_machines(tmp_path: Path) -> None:
    restic = brought(tmp_path)
    assert restic.restored and f"Cannot write the copy into {tmp_path}" in restic.asked[0]
    assert "repository" not in restic.asked[0]


def test_more_sql_than_was_sent_is_not_read_to_its_end() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"12345"

    read = fetch._no_more(COPY, endless(), partial(fetch.damaged, COPY, "--from /mnt/usb"))
    assert next(read) + next(read) == b"1234512345"
    with pytest.raises(CopyError, match="damaged: its SQL") as caught:
        next(read)
    assert caught.value.hint.endswith("docker chap copies --from /mnt/usb")


def test_what_a_killed_run_left_goes_and_what_another_brings_stays(tmp_path: Path) -> None:
    left, used = tmp_path / f"{COPY.id}-abc.partial", tmp_path / f"drill-{COPY.id}-def.partial"
    for folder in (left, used):
        folder.mkdir(mode=0o700)
        (folder / "dump.sql").write_text("half")
    with (
        lock.claimed(used),
        fetch._unfinished(tmp_path, COPY.id) as path,
        fetch._unfinished(tmp_path, COPY.id) as other,
    ):
        assert not left.exists() and (used / "dump.sql").exists() and path != other
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


@dataclass(frozen=True)
class Local:
    """A backup in the folder of backups, as far as it is looked at."""

    folder: Path
    origin: Origin = HERE
    fault: str = ""
    id: str = COPY.id

    @property
    def project(self) -> str:
        return self.origin.project


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Local:
    """Give a sound backup of the copy's id in the folder of backups."""
    monkeypatch.setattr(proof, "check_sums", lambda world, backup: None)
    (tmp_path / COPY.id).mkdir()
    return known(Local(tmp_path / COPY.id), monkeypatch)


def known(backup: Local, monkeypatch: pytest.MonkeyPatch) -> Local:
    monkeypatch.setattr(catalogue, "load", lambda path: backup)
    return backup


def here(tmp_path: Path) -> object:
    return fetch.fetch(FakeWorld(), FakeRestic([]), COPY, tmp_path)  # type: ignore[arg-type]


def test_the_same_backup_that_is_here_is_not_brought_again(tmp_path: Path, local: Local) -> None:
    assert here(tmp_path) is local


def test_a_damaged_backup_is_not_taken_for_its_copy(
    tmp_path: Path, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: Any) -> None:
        raise DumpError("chap_core.dump is not what was written.")

    monkeypatch.setattr(proof, "check_sums", damaged)
    with pytest.raises(StateError, match="not what was written") as caught:
        here(tmp_path)
    assert f"mv {tmp_path / COPY.id} " in caught.value.hint
    monkeypatch.setattr(proof, "check_sums", lambda *_: None)
    known(replace(local, fault="It is missing a table."), monkeypatch)
    with pytest.raises(StateError, match="missing a table"):
        here(tmp_path)


def test_another_stacks_backup_of_the_same_second_is_not_taken_for_the_copy(
    tmp_path: Path, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(replace(local, origin=Origin("chap-test", "engine-1", "north")), monkeypatch)
    with pytest.raises(StateError, match="backup of 'chap-test' on north, not of 'chap' on north"):
        here(tmp_path)
