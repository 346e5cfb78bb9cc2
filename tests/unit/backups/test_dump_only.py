"""A dump alone: one that is named is whole, however many write it, and nothing of a killed one stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compose_chap.backups import dump_only
from compose_chap.backups.dump_only import DumpOnly
from compose_chap.errors import DumpError, StateError
from compose_chap.records import lock

MADE = DumpOnly({}, 1, (), ())


def write(target: Path, monkeypatch: pytest.MonkeyPatch, into: Callable[[Callable[[bytes], object]], None]) -> None:
    """Write a dump as `into` does it."""

    def made(engine: Any, stack: Any, sink: Callable[[bytes], object], notify: Any) -> DumpOnly:
        into(sink)
        return MADE

    monkeypatch.setattr(dump_only, "into", made)
    unused: Any = None
    dump_only.into_file(unused, unused, target, unused)


def test_two_runs_with_the_same_target_publish_only_complete_dumps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a[1].dump"

    def second(sink: Callable[[bytes], object]) -> None:
        sink(b"second, half")
        raise DumpError("It is not whole.")

    def first(sink: Callable[[bytes], object]) -> None:
        sink(b"first, ")
        with pytest.raises(DumpError):
            write(target, monkeypatch, second)
        sink(b"whole")

    write(target, monkeypatch, first)
    assert target.read_bytes() == b"first, whole" and list(tmp_path.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o600


def test_only_abandoned_partial_dumps_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = (".a.dump.1.partial", ".a.dump.2.partial", ".b.dump.1.partial")
    killed, live, other = (tmp_path / name for name in names)
    for path in (killed, live, other):
        path.write_bytes(b"half")
    with lock.claimed(live):
        write(tmp_path / "a.dump", monkeypatch, lambda sink: None)
    assert not killed.exists() and live.exists() and other.exists()


def test_an_unwritable_folder_is_reported_for_a_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StateError, match="Cannot write the dump in") as raised:
        write(tmp_path / "missing" / "a.dump", monkeypatch, lambda sink: None)
    assert "dump was removed" in raised.value.state and raised.value.hint.endswith("--dump-only FILE")
