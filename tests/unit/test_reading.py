"""The strict reader: whatever does not fit is one clear error, never a traceback, a wait or memory without bound."""

from __future__ import annotations

import json
import os
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from compose_chap import reading
from compose_chap.errors import DumpError
from compose_chap.reading import Value


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """End a test that waits for something that never comes."""
    signal.alarm(20)
    yield
    signal.alarm(0)


def value(data: Any) -> Value:
    return reading.parse(json.dumps({"a": {"b": data}}), "x/manifest.json", DumpError).at("a").at("b")


@pytest.mark.parametrize(
    ("data", "ask", "why"),
    [
        (None, Value.text, "is not text"),
        (7, Value.text, "is not text"),
        (["x"], Value.text, "is not text"),
        ("a\0b", Value.text, "text that cannot be written"),
        ("\ud800", Value.text, "text that cannot be written"),
        ("", Value.filled, "is empty"),
        ("7", Value.integer, "is not a whole number"),
        (True, Value.integer, "is not a whole number"),
        (7.0, Value.integer, "is not a whole number"),
        (-1, Value.integer, "is not between 0 and"),
        (2**63, Value.integer, "is not between 0 and"),
        (False, Value.number, "is not a number"),
        ("1", Value.number, "is not a number"),
        (1e300, Value.number, "is not between 0 and"),
        (10**400, Value.number, "is not between 0 and"),
        (1, Value.flag, "is neither true nor false"),
        ("yesterday", Value.moment, "is not a time such as"),
        ("2026-11-23T04:15:00", Value.moment, "is a time without a zone"),
        ("0001-01-01T00:00:00+00:00", Value.moment, "not a time that a clock can show"),
        ("9999-12-31T23:59:59-12:00", Value.moment, "not a time that a clock can show"),
        (0, Value.moment, "is not text"),
        ("/etc/passwd", Value.file, "outside of its folder"),
        ("../x", Value.file, "outside of its folder"),
        ("files/../../x", Value.file, "outside of its folder"),
        (".", Value.file, "outside of its folder"),
        ("", Value.file, "is empty"),
        ("x", Value.members, "is not an object"),
        (["x"], lambda item: item.at("c"), "is not an object"),
        ({}, lambda item: item.at("c"), "is missing"),
        ({"\ud800": 1}, Value.members, "has a name that is not text"),
        ("xyz", lambda item: list(item.items()), "is not a list"),
        ({"x": 1}, lambda item: list(item.items()), "is not a list"),
        (["x", 1], Value.texts, "is not text"),
        ([1] * 11, lambda item: list(item.items(10)), "has more than 10 entries"),
        ("x" * 11, lambda item: item.text(10), "has more than 10 letters"),
    ],
)
def test_what_does_not_fit_is_named_with_its_document_and_field(
    data: Any, ask: Callable[[Value], Any], why: str
) -> None:
    with pytest.raises(DumpError) as failed:
        ask(value(data))
    assert failed.value.message.startswith("x/manifest.json cannot be used: a.b")
    assert why in failed.value.message


def test_what_fits_is_returned() -> None:
    known = value({"t": "é", "n": 3, "f": 1.5, "b": False, "l": ["x"], "w": "2026-11-23T04:15:00+00:00", "z": None})
    assert (known.at("t").text(), known.at("n").integer(), known.at("f").number()) == ("é", 3, 1.5)
    assert known.at("b").flag() is False
    assert known.at("l").texts() == ("x",)
    assert known.at("w").moment() == datetime(2026, 11, 23, 4, 15, tzinfo=timezone.utc)
    assert known.get("z") is None
    assert known.get("missing") is None
    assert value("files/a b/.env").file() == "files/a b/.env"
    assert [item.field for item in value([1, 2]).items()] == ["a.b[0]", "a.b[1]"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 60 + b"1" + b"}" * 60,
        b"[" + b"1," * 1000 + b"1]",
    ],
)
def test_what_is_no_document_is_refused(content: bytes) -> None:
    limit = 1000 if content.startswith(b"[1") else reading.LARGEST
    with pytest.raises(DumpError, match="x cannot be used: it is "):
        reading.parse(content, "x", DumpError, limit)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    assert reading.read_file(tmp_path / "file", 7, DumpError) == b"content"
    for name, why in (
        ("link", "it is a link"),
        ("loop", "it is a link"),
        ("fifo", "is a FIFO, not a file"),
        (".", "is a folder, not a file"),
        ("a\0b", "a name that no file can have"),
    ):
        with pytest.raises(DumpError, match=why):
            reading.read_file(tmp_path / name, 100, DumpError)
    assert reading.read_file(tmp_path / "link", 7, DumpError, links=True) == b"content"
    with pytest.raises(DumpError, match="is larger than 6 bytes"):
        reading.read_file(tmp_path / "file", 6, DumpError)
    with pytest.raises(FileNotFoundError):
        reading.read_file(tmp_path / "missing", 6, DumpError)


def test_a_device_is_no_file_but_nothing_is_nothing() -> None:
    for name in ("/dev/zero", "/dev/tty", "/dev/full"):
        with pytest.raises(DumpError, match="a device|cannot be read"):
            reading.read_file(name, 100, DumpError)
    assert reading.read_file("/dev/null", 100, DumpError) == b""


def test_a_file_is_read_relative_to_an_open_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"this")
    folder = os.open(tmp_path / "a", os.O_RDONLY | os.O_DIRECTORY)
    try:
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "file").write_bytes(b"another")
        assert reading.read_file("file", 100, DumpError, within=folder) == b"this"
    finally:
        os.close(folder)


def test_a_file_without_end_takes_no_memory_without_end(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(1 << 40)
    tracemalloc.start()
    with pytest.raises(DumpError, match="is larger than"):
        reading.read_document(tmp_path / "large", DumpError, limit=1 << 20)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o620, 0o602, 0o666])
def test_own_is_what_nobody_else_may_write(tmp_path: Path, mode: int) -> None:
    (tmp_path / "file").write_bytes(b"{}")
    (tmp_path / "file").chmod(mode)
    if mode & 0o022:
        with pytest.raises(DumpError, match=f"may be written by others .mode 0{mode:o}"):
            reading.read_file(tmp_path / "file", 10, DumpError, own=True)
    else:
        assert reading.read_file(tmp_path / "file", 10, DumpError, own=True) == b"{}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_own_is_what_belongs_to_this_user_or_root(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"{}")
    os.chown(tmp_path / "file", 54321, 54321)
    with pytest.raises(DumpError, match="belongs to another user .54321."):
        reading.read_file(tmp_path / "file", 10, DumpError, own=True)


def test_a_small_file_takes_little_memory_whatever_the_limit(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x" * 1000)
    tracemalloc.start()
    try:
        assert reading.read_file(tmp_path / "small", 64 << 20, DumpError) == b"x" * 1000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_where_permission_is_missing_another_file_is_no_help() -> None:
    refused = reading.unreadable("/root/x.dump", PermissionError(13, "Permission denied"), DumpError)
    assert refused.message == "/root/x.dump cannot be read: Permission denied."
    assert refused.hint == "Run it as root, or with sudo."
    assert "docker chap backups" in reading.unreadable("x.dump", EOFError("It ends too early"), DumpError).hint
