"""A folder that is given as a dump may hold anything."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from compose_chap.errors import DumpError
from compose_chap.postgres.dump_format import Kind, contents
from compose_chap.restore import source


def packed(folder: Path) -> dict[str, bytes]:
    """Return what of a folder would be sent to the server."""
    stream = io.BytesIO()

    def send(data: bytes) -> None:
        stream.write(data)

    source._pack(folder, send, lambda done: None)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        return {member.name: reader.read() for member in archive if (reader := archive.extractfile(member))}


def test_only_files_of_a_folder_are_taken_in(tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff\n'$(x)'")
    for name in ("toc.dat", "1.dat", odd):
        (tmp_path / name).write_bytes(b"PGDMP")
    (tmp_path / "nowhere").symlink_to("/no/such/file")
    (tmp_path / "outside").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "below").mkdir()
    os.mkfifo(tmp_path / "fifo")
    dump = source.recognise(str(tmp_path), [tmp_path / "backups"])
    assert dump.kind is Kind.DIRECTORY and dump.size == 15
    assert packed(tmp_path) == dict.fromkeys(("1.dat", "toc.dat", odd), b"PGDMP")


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toc.dat").write_bytes(b"PGDMP")
    real = os.fstat

    def larger(descriptor: int) -> os.stat_result:
        status = list(real(descriptor))
        status[6] += 5
        return os.stat_result(status)

    monkeypatch.setattr("compose_chap.restore.source.os.fstat", larger)
    with pytest.raises(DumpError, match="cannot be read: unexpected end of data"):
        packed(tmp_path)


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\x0b", "\x0c", "\x1c", "\u2029"])
def test_a_name_in_a_table_of_contents_makes_no_line_of_its_own(end: str) -> None:
    line = f"5; 1259 16385 TABLE public a{end}6; 1255 16386 FUNCTION public b() chap"
    (entry,) = contents(f"; comment\n{line}\n").entries
    assert entry.kind == "TABLE" and entry.line == line
