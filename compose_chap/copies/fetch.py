"""Bring a copy back as a backup of this machine: loaded into a jail, every table counted, and dumped again.

So a copy that came back was restored once, and restoring it is restoring a backup like any other.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote

from compose_chap import units
from compose_chap.backups import catalogue as backups
from compose_chap.backups import dump_file, proof
from compose_chap.backups.backup import remove_abandoned
from compose_chap.backups.catalogue import PARTIAL, Backup
from compose_chap.backups.manifest import FILE, DatabaseFacts, DumpPart, Manifest
from compose_chap.backups.verdict import RESTORED
from compose_chap.copies.answers import Stored
from compose_chap.copies.catalogue import SQL_FILE, Copy
from compose_chap.copies.restic import Restic
from compose_chap.copies.send import STAYS
from compose_chap.engine.world import World
from compose_chap.errors import CopyError, DumpError, StateError
from compose_chap.postgres.server import Database
from compose_chap.records import lock
from compose_chap.records.files import durable, own_folder
from compose_chap.restore import plain_dump

# Returns the error for a part of the copy that is not what was sent.
_Bad = Callable[[str], CopyError]


@dataclass(frozen=True)
class Drill:
    """What a copy was proven by: the rows of each table that came back, and the bytes that were read for it."""

    tables: Mapping[str, int]
    size: int


def fetch(world: World, restic: Restic, copy: Copy, folder: Path, image: str = "") -> Backup:
    """Return a copy as a backup in the folder of the backups: brought there, test-restored, or the same that is there.

    `image` is the PostgreSQL to use when the one that the backup was made with is not on this engine. Raise CopyError
    or DumpError when the copy is damaged; nothing is left behind then that looks like a backup. Raise StateError for a
    backup of that id in the folder that is damaged, or another's.
    """
    final = folder / copy.id
    if os.path.lexists(final):
        return _sound(world, copy, final)
    with _unfinished(folder, copy.id) as path:
        _bring(world, restic, copy, path, image)
        os.rename(path, final)
        durable.sync_folder(folder)
    backup = backups.load(final)
    if not backup.manifest.dhis2:  # whose dump came back as it was sent, and was not restored
        backups.record_verdict(backup, world.clock(), RESTORED)
    return backup


def _sound(world: World, copy: Copy, path: Path) -> Backup:
    try:
        backup = backups.load(path)
        why = "" if _is_of(backup, copy) else f"It is a backup of {backup.origin}, not of {copy.origin}."
        if not why:
            proof.check_sums(world, backup)
            why = backup.fault
    except DumpError as error:
        why = error.message
    if why:
        away = path.parent.parent / f"{path.name}-away"
        raise StateError(
            f"{path} is in the way, and cannot be used itself. {why}",
            state="Nothing was changed.",
            hint=f"Move it away, then run the command again: mv {quote(str(path))} {quote(str(away))}",
        )
    return backup


def drill(world: World, restic: Restic, copy: Copy, folder: Path, image: str = "") -> Drill:
    """Do everything that `fetch` does, compare every table, and keep nothing of it. It takes place in `folder`."""
    with _unfinished(folder, f"drill-{copy.id}") as path:
        manifest = _bring(world, restic, copy, path, image)
        shutil.rmtree(path)
    return Drill(manifest.tables, copy.sql_size)


@contextmanager
def _unfinished(folder: Path, identity: str) -> Iterator[Path]:
    durable.private_folder(folder)
    remove_abandoned(folder)
    # A name of its own: another run may bring the same copy, and a restic that outlived its run still write.
    path = Path(tempfile.mkdtemp(PARTIAL, f"{identity}-", folder))
    try:
        with lock.claimed(path), _disk_errors(folder):
            yield path
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(
            f"Cannot write the copy into {folder}: {error.strerror}.",
            state="What was brought back was removed. The stack was not touched.",
            hint="Make room, or bring it elsewhere: -o FOLDER",
        ) from None


def _bring(world: World, restic: Restic, copy: Copy, folder: Path, image: str) -> Manifest:
    world.notify("fetch", copy.id)
    bad = partial(damaged, copy, restic.named("--from"))
    _check_contents(restic.contents(copy.snapshot), copy, folder, bad)
    restic.restore(copy.snapshot, folder)
    _own(folder)
    backup = backups.load(folder)
    manifest = backup.manifest
    if manifest.id != copy.id or not _is_of(backup, copy) or manifest.dump.file in (SQL_FILE, FILE):
        raise bad("its manifest")
    sql = folder / SQL_FILE
    pieces = _no_more(copy, restic.read(copy.sql_snapshot, SQL_FILE), bad)
    written = dump_file.write_hashed(sql, pieces, lambda done: world.notify("fetch", "bring", done, copy.sql_size))
    if (written["size"], written["sha256"]) != (copy.sql_size, copy.sql_sha256):
        raise bad("its SQL")
    manifest = replace(manifest, dump=_dump(world, backup, sql, image))
    sql.unlink()
    own_folder.write(folder / FILE, manifest.document())
    for part in manifest.parts:
        if dump_file.sha256_of(folder / part.file, lambda done: None) != part.sha256:
            raise bad(part.file)
    return manifest


def _check_contents(stored: Sequence[Stored], copy: Copy, folder: Path, bad: _Bad) -> None:
    """Refuse, before anything is written, what `send` never sends, and what this disk has no room for."""
    strange = [item.path for item in stored if item.kind not in ("file", "dir") or item.path[1:] in (*STAYS, SQL_FILE)]
    if strange:
        raise bad(strange[0])
    free, needed = shutil.disk_usage(folder).free, copy.sql_size * 2 + sum(item.size for item in stored)
    if free < needed:
        raise StateError(
            f"Not enough room in {folder.parent}: about {units.size(needed)} are needed, {units.size(free)} are free.",
            state="Nothing was changed.",
            hint="Make room, or bring it elsewhere: -o FOLDER",
        )


def _no_more(copy: Copy, pieces: Iterator[bytes], bad: _Bad) -> Iterator[bytes]:
    """Yield the SQL, and stop where it is more than was sent: whoever wrote it may want to fill this disk."""
    size = 0
    for data in pieces:
        size += len(data)
        if size > copy.sql_size:
            raise bad("its SQL")
        yield data


def _is_of(backup: Backup, copy: Copy) -> bool:
    return (backup.project, backup.origin.engine) == (copy.origin.project, copy.origin.engine)


def damaged(copy: Copy, from_it: str, what: str) -> CopyError:
    """Return the error for a copy in which something is not what was sent; `from_it` names its repository."""
    return CopyError(
        f"The copy of {copy.id} is damaged: {what} is not what was sent.",
        state="Nothing was restored from it.",
        hint=f"Take an earlier copy. To list them: docker chap copies {from_it}",
    )


def _dump(world: World, backup: Backup, sql: Path, image: str) -> DumpPart:
    """Load the SQL into a jail, compare every table with the manifest, and dump it into the backup's folder."""
    manifest = backup.manifest
    own = proof.image_of(backup)
    facts = manifest.database
    # Privileges name roles, and the throwaway server has none of production's.
    named = (*(item.role for item in facts.privileges), *(item.role for item in facts.settings))
    roles = sorted(filter(None, {facts.owner, *named}))
    pieces = dump_file.pieces(sql, lambda done, size: world.notify("fetch", "load", done, size))
    with plain_dump.loaded(
        world, own if own and world.engine.image(own) else image, pieces, facts.name, _like(facts), roles
    ) as loaded:
        dumped = dump_file.dump_database(
            loaded.server, loaded.database, backup.folder, clock=world.clock, notify=world.notify
        )
    proof.compare(dumped.tables, manifest.tables)
    return DumpPart(**dumped.file)


def _like(facts: DatabaseFacts) -> Database:
    return Database(
        **{name: getattr(facts, name) for name in ("name", "owner", "size", "encoding", "collate", "ctype", "comment")},
        provider=facts.provider or "c",
        collation_version=facts.collation_version,
        collation_version_now=facts.collation_version,
    )


def _own(folder: Path) -> None:
    """Make what restic wrote this user's own: on the machine where it was made the users had other numbers."""
    for path in (folder, *folder.rglob("*")):
        if os.geteuid() == 0:
            os.chown(path, 0, 0, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
