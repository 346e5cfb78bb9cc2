"""Send a backup to a repository, so that the next night costs little: see `catalogue` for how a copy looks there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from compose_chap.backups import dump_file, verdict
from compose_chap.backups.catalogue import PIN_FILE, Backup
from compose_chap.copies import catalogue
from compose_chap.copies.catalogue import SQL_FILE, Copy
from compose_chap.copies.restic import Restic
from compose_chap.engine.world import World
from compose_chap.errors import CopyError, DumpError
from compose_chap.postgres import pg_tools
from compose_chap.postgres.server import Server

# What is said of a backup on this machine alone.
_STAYS = {PIN_FILE, verdict.FILE}


@dataclass(frozen=True)
class Sent:
    """A copy, the bytes that it added to the repository, and whether it had been there already."""

    copy: Copy
    added: int
    existed: bool = False


def send(world: World, restic: Restic, backup: Backup, server: Server) -> Sent:
    """Send a backup, unless a complete copy of it is there.

    `server` has the pg_restore that unpacks the dump. Raise DumpError for a damaged backup, CopyError when the copy is
    not complete; then what was sent stays there, and the next try goes on from it.
    """
    listing = catalogue.look(restic, backup.origin)
    if existing := next((copy for copy in listing.copies if copy.id == backup.id), None):
        return Sent(existing, 0, existed=True)
    if backup.fault:
        raise DumpError(
            f"Backup {backup.id} is not copied. {backup.fault}", hint="Copy another one: docker chap backups"
        )
    sql = _Sql(world, backup, server)
    first = restic.send_stream(
        sql.pieces(), SQL_FILE, catalogue.first_tags(backup.id, backup.origin), lambda done: None
    )
    copy = Copy(backup.id, backup.origin, "", first.snapshot, sql.size, sql.sha256)
    names = sorted(path.name for path in backup.folder.iterdir() if path != backup.dump and path.name not in _STAYS)
    second = restic.send_files(backup.folder, names, copy.tags)
    complete = catalogue.find(backup.id, catalogue.look(restic, backup.origin).copies)
    if complete.snapshot != second.snapshot:
        raise CopyError(f"The repository does not list the copy of {backup.id} that was just made.")
    return Sent(complete, first.added + second.added)


class _Sql:
    """The SQL of a backup's dump, hashed while it is read."""

    def __init__(self, world: World, backup: Backup, server: Server) -> None:
        self._world, self._backup, self._server = world, backup, server
        self._digest, self.size = hashlib.sha256(), 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def pieces(self) -> Iterator[bytes]:
        """Yield it. Raise DumpError, before the last piece, when the dump is not what was backed up."""
        world, part = self._world, self._backup.manifest.dump
        actual = dump_file.sha256_of(self._backup.dump, lambda done: world.notify("copy", "check", done, part.size))
        if actual != part.sha256:
            raise DumpError(
                f"Backup {self._backup.id} is damaged: {part.file} is not what was written.",
                hint=f"See what is wrong: docker chap verify {self._backup.id}",
            )
        for data in pg_tools.as_sql(self._server, self._archive()):
            self._digest.update(data)
            self.size += len(data)
            yield data

    def _archive(self) -> Iterator[bytes]:
        size, done = self._backup.manifest.dump.size, 0
        with open(self._backup.dump, "rb") as file:
            while data := file.read(1 << 18):
                done += len(data)
                self._world.notify("copy", "send", done, size)
                yield data
