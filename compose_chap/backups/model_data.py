"""The SQLite databases that a model service keeps in its container and in no volume: read whole, and proven."""

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
# What SQLite keeps beside a database: changes that are not in it yet, or what to undo in it.
_BESIDE = re.compile(r"-(wal|journal)$")

# A copy that SQLite itself makes is whole also while the model service writes.
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

    What a stopped one needs to be put together lies in `folder` meanwhile. Raise DumpError when one is damaged.
    """
    changed = engine.changed_files(container.id)
    for place in sorted(filter(_SQLITE.search, {_BESIDE.sub("", name) for name in changed})):
        if container.running:
            yield place, _sqlite(engine, container, place)
        else:
            files = [place, *(name for name in changed if name != place and _BESIDE.sub("", name) == place)]
            yield place, _stopped_sqlite(engine, container, files, folder)


def _sqlite(engine: Engine, container: Container, place: str) -> Iterator[bytes]:
    with engine.execute(container.id, [*chap_scripts.PYTHON, _COPY_SQLITE, place]) as execution:
        yield from execution.output()
        if execution.status() != 0:
            said = execution.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise DumpError(
                f"The data of {container.name} ({place}) could not be copied: {said[-1]}",
                hint="Mend the model service, or leave its data out: docker chap backup",
            )


def _stopped_sqlite(engine: Engine, container: Container, files: list[str], folder: Path) -> Iterator[bytes]:
    """Copy a database whose service stands still, with what was committed and lies in a file beside it still.

    The first of `files` is the database. SQLite puts all into one file, as a running service has it done.
    """
    # Not every Python has it, and only this needs it.
    import sqlite3

    with tempfile.TemporaryDirectory(dir=folder) as private:
        copy = Path(private, "data")
        for place in files:
            with open(f"{copy}{place.removeprefix(files[0])}", "wb") as written:
                written.writelines(_only_file(engine, container, place))
        try:
            with closing(sqlite3.connect(copy)) as database:
                whole = database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            whole = False
        if not whole:
            raise DumpError(
                f"The data of {container.name} ({files[0]}) are damaged, or no SQLite database.",
                hint="Mend the model service, or leave its data out: docker chap backup",
            )
        with open(copy, "rb") as file:
            while data := file.read(1 << 16):
                yield data


def _only_file(engine: Engine, container: Container, place: str) -> Iterator[bytes]:
    class In:
        """Where tarfile reads from."""

        def __init__(self) -> None:
            self._pieces, self._rest = engine.archive(container.id, place), b""

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
