"""What a backup holds of volumes and of model services, and how much room it is thought to need."""

from __future__ import annotations

import gzip
import io
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compose_chap.backups import backup, volumes
from compose_chap.backups.catalogue import Backup
from compose_chap.backups.manifest import DatabaseFacts, DumpPart, Manifest, VolumePart
from compose_chap.errors import DumpError
from compose_chap.model import Role
from tests.fakes import manifest

DATA = "/app/data/models.db"


def stopped(files: dict[str, bytes]) -> tuple[Any, Any]:
    """Return an engine and a stack with one model service, whose container is stopped and has these files."""

    def archive(identity: str, path: str) -> Iterator[bytes]:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as writer:
            member = tarfile.TarInfo(Path(path).name)
            member.size = len(files[path])
            writer.addfile(member, io.BytesIO(files[path]))
        yield packed.getvalue()

    container = SimpleNamespace(id="1", name="model-1", running=False)
    model = SimpleNamespace(name="model", containers=[container])
    engine = SimpleNamespace(archive=archive, changed_files=lambda identity: sorted(files), volumes=lambda identity: [])
    return engine, SimpleNamespace(writers=(), of=lambda role: (model,) if role is Role.MODEL else ())


def keep(files: dict[str, bytes], folder: Path) -> tuple[VolumePart, ...]:
    engine, stack = stopped(files)
    return volumes.pack_volumes(engine, stack, folder, lambda *args: None)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_what_a_killed_model_service_had_committed_is_in_its_copy(tmp_path: Path, mode: str) -> None:
    database = tmp_path / "live.db"
    with closing(sqlite3.connect(database)) as live:
        live.execute(f"PRAGMA journal_mode = {mode}")
        live.execute("CREATE TABLE configs (name)")
        live.executemany("INSERT INTO configs VALUES (?)", [("one",), ("two",)])
        live.commit()
        # Killed in the middle of a transaction that was written out already.
        live.execute("PRAGMA cache_size = 1")
        live.executemany("INSERT INTO configs VALUES (?)", [("x" * 1000,) for _ in range(500)])
        files = {f"{DATA}{path.name.removeprefix('live.db')}": path.read_bytes() for path in tmp_path.glob("live.db*")}
    assert f"{DATA}-{'wal' if mode == 'wal' else 'journal'}" in files
    (kept,) = keep(files, tmp_path)
    assert kept.path == DATA
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == ["model_app_data_models.db"]
    with closing(sqlite3.connect(f"file:{tmp_path / kept.file}?immutable=1", uri=True)) as copy:
        assert copy.execute("SELECT name FROM configs").fetchall() == [("one",), ("two",)]


def test_a_damaged_database_of_a_model_service_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DumpError, match="model-1"):
        keep({DATA: b"no database" * 100}, tmp_path)


def test_room_is_asked_for_by_what_earlier_backups_took() -> None:
    def facts(size: int, dump: int) -> Manifest:
        return manifest(database=DatabaseFacts("chap_core", size), dump=DumpPart("a.dump", dump, ""))

    def packed(*sizes: int) -> Backup:
        return Backup(Path("/b"), manifest(volumes=tuple(VolumePart("v", size, "") for size in sizes)))

    assert backup._ratio([facts(100, 10), facts(100, 20), None]) == 0.2
    assert backup._ratio([]) == backup._ratio([None]) == 0.35
    assert backup._packed_volumes([packed(3, 4), packed()]) == 7 and backup._packed_volumes([]) == 0


def test_volumes_are_measured_where_they_can_be() -> None:
    message = {"du -sk /data/runs": "40\t/data/runs\n", "du -sk /data/logs": "du: not found"}
    engine: Any = SimpleNamespace(
        volumes=lambda identity: [("p_logs", "/data/logs"), ("p_renv", "/renv"), ("p_runs", "/data/runs")],
        run=lambda identity, command: SimpleNamespace(stdout=message[" ".join(command)]),
    )
    services = [SimpleNamespace(name=name, containers=[SimpleNamespace(id=name, running=True)]) for name in ("a", "b")]
    stack: Any = SimpleNamespace(writers=services, of=lambda role: ())
    assert volumes.volumes_size(engine, stack) == 40 * 1024


def test_pieces_are_packed_into_a_single_gzip_stream() -> None:
    pieces = [b"a" * 100_000, b"", b"b"]
    packed = b"".join(volumes.gzipped(iter(pieces)))
    assert len(packed) < 1000 and gzip.decompress(packed) == b"".join(pieces)
    assert gzip.decompress(b"".join(volumes.gzipped(iter(())))) == b""


def test_a_volume_that_was_cut_short_is_damaged(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "whole.tar", "w") as archive:
        archive.add(__file__, "file")
    complete = b"".join(volumes.gzipped(iter([(tmp_path / "whole.tar").read_bytes()])))
    (tmp_path / "whole.tar.gz").write_bytes(complete)
    assert volumes.read_tar(tmp_path / "whole.tar.gz") == 1
    (tmp_path / "short.tar.gz").write_bytes(complete[: len(complete) // 2])
    with pytest.raises(DumpError, match="short.tar.gz cannot be read back"):
        volumes.read_tar(tmp_path / "short.tar.gz")
