"""Bring a copy back as a backup of this machine: loaded into a jail, every table counted, and dumped again.

So a copy that came back was restored once, and restoring it is restoring a backup like any other.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from compose_chap import units
from compose_chap.backups import catalogue as backups
from compose_chap.backups import dump_file, proof
from compose_chap.backups.catalogue import PARTIAL, Backup
from compose_chap.backups.manifest import FILE, DatabaseFacts, DumpPart, Manifest
from compose_chap.backups.verdict import RESTORED
from compose_chap.copies.catalogue import SQL_FILE, Copy
from compose_chap.copies.restic import Restic
from compose_chap.engine.world import World
from compose_chap.errors import CopyError, StateError
from compose_chap.postgres.server import Database
from compose_chap.records import lock
from compose_chap.records.files import durable, own_folder
from compose_chap.restore import plain_dump


@dataclass(frozen=True)
class Drill:
    """What a copy was proven by: the rows of each table that came back, and the bytes that were read for it."""

    tables: Mapping[str, int]
    size: int


def fetch(world: World, restic: Restic, copy: Copy, folder: Path, image: str = "") -> Backup:
    """Bring a copy into the folder of the backups and return it as a backup, test-restored.

    `image` is the PostgreSQL to use when the one that the backup was made with is not on this engine. Raise CopyError
    or DumpError when the copy is damaged; nothing is left behind then that looks like a backup.
    """
    final = folder / copy.id
    if final.exists():
        raise StateError(f"{final} exists already.", hint=f"Use it as it is: docker chap restore {copy.id}")
    with _partial(folder, copy.id) as partial:
        _bring(world, restic, copy, partial, image)
        os.rename(partial, final)
        durable.sync_folder(folder)
    backup = backups.load(final)
    if not backup.manifest.dhis2:  # whose dump came back as it was sent, and was not restored
        backups.record_verdict(backup, world.clock(), RESTORED)
    return backup


def drill(world: World, restic: Restic, copy: Copy, folder: Path, image: str = "") -> Drill:
    """Do everything that `fetch` does, compare every table, and keep nothing of it. It takes place in `folder`."""
    with _partial(folder, f"drill-{copy.id}") as partial:
        manifest = _bring(world, restic, copy, partial, image)
        shutil.rmtree(partial)
    return Drill(manifest.tables, copy.sql_size)


@contextmanager
def _partial(folder: Path, identity: str) -> Iterator[Path]:
    durable.private_folder(folder)
    path = folder / f"{identity}{PARTIAL}"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    try:
        with lock.claimed(path), dump_file.disk_errors(folder):
            yield path
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _bring(world: World, restic: Restic, copy: Copy, folder: Path, image: str) -> Manifest:
    _check_space(folder, copy)
    world.notify("fetch", copy.id)
    restic.restore(copy.snapshot, folder)
    _own(folder)
    backup = backups.load(folder)
    manifest = backup.manifest
    if manifest.id != copy.id or manifest.dump.file in (SQL_FILE, FILE):
        raise damaged(copy, "its manifest")
    sql = folder / SQL_FILE
    with dump_file.new_file(sql) as file:
        restic.read(copy.sql_snapshot, SQL_FILE, file)
    if dump_file.sha256_of(sql, lambda done: world.notify("fetch", "check", done, copy.sql_size)) != copy.sql_sha256:
        raise damaged(copy, "its SQL")
    manifest = replace(manifest, dump=_dump(world, backup, sql, image))
    sql.unlink()
    own_folder.write(folder / FILE, manifest.document())
    for part in manifest.parts:
        if dump_file.sha256_of(folder / part.file, lambda done: None) != part.sha256:
            raise damaged(copy, part.file)
    return manifest


def damaged(copy: Copy, what: str) -> CopyError:
    """Return the error for a copy in which something is not what was sent."""
    return CopyError(
        f"The copy of {copy.id} is damaged: {what} is not what was sent.",
        state="Nothing was restored from it.",
        hint="Take an earlier one: docker chap copies --from REPOSITORY",
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


def _check_space(folder: Path, copy: Copy) -> None:
    free, needed = shutil.disk_usage(folder).free, copy.sql_size * 2
    if free < needed:
        raise StateError(
            f"Not enough room in {folder}: about {units.size(needed)} are needed, {units.size(free)} are free.",
            state="Nothing was changed.",
            hint="Make room, or bring it elsewhere: -o FOLDER",
        )
