"""Send a backup to a repository, so that the next night costs little: see `catalogue` for what a copy is there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from compose_chap.records import lock
from compose_chap.records.files import own_folder

# In the folder of a backup while it is sent, so that the next run knows of one that was cut off.
SENDING = "sending"
# What concerns the backup on this machine only.
STAYS = {PIN_FILE, SENDING, verdict.FILE}


@dataclass(frozen=True)
class SentCopy:
    """A copy, the bytes that it added to the repository, and whether it was in the repository already."""

    copy: Copy
    added: int
    existed: bool = False


def send(world: World, restic: Restic, backup: Backup, server: Server) -> SentCopy:
    """Send a backup, unless a complete copy of it is in the repository.

    `server` has the pg_restore that unpacks the dump. Raise DumpError for a bad backup, CopyError when the copy is not
    complete; then what was sent stays in the repository, and the next run goes on from it.
    """
    if backup.fault:
        raise DumpError(
            f"Backup {backup.id} is not copied. {backup.fault}",
            hint="Copy another backup. To list them: docker chap backups",
        )
    world.notify("copy", "ask the repository")
    restic.check_reachable()
    if existing := _existing(restic, backup):
        own_folder.remove(backup.folder / SENDING)
        return SentCopy(existing, 0, existed=True)
    with _kept(backup):
        return _sent(world, restic, backup, server)


@contextmanager
def _kept(backup: Backup) -> Iterator[None]:
    """Let no prune remove the backup while the block runs. Raise CopyError when it cannot be read."""
    try:
        with lock.claimed(backup.folder, shared=True):
            yield
    except OSError as error:
        raise CopyError(
            f"Backup {backup.id} cannot be read: {error.strerror}.",
            state="It was not copied.",
            hint="List the backups: docker chap backups",
        ) from None


def _sent(world: World, restic: Restic, backup: Backup, server: Server) -> SentCopy:
    _resume(world, restic, backup)
    own_folder.write(backup.folder / SENDING, b"")
    sql = _Sql(world, backup, server)
    first = restic.send_stream(sql.pieces(), SQL_FILE, catalogue.first_tags(backup))
    names = sorted(path.name for path in backup.folder.iterdir() if path != backup.dump and path.name not in STAYS)
    last = restic.send_files(backup.folder, names, catalogue.last_tags(backup, first.snapshot, sql.size, sql.sha256))
    copy = _existing(restic, backup)
    if copy is None:
        raise CopyError(
            f"The repository does not list the copy of {backup.id} that was just made.",
            hint="Check the repository: restic check",
        )
    own_folder.remove(backup.folder / SENDING)
    return SentCopy(copy, first.added + last.added)


def _existing(restic: Restic, backup: Backup) -> Copy | None:
    copies = catalogue.scan(restic).of(backup.origin).copies
    return next((copy for copy in copies if copy.id == backup.id), None)


def _resume(world: World, restic: Restic, backup: Backup) -> None:
    """Let the repository count what a run that was cut off has sent, so that nothing is sent twice."""
    marks = [
        mark
        for mark in backup.folder.parent.glob(f"*/{SENDING}")
        if mark.parent == backup.folder or not lock.in_use(mark.parent)
    ]
    if marks:
        world.notify("copy", "look for what was sent already")
        # Without it more has to be sent, and the copy is as good: somebody may hold the lock.
        with suppress(CopyError):
            restic.count_everything()
        for mark in marks:
            own_folder.remove(mark)


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
                f"Backup {self._backup.id} is damaged: the content of {part.file} has changed.",
                state="It was not copied.",
                hint=f"See what is wrong: docker chap verify {self._backup.id}",
            )
        archive = dump_file.pieces(self._backup.dump, lambda done, size: world.notify("copy", "send", done, size))
        for data in pg_tools.as_sql(self._server, archive):
            self._digest.update(data)
            self.size += len(data)
            yield data
