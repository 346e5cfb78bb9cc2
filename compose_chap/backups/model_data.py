"""The SQLite databases that a model service has in its container, outside of volumes: read whole, and proven."""

from __future__ import annotations

import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from compose_chap.engine.engine import Engine
from compose_chap.errors import DumpError
from compose_chap.model import Container
from compose_chap.stack import chap_scripts

_SQLITE = re.compile(r"\.(db|sqlite3?)$")
# SQLite's files beside a database: changes that are not in it yet, or that it may have to undo.
_BESIDE = re.compile(r"-(wal|journal)$")

# A copy made by SQLite itself is consistent even while the model service writes.
_COPY_SQLITE = """
import sqlite3, sys, tempfile
with tempfile.NamedTemporaryFile() as file:
    source, copy = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True), sqlite3.connect(file.name)
    source.backup(copy)
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copy.close()
    with open(file.name, "rb") as written:
        while data := written.read(1 << 16):
            sys.stdout.buffer.write(data)
"""


def databases(engine: Engine, container: Container, folder: Path) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the path of each database in a container, and its content piece by piece.

    The files of a stopped container are put together in `folder`. Raise DumpError when a database is damaged.
    """
    changed = engine.changed_files(container.id)
    for path in sorted(filter(_SQLITE.search, {_BESIDE.sub("", name) for name in changed})):
        if container.running:
            yield path, _sqlite(engine, container, path)
        else:
            files = [path, *(name for name in changed if name != path and _BESIDE.sub("", name) == path)]
            yield path, _stopped_sqlite(engine, container, files, folder)


def _sqlite(engine: Engine, container: Container, path: str) -> Iterator[bytes]:
    with engine.execute(container.id, [*chap_scripts.PYTHON, _COPY_SQLITE, path]) as execution:
        yield from execution.output()
        if execution.status() != 0:
            stderr = execution.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise DumpError(
                f"The data of {container.name} ({path}) could not be copied: {stderr[-1]}",
                hint="Repair the model service, or leave its data out: docker chap backup",
            )


def _stopped_sqlite(engine: Engine, container: Container, files: list[str], folder: Path) -> Iterator[bytes]:
    """Copy the database of a stopped service, with committed changes that are still in a file beside it.

    The first of `files` is the database. SQLite merges all of them into a single file.
    """
    # Not every Python has sqlite3, and only this function needs it.
    import sqlite3

    with tempfile.TemporaryDirectory(dir=folder) as private:
        copy = Path(private, "data")
        for path in files:
            with open(f"{copy}{path.removeprefix(files[0])}", "wb") as written:
                written.writelines(_only_file(engine, container, path))
        try:
            with closing(sqlite3.connect(copy)) as database:
                intact = database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            intact = False
        if not intact:
            raise DumpError(
                f"The data of {container.name} ({files[0]}) are damaged, or not an SQLite database.",
                hint="Repair the model service, or leave its data out: docker chap backup",
            )
        with open(copy, "rb") as file:
            while data := file.read(1 << 16):
                yield data


def _only_file(engine: Engine, container: Container, path: str) -> Iterator[bytes]:
    class In:
        """The source of tarfile."""

        def __init__(self) -> None:
            self._pieces, self._rest = engine.archive(container.id, path), b""

        def read(self, size: int) -> bytes:
            while len(self._rest) < size and (data := next(self._pieces, b"")):
                self._rest += data
            data, self._rest = self._rest[:size], self._rest[size:]
            return data

    with tarfile.open(fileobj=In(), mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            if file := archive.extractfile(member):
                while data := file.read(1 << 16):
                    yield data
