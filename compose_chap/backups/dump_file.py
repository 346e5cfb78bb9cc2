"""Write a dump to a file and prove it on the way: pg_restore reads the same bytes as they are written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from queue import Full, Queue
from typing import Any, BinaryIO

from compose_chap.backups.manifest import DatabaseFacts, Privilege, Setting
from compose_chap.engine.world import Notify
from compose_chap.errors import DumpError, StateError
from compose_chap.postgres import pg_tools
from compose_chap.postgres.server import Database, Server
from compose_chap.reading import open_file, unreadable
from compose_chap.records.files import disk_check, own_folder

# Pieces of a dump on their way to pg_restore: at most 4 MiB.
_MOST_AHEAD = 16

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Dumped:
    """A proven dump: its file (name, size, sha256, compression), rows of each table, and seconds of each part."""

    file: Mapping[str, Any]
    tables: Mapping[str, int]
    seconds: Mapping[str, float]


def dump_database(
    server: Server, database: str, folder: Path, *, clock: Clock, notify: Notify, detail: str = "dump"
) -> Dumped:
    """Dump a database into a new file in `folder`, prove it, and return its facts.

    The rows are counted in the snapshot that the dump is made from. Each piece goes to the file and to
    pg_restore, which reads the archive from its first byte to its last; and the disk must return the
    same bytes. Raise DatabaseError or DumpError when the file is not proven; OSError when the disk fails.
    """
    target = folder / f"{file_name(database)}.dump"
    begun = clock()
    compression = pg_tools.compression(server)

    with new_file(target) as file, disk_check.following(target) as disk:

        def progressed(done: int) -> None:
            disk.reached(done)
            notify("backup", detail, done, 0)

        written = _Hashed(file, progressed)
        tables = dump_into(server, database, compression, written.write)
        dumped = clock()
        notify("backup", f"read back {detail}", written.size, written.size)
        if disk.sha256(written.size) != written.sha256:
            raise DumpError(
                f"What was read back from {target.name} is not what was written to it.",
                hint="The disk may be failing. See what the kernel says: dmesg | tail",
            )
    proven = clock()
    return Dumped(
        {"file": target.name, "size": written.size, "sha256": written.sha256, "compression": compression},
        tables,
        {"dump": seconds(begun, dumped), "read_back": seconds(dumped, proven)},
    )


def dump_into(server: Server, database: str, compression: str, sink: Callable[[bytes], object]) -> dict[str, int]:
    """Write a dump to `sink` while pg_restore reads it, and return the rows of each table in it."""
    with pg_tools.snapshot(server, database) as moment:
        with _reading(server) as read:
            for data in pg_tools.dump(server, database, moment, compression):
                sink(data)
                read(data)
        return moment.counts()


@contextmanager
def _reading(server: Server) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that sends pieces to a pg_restore running in parallel, through a bounded queue.

    Raise DumpError at the end of the block when pg_restore could not read all of them.
    """
    ahead: Queue[bytes] = Queue(_MOST_AHEAD)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(pg_tools.read_to_end, server, iter(ahead.get, b""))

        def read(data: bytes) -> None:
            # If it ended early, reading.result() raises the reason.
            while not reading.done():
                with suppress(Full):
                    return ahead.put(data, timeout=0.2)

        try:
            yield read
        finally:
            read(b"")
        reading.result()


@contextmanager
def new_file(path: Path, *, anywhere: bool = False) -> Iterator[BinaryIO]:
    """Yield a new file, 0600, that is synced to disk when the block succeeds.

    Its folder must be our own, unless `anywhere`. Raise OSError, StateError.
    """
    with open(os.open(path, own_folder.NEW, 0o600) if anywhere else own_folder.new_file(path), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        # So that reading it back comes from the disk, not from the page cache.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, file: BinaryIO, progress: Callable[[int], None]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._progress = progress
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        self._digest.update(data)
        self.size += len(data)
        self._progress(self.size)


def write_hashed(path: Path, pieces: Iterator[bytes], progress: Callable[[int], None]) -> dict[str, Any]:
    """Write pieces to a new file; return its name, size and checksum."""
    with new_file(path) as file:
        written = _Hashed(file, progress)
        for data in pieces:
            written.write(data)
    return {"file": path.name, "size": written.size, "sha256": written.sha256}


def sha256_of(path: Path, progress: Callable[[int], None] = lambda done: None) -> str:
    """Return the SHA-256 of a file as hexadecimal text. Raise DumpError when it cannot be read."""
    digest, done = hashlib.sha256(), 0
    try:
        with open(open_file(path, DumpError, links=True), "rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
                done += len(data)
                progress(done)
    except OSError as error:
        raise unreadable(path, error, DumpError) from None
    return digest.hexdigest()


@contextmanager
def disk_errors(folder: Path, what: str = "backup", option: str = "-o FOLDER") -> Iterator[None]:
    """Turn errors of a full or broken disk into a StateError; the caller removes what was written.

    `what` is being written, and `option` is the one that writes it to another folder.
    """
    try:
        yield
    except OSError as error:
        raise StateError(
            f"Cannot write the {what} in {folder}: {error.strerror}.",
            state=f"The unfinished {what} was removed. The stack was not touched.",
            hint=f"Make room, or write elsewhere: docker chap backup {option}",
        ) from None


def facts_of(server: Server, database: Database) -> DatabaseFacts:
    """Return the facts of a database for a manifest: encoding, locale, owner, size, privileges, settings."""
    more = server.properties(database.name)
    facts = {key: value for key, value in vars(database).items() if key in DatabaseFacts.__dataclass_fields__}
    return DatabaseFacts(
        **facts,
        privileges=tuple(Privilege(**entry) for entry in more["privileges"]),
        settings=tuple(Setting(**entry) for entry in more["settings"]),
    )


def pieces(path: Path, progress: Callable[[int, int], None]) -> Iterator[bytes]:
    """Yield a file piece by piece, and tell `progress` how many bytes of how many are done."""
    size, done = path.stat().st_size, 0
    with open(path, "rb") as file:
        while data := file.read(1 << 18):
            yield data
            done += len(data)
            progress(done, size)


def seconds(begun: datetime, ended: datetime) -> float:
    """Return the seconds between two moments."""
    return round((ended - begun).total_seconds(), 3)


def file_name(text: str) -> str:
    """Return a safe file name for a name that comes from a database or an engine."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text).lstrip(".") or "_"
