"""Dumps that mean harm by how they are packed, by the functions in them, and by their size; dumps cut anywhere."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from compose_chap.errors import ChapError, DumpError
from compose_chap.postgres import dump_format
from compose_chap.postgres.server import Server
from compose_chap.postgres.untrusted import sandbox
from tests.e2e.archives import huge
from tests.e2e.calls import chap, server_crashed
from tests.e2e.test_restore import HOSTILE, assert_no_harm, dump, give, restore_beside
from tests.sample.stack import SampleStack


def zstd(content: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=content, capture_output=True, check=True).stdout


PACKED: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "zst": zstd}


@pytest.mark.parametrize(
    ("what", "packing"),
    [
        ("a large object", "gz"),
        ("a shell", "zst"),
        *(pytest.param(what, packing, marks=pytest.mark.torture) for what in HOSTILE for packing in PACKED),
    ],
)
def test_harm_that_is_packed_is_refused(unharmed: SampleStack, tmp_path: Path, what: str, packing: str) -> None:
    assert_no_harm(unharmed, tmp_path, what, PACKED[packing])


@pytest.fixture
def evil(small: SampleStack) -> Iterator[str]:
    """Give a database with one row in a table; a function looks at each row that comes in."""
    small.sql(f"CREATE DATABASE evil TEMPLATE template0 OWNER {small.user}", "postgres")
    yield "evil"
    small.sql("DROP DATABASE evil", "postgres")


MORE_HARM = (
    "SET SESSION AUTHORIZATION chap",
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/harm'",
    "ALTER ROLE chap PASSWORD 'mine'",
    "CREATE EXTENSION dblink SCHEMA public",
)


@pytest.mark.parametrize(
    "harm",
    [
        "SET ROLE chap",
        "SELECT lo_import('/etc/passwd')",
        *(pytest.param(harm, marks=pytest.mark.torture) for harm in MORE_HARM),
    ],
)
def test_a_function_that_is_trusted_has_no_power(unharmed: SampleStack, evil: str, tmp_path: Path, harm: str) -> None:
    unharmed.sql(
        "CREATE FUNCTION looks(a int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN"
        f" IF current_user LIKE 'docker%' THEN EXECUTE $harm${harm}$harm$; END IF; RETURN true; END $$;"
        "CREATE TABLE looked_at (a int CHECK (looks(a))); INSERT INTO looked_at VALUES (1)",
        evil,
    )
    with pytest.raises(DumpError, match="permission denied|must be|superuser"):
        restore_beside(unharmed, dump(unharmed, tmp_path, "custom", evil), trust=True)


@pytest.mark.torture
@pytest.mark.parametrize("packing", PACKED)
def test_a_bomb_is_put_out(
    unharmed: SampleStack, tmp_path: Path, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """See that a small file which unpacks to more than half of the room is stopped there."""
    path = tmp_path / "bomb"
    path.write_bytes(PACKED[packing](b"PGDMP" + b"\0" * (3 << 20)))
    # Unpacked on the server, or here where the server's image has no zstd.
    monkeypatch.setattr(Server, "free_space", lambda server, path="": 4 << 20)
    monkeypatch.setattr("shutil.disk_usage", lambda where: SimpleNamespace(free=4 << 20))
    with pytest.raises(DumpError, match="more than 2.0 MiB|too large"):
        restore_beside(unharmed, path)


@pytest.mark.parametrize("entries", [200_000, pytest.param(700_000, marks=pytest.mark.torture)])
def test_a_table_of_contents_of_any_length_takes_little_memory(
    unharmed: SampleStack, tmp_path: Path, entries: int
) -> None:
    """See that neither pg_restore nor this process takes more with more entries: the list ends, or the memory does."""
    path = tmp_path / "many.dump"
    with open(path, "wb") as file:
        subprocess.run(["zstd", "-qc"], input=b"".join(huge(entries)), stdout=file, check=True)
    tracemalloc.start()
    try:
        with pytest.raises(DumpError):
            restore_beside(unharmed, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # It was 64 MiB, from reading a journal with a limit of that size, whatever the number of entries.
    assert peak < 32 << 20
    assert not server_crashed(unharmed)


def test_as_many_entries_as_are_let_in_take_little_memory() -> None:
    size = 0
    lines: list[str] = []
    while size < sandbox._LONGEST_LISTING:
        lines.append(f"{len(lines) + 1}; 1259 {16384 + len(lines)} TABLE public t{len(lines)} chap\n")
        size += len(lines[-1])
    listing = "".join(lines)
    tracemalloc.start()
    try:
        contents = dump_format.contents(listing)
        assert len(contents.entries) == len(lines) > 40_000
        assert not contents.unexpected() and contents.without_privileges()
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["custom", "directory"])
def test_an_archive_of_a_newer_pg_dump_is_called_that(unharmed: SampleStack, tmp_path: Path, kind: str) -> None:
    path = dump(unharmed, tmp_path, kind)
    file = path / "toc.dat" if path.is_dir() else path
    content = bytearray(file.read_bytes())
    assert content[:6] == b"PGDMP\1"
    content[6] += 1
    file.write_bytes(content)
    with pytest.raises(DumpError, match=r"made by a newer pg_dump \(archive format 1\.\d+\)") as caught:
        restore_beside(unharmed, path)
    assert "Make it again with the pg_dump of this server's version" in caught.value.hint


def test_nothing_outside_of_a_folder_is_taken_in(unharmed: SampleStack, tmp_path: Path) -> None:
    path = dump(unharmed, tmp_path, "directory")
    rows = max((file for file in path.iterdir() if file.name != "toc.dat"), key=lambda item: item.stat().st_size)
    rows.unlink()
    rows.symlink_to("/etc/passwd")
    with pytest.raises(DumpError):
        restore_beside(unharmed, path)
    (path / "toc.dat").unlink()
    (path / "toc.dat").symlink_to("/etc/passwd")
    with pytest.raises(DumpError):
        restore_beside(unharmed, path)


def test_a_tar_archive_writes_nothing_outside_of_its_folder(unharmed: SampleStack, tmp_path: Path) -> None:
    path = dump(unharmed, tmp_path, "tar")
    with tarfile.open(path, "a") as archive:
        for name in ("../../../../tmp/harm", "/tmp/harm"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"harm"))
    try:
        restore_beside(unharmed, path)
    except DumpError:
        pass


@pytest.mark.torture
@pytest.mark.parametrize("kind", ["custom", "tar", "plain", "plain.gz", "custom.zst", "directory"])
def test_a_dump_cut_anywhere_is_refused(unharmed: SampleStack, tmp_path: Path, kind: str) -> None:
    path = dump(unharmed, tmp_path, kind)
    parts = sorted(path.iterdir(), key=lambda item: item.stat().st_size)[-1:] if path.is_dir() else [path]
    parts += [path / "toc.dat"] if path.is_dir() else []
    for part in parts:
        content = part.read_bytes()
        for percent in range(0, 100, 5):
            part.write_bytes(content[: len(content) * percent // 100])
            with pytest.raises(ChapError):
                restore_beside(unharmed, path)
        part.write_bytes(content)
    assert restore_beside(unharmed, path) == unharmed.checksum()
    assert not server_crashed(unharmed)


@pytest.mark.torture
def test_a_server_without_zstd_dumps_with_gzip(small: SampleStack) -> None:
    wrapper = """#!/bin/sh
case "$*" in *zstd*) echo "pg_dump: error: this build does not support compression with ZSTD" >&2; exit 1;; esac
exec "$0.real" "$@"
"""
    pg_dump = small.inside("sh", "-c", "command -v pg_dump").decode().strip()
    give(small, wrapper.encode(), "sh", "-c", 'mv "$1" "$1.real" && cat > "$1" && chmod 755 "$1"', "sh", pg_dump)
    try:
        made = chap(small, "backup")["backup"]
        assert made["dump"]["compression"] == "gzip:1"
        assert chap(small, "verify", made["id"])["proven_by"] == "read back"
        assert chap(small, "restore", made["id"], "--yes")["tables"] == made["tables"]
    finally:
        small.inside("mv", f"{pg_dump}.real", pg_dump)
