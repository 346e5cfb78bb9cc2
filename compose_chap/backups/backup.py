"""Take a backup: a folder with the dump, the files that make the stack, and a manifest.

    20261123T041500Z/
        manifest.json      what is in here; written last, so a folder without it is not a backup
        chap_core.dump     PostgreSQL's custom format, for pg_restore
        files/             the Compose files, env files and other files that they name
        local-changes.diff the local changes in a source checkout
        dhis2.dump         DHIS2's database, on request
        volumes/           logs, runs and the model services' own data, on request
        RESTORE.txt        how to restore by hand
        proof.json         the result of the last verification; see `catalogue`
        pinned             protects it from prune

A backup is written under a name that ends with `.partial` and renamed when it is proven.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from compose_chap import __version__, units
from compose_chap.backups import dump_file, other_files, restore_txt, volumes
from compose_chap.backups.catalogue import PARTIAL, Backup, list_backups
from compose_chap.backups.manifest import (
    FILE,
    Dhis2Facts,
    DumpPart,
    EngineFacts,
    Manifest,
    Part,
    ProjectFacts,
    ServerFacts,
    VolumePart,
)
from compose_chap.backups.verdict import BAD
from compose_chap.engine.engine import Engine
from compose_chap.engine.world import World
from compose_chap.errors import StackError, StateError
from compose_chap.image import release_key
from compose_chap.model import Project, Role, Service, Stack
from compose_chap.postgres import pg_tools
from compose_chap.postgres.server import Database, Server
from compose_chap.postgres.untrusted import unexpected
from compose_chap.records import lock, order, run_records
from compose_chap.records.files import durable, own_folder
from compose_chap.stack.databases import database_named, database_of, server_of

# The estimate without an earlier backup: CHAP's tables shrink to about a quarter, and a little more is kept free.
_FIRST_RATIO = 0.35
_MARGIN = 1.2


@dataclass(frozen=True)
class Scope:
    """What a backup is of: a stack and the files that define it, why it is made, and what else goes in on request."""

    stack: Stack
    project_files: tuple[Path, ...]
    reason: str
    with_dhis2: bool = False
    with_volumes: bool = False


@dataclass(frozen=True)
class _Dumpable:
    """A database that can be dumped: its service, its server, and what the server says of it."""

    service: Service
    server: Server
    database: Database


def acquaint(engine: Engine, stack: Stack) -> None:
    """Find out how to work on the server of a stack, for `take` to know. Where it fails, `take` asks again.

    Raise StackError or DatabaseError.
    """
    pg_tools.compression(server_of(engine, stack))


def take(world: World, scope: Scope, folder: Path) -> Backup:
    """Make a backup in a new folder below `folder` and return it, proven.

    Raise DumpError, DatabaseError or StateError; then nothing that looks like a backup is left.
    """
    with ThreadPoolExecutor() as pool:
        # Asked here only to be known when the dump begins.
        pool.submit(pg_tools.compression, server_of(world.engine, scope.stack))
        origin = pool.submit(world.engine.origin, scope.stack.project.name)
        chap, dhis2 = _chap_database(world.engine, scope.stack), None
        if scope.with_dhis2:
            dhis2 = _dhis2_database(world.engine, scope.stack)
    durable.private_folder(folder)
    remove_abandoned(folder)
    earlier = list_backups([folder], origin.result())
    _check_space(folder, _expected_size(world.engine, scope, chap, dhis2, earlier))

    begun, partial = _new_folder(folder, world.clock())
    try:
        with lock.claimed(partial), dump_file.disk_errors(folder):
            manifest = _fill(world, scope, chap, dhis2, partial, begun)
            after = order.following(begun, [backup.order for backup in earlier])
            manifest = replace(with_missing_tables(manifest, earlier), order=after)
            own_folder.write(partial / FILE, manifest.document())
            final = partial.with_name(partial.name.removesuffix(PARTIAL))
            os.rename(partial, final)
            durable.sync_folder(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Backup(final, manifest)


def _fill(
    world: World, scope: Scope, chap: _Dumpable, dhis2: _Dumpable | None, partial: Path, begun: datetime
) -> Manifest:
    """Write everything into the folder of an unfinished backup that was `begun` then, and return its manifest."""
    engine, stack, server = world.engine, scope.stack, chap.server
    # The files first, they are quick: they must match the rows that are dumped next.
    absent, origin = stack.project.absent, engine.origin(stack.project.name)
    files = () if absent else other_files.copy_files(scope.project_files, stack, partial)
    checkout = None if absent else other_files.copy_checkout(stack.project.directory, partial)
    with ThreadPoolExecutor() as aside:
        # CHAP takes seconds to report its version; ask while the dump is made.
        versions = aside.submit(other_files.chap_facts, world, stack)
        images = aside.submit(other_files.image_facts, engine, stack)
        facts = aside.submit(dump_file.facts_of, server, chap.database)
        inspection = aside.submit(unexpected.inspect, server, chap.database.name)
        dumped = dump_file.dump_database(server, chap.database.name, partial, clock=world.clock, notify=world.notify)
    other, dhis2_seconds = _dump_dhis2(world, dhis2, partial) if dhis2 else (None, {})
    packed, volume_seconds = _pack_volumes(world, stack, partial) if scope.with_volumes else ((), {})

    unexpected_objects, lost_tables = inspection.result()
    manifest = Manifest(
        id=partial.name.removesuffix(PARTIAL),
        created_at=begun,
        reason=scope.reason,
        tool=f"docker-chap {__version__}",
        project=_project_facts(stack.project),
        engine=EngineFacts(origin.engine, origin.server),
        checkout=checkout,
        chap=versions.result(),
        server=ServerFacts(server.version(), dumped.file["compression"]),
        database=facts.result(),
        images=images.result(),
        dump=DumpPart(**dumped.file),
        tables=dict(dumped.tables),
        lost_tables=tuple(lost_tables),
        unexpected=tuple(unexpected_objects),
        dhis2=other,
        volumes=packed,
        files=files,
        seconds={
            **dumped.seconds,
            **dhis2_seconds,
            **volume_seconds,
            "all": dump_file.seconds(begun, world.clock()),
        },
        proven_at=world.clock(),
    )
    text = restore_txt.text(stack, manifest, server.admin, server.port).encode()
    own_folder.write(partial / "RESTORE.txt", text)
    return replace(manifest, instructions=Part("RESTORE.txt", len(text), hashlib.sha256(text).hexdigest()))


def _project_facts(project: Project) -> ProjectFacts:
    return ProjectFacts(
        project.name,
        str(project.directory),
        tuple(map(str, project.files)),
        tuple(map(str, project.env_files)),
        tuple(map(str, project.absent)),
    )


def _dump_dhis2(world: World, dhis2: _Dumpable, partial: Path) -> tuple[Dhis2Facts, dict[str, float]]:
    """Dump DHIS2's database too. Return its facts, and the seconds of each part."""
    server, database = dhis2.server, dhis2.database
    dumped = dump_file.dump_database(
        server, database.name, partial, clock=world.clock, notify=world.notify, detail="dump of DHIS2"
    )
    facts = Dhis2Facts(
        service=dhis2.service.name,
        admin=server.admin,
        server=ServerFacts(server.version()),
        database=dump_file.facts_of(server, database),
        image=dhis2.service.containers[0].image_id,
        dump=DumpPart(**dumped.file),
        tables=dict(dumped.tables),
    )
    return facts, {f"dhis2_{part}": seconds for part, seconds in dumped.seconds.items()}


def _pack_volumes(world: World, stack: Stack, partial: Path) -> tuple[tuple[VolumePart, ...], dict[str, float]]:
    """Pack the volumes too. Return their facts, and the seconds it took."""
    begun = world.clock()
    packed = volumes.pack_volumes(world.engine, stack, partial, world.notify)
    return packed, {"volumes": dump_file.seconds(begun, world.clock())}


def with_missing_tables(manifest: Manifest, earlier: Sequence[Backup]) -> Manifest:
    """Return the manifest of a new backup with its lost and absent tables; the `earlier` backups are older.

    Lost are the tables that the catalog has lost, and those of the last good backup that CHAP's code still needs, or
    might need if it cannot be asked. Absent are those that only one of the two expects: a new version drops tables,
    a failed migration adds none.
    """
    # After a rollback the newest backups are of a newer CHAP, which had other tables.
    good = [backup for backup in earlier if backup.proof.how != BAD and not _newer(backup.manifest, manifest)]
    had = {table for backup in good[-1:] for table in (*backup.tables, *backup.manifest.lost_tables)}
    had -= set(manifest.tables)
    wanted = {f"public.{name}" for name in manifest.chap.missing_tables} if manifest.chap.schema else had
    lost = set(manifest.lost_tables) | (had & wanted)
    absent = (had | wanted) - lost
    return replace(manifest, lost_tables=tuple(sorted(lost)), absent_tables=tuple(sorted(absent)))


def _newer(manifest: Manifest, other: Manifest) -> bool:
    """Whether a backup is of a newer release of CHAP than the other."""
    key, known = release_key(manifest.chap.version), release_key(other.chap.version)
    return bool(key and known and key > known)


def _new_folder(folder: Path, now: datetime) -> tuple[datetime, Path]:
    # Several stacks may share a folder of backups.
    while True:
        identity = run_records.run_id(now)
        with suppress(FileExistsError):
            if not (folder / identity).exists():
                (folder / f"{identity}{PARTIAL}").mkdir(mode=0o700)
                return now, folder / f"{identity}{PARTIAL}"
        now += timedelta(seconds=1)


def _chap_database(engine: Engine, stack: Stack) -> _Dumpable:
    server = server_of(engine, stack)
    return _Dumpable(stack.database, server, database_of(server, stack.access))


def _dhis2_database(engine: Engine, stack: Stack) -> _Dumpable:
    """Return DHIS2's database. Raise StackError when the project has none that runs."""
    service = stack.single(Role.DHIS2_DATABASE)
    container = service.containers[0]
    if not container.running:
        raise StackError(f"DHIS2's database container {container.name} is not running.", state="Nothing was changed.")
    admin = container.environment.get("POSTGRES_USER", "postgres")
    server = Server(engine, container.id, admin)
    return _Dumpable(service, server, database_named(server, container.environment.get("POSTGRES_DB", admin)))


def _expected_size(
    engine: Engine, scope: Scope, chap: _Dumpable, dhis2: _Dumpable | None, earlier: Sequence[Backup]
) -> int:
    """Return about how many bytes the backup will need, from what the earlier ones needed."""
    size = chap.database.size * _ratio([backup.manifest for backup in earlier])
    if dhis2:
        size += dhis2.database.size * _ratio([backup.manifest.dhis2 for backup in earlier])
    if scope.with_volumes:
        size += _packed_volumes(earlier) or volumes.volumes_size(engine, scope.stack)
    return int(size * _MARGIN)


def _ratio(earlier: Sequence[Manifest | Dhis2Facts | None]) -> float:
    """Return the ratio of dump size to database size, from the earlier dumps, oldest first."""
    last = next((facts for facts in reversed(earlier) if facts), None)
    return last.dump.size / max(last.database.size, 1) if last else _FIRST_RATIO


def _packed_volumes(earlier: Sequence[Backup]) -> int:
    """Return the size of the volumes in the last backup that has some."""
    sizes = (sum(part.size for part in backup.manifest.volumes) for backup in reversed(earlier))
    return next(filter(None, sizes), 0)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StateError(
            f"Not enough room in {folder}: about {units.size(needed)} are needed, {units.size(free)} are free.",
            state="Nothing was changed.",
            hint="Make room (docker chap prune), or write elsewhere: docker chap backup -o FOLDER",
        )


def remove_abandoned(folder: Path) -> None:
    """Remove the partial backups of killed runs below a folder, but none that is in progress."""
    for partial in folder.glob(f"*{PARTIAL}"):
        if partial.is_dir() and lock.abandoned(partial):
            shutil.rmtree(partial, ignore_errors=True)
