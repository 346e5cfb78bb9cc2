"""What is written is read back from the disk while it grows, and a disk that returns something else is found out."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from compose_chap.errors import DumpError
from compose_chap.records.files import disk_check

SOME = os.urandom(1 << 20)


@pytest.mark.parametrize("pieces", [0, 1, 40])
def test_it_is_the_checksum_of_all_that_was_written(pieces: int, tmp_path: Path) -> None:
    path, digest = tmp_path / "dump", hashlib.sha256()
    with open(path, "wb", buffering=0) as file, disk_check.following(path) as disk:
        for number in range(1, pieces + 1):
            file.write(SOME)
            digest.update(SOME)
            disk.reached(number * len(SOME))
        file.write(b"the end")
        digest.update(b"the end")
        assert disk.sha256(pieces * len(SOME) + 7) == digest.hexdigest()


def test_another_byte_in_a_stretch_that_was_read_early_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    with open(path, "wb", buffering=0) as file, disk_check.following(path) as disk:
        file.write(SOME * 20)
        os.pwrite(file.fileno(), bytes([SOME[3] ^ 1]), 3)
        disk.reached(20 << 20)
        assert disk.sha256(20 << 20) != hashlib.sha256(SOME * 20).hexdigest()


def test_a_short_file_is_no_backup(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    with open(path, "wb", buffering=0) as file, disk_check.following(path) as disk:
        file.write(b"cut")
        with pytest.raises(DumpError, match="shorter"):
            disk.sha256(100)


def test_a_disk_that_does_not_take_it_is_an_error_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    path = tmp_path / "dump"
    with open(path, "wb", buffering=0) as file, disk_check.following(path) as disk:
        file.write(b"all")
        with pytest.raises(OSError, match="No space left"):
            disk.sha256(3)
