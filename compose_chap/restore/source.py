"""The source of a restore: found, recognised by its content, and copied into the database's container."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import IO, BinaryIO, cast

from compose_chap import units
from compose_chap.backups import catalogue
from compose_chap.backups.catalogue import Backup
from compose_chap.errors import DatabaseError, DumpError, EngineError, StateError
from compose_chap.model import Origin
from compose_chap.postgres import dump_format
from compose_chap.postgres.dump_format import Contents, Kind, Packing
from compose_chap.postgres.server import Server
from compose_chap.postgres.untrusted import unexpected
from compose_chap.postgres.untrusted.sandbox import Quarantine
from compose_chap.processes import process
from compose_chap.reading import unreadable
from compose_chap.records import order

# The size of the restored database relative to the compressed dump, with indexes.
_UNPACKED = 8
_MARGIN = 1.2
_READ = 1 << 18
# Bytes to read, so that text which a tool wrote before the dump is seen.
_HEAD = 1 << 16


@dataclass(frozen=True)
class Source:
    """What to restore: a file or folder, its kind of dump, and the backup it belongs to, if any."""

    path: Path
    kind: Kind
    packing: Packing
    backup: Backup | None = None
    # A note for each newer backup that `latest` skipped because of a fault.
    skipped: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes to copy to the server."""
        if self.path.is_dir():
            return sum(part.stat().st_size for part in _parts(self.path))
        return self.path.stat().st_size

    @property
    def name(self) -> str:
        """Its name for people."""
        return f"backup {self.backup.id}" if self.backup else str(self.path)

    @property
    def location(self) -> Path:
        """The folder of the backup, or the dump alone."""
        return self.backup.folder if self.backup else self.path

    @property
    def version(self) -> str:
        """The version of CHAP that it was made by, empty when unknown."""
        return self.backup.manifest.chap.version if self.backup else ""


def dump_alone(wanted: str) -> Source | None:
    """Return the dump that this path names, a file or a folder of pg_dump's; None where it names neither.

    Raise DumpError for a file that is empty or not a dump.
    """
    path = Path(wanted)
    if path.is_file():
        return _recognise_file(path)
    return Source(path, Kind.DIRECTORY, Packing.NONE) if (path / "toc.dat").is_file() else None


def recognise(wanted: str, folders: Sequence[Path], origin: Origin = Origin()) -> Source:
    """Return the source that the operator means: a backup's id, `latest`, its folder, or any dump file or folder.

    Raise DumpError when it is missing, empty, or not a dump.
    """
    if dump := dump_alone(wanted):
        return dump
    backup = catalogue.find(wanted, folders, origin, sound=True, or_file=True)
    skipped = skipped_newer(wanted, backup, folders, origin)
    return replace(_recognise_file(backup.dump), backup=backup, skipped=tuple(skipped))


def skipped_newer(wanted: str, used: Backup, folders: Sequence[Path], origin: Origin) -> list[str]:
    """Return a note for each newer backup that `latest` skipped or may not see; empty when the backup was named."""
    if wanted != "latest":
        return []
    newer = [backup for backup in catalogue.scan(folders, origin).backups if backup.order > used.order]
    notes = [f"Backup {backup.id} is newer, but was skipped. {backup.fault}" for backup in newer]
    for folder in folders:
        try:
            if not catalogue.list_backups([folder]) and folder in folders[1:]:
                notes.append(f"The schedule puts backups in {folder}, but there are none now. Is its disk connected?")
        except StateError as error:
            notes.append(f"{error.message} A newer backup may be there.")
    return notes


def notes(source: Source, origin: Origin, now: datetime) -> list[str]:
    """Return notes on a source for the operator."""
    made = source.backup
    messages = list(source.skipped)
    messages += order.warnings("Backup", {made.id: made.created_at} if made else {}, now)
    if made and made.fault:
        messages.append(f"Do not rely on this backup. {made.fault}")
    if made and not origin.owns(made.origin):
        messages.append(f"This backup is from another stack, {made.origin}. Its data replace those of {origin}.")
    return messages


def _recognise_file(path: Path) -> Source:
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            packing = dump_format.packing(head, str(path))
        if packing is Packing.GZIP:
            with gzip.open(path) as unpacked:
                head = unpacked.read(_HEAD)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error, DumpError) from None
    # The content of a Zstandard file is known only after the database's container has unpacked it.
    kind = Kind.CUSTOM if packing is Packing.ZSTD else dump_format.kind(head, str(path))
    return Source(path, kind, packing)


def check_room(source: Source, server: Server) -> None:
    """Raise DatabaseError when the server has no room for the dump and the side database."""
    size = source.size
    database = source.backup.manifest.database.size if source.backup else size * _UNPACKED
    if source.kind is Kind.PLAIN and source.packing is Packing.NONE:
        # Three times: in the jail, as the archive from it, and as the side database.
        database = size * 4
    needed = int((size + database) * _MARGIN)
    free = min(server.free_space(), server.free_space("/tmp") + database)
    if free < needed:
        raise DatabaseError(
            f"The database's disk has no room for a second database: about {units.size(needed)} are needed,"
            f" {units.size(free)} are free.",
            state="Nothing was changed.",
            hint="Make room: docker chap prune, docker image prune",
        )


def bring(source: Source, quarantine: Quarantine, progress: Callable[[int], None]) -> tuple[Kind, str]:
    """Copy the dump into the server's container and unpack it there; return its kind and path.

    Plain SQL is not copied unless it must be unpacked there: it is streamed to a jail.
    """
    if source.kind is Kind.PLAIN and source.packing is not Packing.ZSTD:
        return Kind.PLAIN, ""
    if source.kind is Kind.DIRECTORY:
        with quarantine.receiving("directory.tar") as (path, send):
            _pack(source.path, send, progress)
        return Kind.DIRECTORY, quarantine.unpack_directory(path)

    if source.packing is Packing.ZSTD and not quarantine.has("zstd"):
        with tempfile.TemporaryFile() as unpacked_here:
            _unpack_locally(source, unpacked_here)
            path = quarantine.upload(unpacked_here, "dump", progress)
        return dump_format.kind(quarantine.head(path), str(source.path)), path
    with open(source.path, "rb") as file:
        path = quarantine.upload(file, "dump", progress)
    if source.packing is Packing.NONE:
        return source.kind, path
    unpacked = quarantine.unpack("gzip" if source.packing is Packing.GZIP else "zstd", path)
    return dump_format.kind(quarantine.head(unpacked), str(source.path)), unpacked


def _unpack_locally(source: Source, target: BinaryIO) -> None:
    limit = shutil.disk_usage(tempfile.gettempdir()).free // 2
    bounded = ["sh", "-c", 'trap "" XFSZ; ulimit -f "$1"; exec zstd -dc -- "$2"', "sh", dump_format.blocks(limit)]
    try:
        process.run_into([*bounded, str(source.path)], target)
    except EngineError as error:
        raise DumpError(
            f"{source.path} cannot be unpacked: {error.message}",
            hint=f"Unpack it yourself (zstd -d {source.path}), then restore what comes out.",
        ) from None
    target.seek(0)


def _pack(folder: Path, send: Callable[[bytes], None], progress: Callable[[int], None]) -> None:
    done = 0

    def write(data: bytes) -> None:
        nonlocal done
        send(data)
        done += len(data)
        progress(done)

    stream = cast("IO[bytes]", SimpleNamespace(write=write))
    try:
        with tarfile.open(fileobj=stream, mode="w|", bufsize=_READ) as archive:
            for path in _parts(folder):
                member = tarfile.TarInfo(path.name)
                with open(path, "rb") as file:
                    member.size = os.fstat(file.fileno()).st_size
                    archive.addfile(member, file)
    except (OSError, ValueError) as error:
        raise unreadable(folder, error, DumpError) from None


def _parts(folder: Path) -> list[Path]:
    """Return the files of a directory dump. It is flat: subfolders, links and what is no file are ignored."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())


def pieces(source: Source, quarantine: Quarantine, path: str, progress: Callable[[int], None]) -> Iterator[bytes]:
    """Yield a plain dump piece by piece, from this machine or from where `bring` unpacked it."""
    if path:
        yield from quarantine.pieces(path)
        return
    try:
        with open(source.path, "rb") as packed:
            file = gzip.open(packed) if source.packing is Packing.GZIP else packed
            while data := file.read(_READ):
                yield data
                progress(packed.tell())
    except (OSError, EOFError, zlib.error) as error:
        raise DumpError(f"{source.path} is damaged: {error}.") from None


def _opened(source: Source) -> BinaryIO:
    if source.packing is Packing.GZIP:
        return io.BufferedReader(gzip.open(source.path))
    return open(source.path, "rb")


def head(source: Source, quarantine: Quarantine, path: str) -> bytes:
    """Return the first lines of a plain dump."""
    if path:
        return quarantine.head(path)
    try:
        with _opened(source) as file:
            return file.read(_HEAD)
    except (OSError, EOFError) as error:
        raise DumpError(f"{source.path} is damaged: {error}.") from None


def check_contents(quarantine: Quarantine, source: Source, kind: Kind, path: str, *, trust: bool) -> Contents:
    """Check an archive's table of contents and its data, and return the contents.

    The data of a backup are not read again: they were read when it was made, and the checksum is the same.

    Raise DumpError for unexpected objects, unless they are trusted, and for a damaged archive.
    """
    if kind is Kind.TAR:
        quarantine.check_tar(path)
    contents = dump_format.contents(quarantine.listing(path))
    check_server(contents.server_major, quarantine.server)
    if not contents.entries:
        raise DumpError(
            "The dump's table of contents is empty.",
            hint="It was damaged when it was made or copied. Use another dump.",
        )
    unexpected.refuse([entry.called for entry in contents.unexpected()], trust=trust)
    if beyond := contents.beyond_trust():
        # Allowing these would give the dump control of the whole server.
        raise DumpError(
            f"Only a superuser can restore {', '.join(entry.called for entry in beyond[:5])}.",
            hint="If you know where it comes from, restore it by hand, as RESTORE.txt in any backup describes.",
        )
    if not source.backup:
        quarantine.read_to_end(path)
        if kind is Kind.DIRECTORY:
            quarantine.check_directory(path)
    return contents


def check_server(major: int, server: Server) -> None:
    """Raise DumpError when a dump comes from a newer PostgreSQL than the server's."""
    own = server.version() // 10000
    if major > own:
        raise DumpError(
            f"The dump is from PostgreSQL {major}, the server is {own}.",
            hint="PostgreSQL cannot restore a dump into an older server. Upgrade PostgreSQL first.",
        )
