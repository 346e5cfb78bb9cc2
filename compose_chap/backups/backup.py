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

The manifest, `"format": 1`, holds no secret:

    format, id, created_at, reason, tool     what this is, its start (UTC) and why it was made
    order           its start too, but always later than the order of every earlier backup, even if a clock was ahead
    project         name, directory, files and env_files of the Compose project; absent: those that could not be copied
    engine          id and name of the engine that it runs on
    checkout        commit, describe, remote and diff of a source checkout; null for none
    chap            running version and worker_version, schema verdict
    server          PostgreSQL's version, such as 170006
    database        name, owner, size, encoding, locale, collation_version, comment, privileges, settings
    images          service, role, image, id and digests of each service
    dump            file, size, sha256, compression
    tables          rows of each table at the moment of the dump
    lost_tables     tables that existed before and are gone: the database is damaged, or somebody dropped them
    absent_tables   missing tables that may be fine: an earlier version had them, or the running one expects them
    foreign         objects that no database of CHAP has; a restore needs --trust
    dhis2           the same facts of DHIS2's database; null unless it was included
    volumes         volume, service, path, file, size, sha256 of each
    files           path, file, size, sha256 of each
    instructions    the same of RESTORE.txt
    seconds         how long each part took
    proven_at       when the dump was read back
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from compose_chap import __version__, units
from compose_chap.backups import dump_file, other_files, restore_txt, volumes
from compose_chap.backups.catalogue import PARTIAL, Backup, list_backups, remove_abandoned
from compose_chap.backups.manifest import (
    FILE,
    Dhis2Facts,
    DumpPart,
    EngineFacts,
    Manifest,
    Part,
    ProjectFacts,
    ServerFacts,
)
from compose_chap.backups.verdict import BAD
from compose_chap.engine.engine import Engine
from compose_chap.engine.world import World
from compose_chap.errors import StackError, StateError
from compose_chap.image import release_key
from compose_chap.model import Role, Service, Stack
from compose_chap.postgres import pg_tools, unexpected
from compose_chap.postgres.server import Database, Server
from compose_chap.records import durable, lock, order, own_folder, run_records
from compose_chap.stack.databases import database_named, database_of, server_of

# The estimate without an earlier backup: CHAP's tables shrink to about a quarter, and a little more is kept free.
_FIRST_RATIO = 0.35
_MARGIN = 1.2


def take(
    world: World,
    stack: Stack,
    project_files: Iterable[Path],
    folder: Path,
    reason: str,
    *,
    with_dhis2: bool = False,
    with_volumes: bool = False,
) -> Backup:
    """Back the stack up into a new folder below `folder` and return the proven backup.

    `project_files` are the files that define the stack. Raise DumpError, DatabaseError or StateError; then nothing
    that looks like a backup is left.
    """
    engine, clock = world.engine, world.clock
    server = server_of(engine, stack)
    with ThreadPoolExecutor() as pool:
        pool.submit(pg_tools.compression, server)  # asked here only to be known when the dump begins
        whose = pool.submit(engine.origin, stack.project.name)
        database = database_of(server, stack.access)
    dhis2 = dhis2_of(engine, stack) if with_dhis2 else None
    durable.private_folder(folder)
    remove_abandoned(folder)
    earlier = list_backups(folder, whose.result())
    needed = database.size * _ratio([backup.manifest for backup in earlier])
    if dhis2:
        needed += dhis2[2].size * _ratio([backup.manifest.dhis2 for backup in earlier])
    if with_volumes:
        needed += _packed_volumes(earlier) or volumes.volumes_size(engine, stack)
    _check_space(folder, int(needed * _MARGIN))

    begun, partial = _new_folder(folder, clock())
    try:
        with lock.claimed(partial), dump_file.disk_errors(folder):
            manifest = _fill(world, stack, project_files, partial, begun, reason, server, database, dhis2, with_volumes)
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
    world: World,
    stack: Stack,
    project_files: Iterable[Path],
    partial: Path,
    begun: datetime,
    reason: str,
    server: Server,
    database: Database,
    dhis2: tuple[Service, Server, Database] | None,
    with_volumes: bool,
) -> Manifest:
    """Write everything into the folder of an unfinished backup, and return its manifest."""
    engine, clock, notify = world.engine, world.clock, world.notify
    # The files first, they are quick: they must match the rows that are dumped next.
    absent, origin = stack.project.absent, engine.origin(stack.project.name)
    files = () if absent else other_files.copy_files(project_files, stack, partial)
    checkout = None if absent else other_files.copy_checkout(stack.project.directory, partial)
    with ThreadPoolExecutor() as aside:
        # CHAP takes seconds to report its version; ask while the dump is made.
        chap = aside.submit(other_files.chap_facts, world, stack)
        images = aside.submit(other_files.image_facts, engine, stack)
        facts = aside.submit(dump_file.facts_of, server, database)
        inspection = aside.submit(unexpected.inspect, server, database.name)
        dumped = dump_file.dump_database(server, database.name, partial, clock=clock, notify=notify)
    spent = dict(dumped.seconds)

    other = None
    if dhis2:
        service, its_server, its_database = dhis2
        more = dump_file.dump_database(
            its_server, its_database.name, partial, clock=clock, notify=notify, detail="dump of DHIS2"
        )
        spent |= {f"dhis2_{part}": took for part, took in more.seconds.items()}
        other = Dhis2Facts(
            service=service.name,
            admin=its_server.admin,
            server=ServerFacts(its_server.version()),
            database=dump_file.facts_of(its_server, its_database),
            image=service.containers[0].image_id,
            dump=DumpPart(**more.file),
            tables=dict(more.tables),
        )
    now = clock()
    packed = volumes.pack_volumes(engine, stack, partial, notify) if with_volumes else ()
    if with_volumes:
        spent["volumes"] = dump_file.seconds(now, clock())

    unexpected_objects, lost_tables = inspection.result()
    manifest = Manifest(
        id=partial.name.removesuffix(PARTIAL),
        created_at=begun,
        reason=reason,
        tool=f"docker-chap {__version__}",
        project=ProjectFacts(
            stack.project.name,
            str(stack.project.directory),
            tuple(map(str, stack.project.files)),
            tuple(map(str, stack.project.env_files)),
            tuple(map(str, absent)),
        ),
        engine=EngineFacts(origin.engine, origin.server),
        checkout=checkout,
        chap=chap.result(),
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
        seconds={**spent, "all": dump_file.seconds(begun, clock())},
        proven_at=clock(),
    )
    text = restore_txt.text(stack, manifest, server.admin, server.port).encode()
    own_folder.write(partial / "RESTORE.txt", text)
    return replace(manifest, instructions=Part("RESTORE.txt", len(text), hashlib.sha256(text).hexdigest()))


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


def dhis2_of(engine: Engine, stack: Stack) -> tuple[Service, Server, Database]:
    """Return DHIS2's database service, its server and its database. Raise StackError when the project has none."""
    service = stack.single(Role.DHIS2_DATABASE)
    container = service.containers[0]
    if not container.running:
        raise StackError(f"DHIS2's database container {container.name} is not running.", state="Nothing was changed.")
    admin = container.environment.get("POSTGRES_USER", "postgres")
    server = Server(engine, container.id, admin)
    return service, server, database_named(server, container.environment.get("POSTGRES_DB", admin))


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
