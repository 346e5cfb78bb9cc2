"""Take a backup: a folder with the dump, the files that make the stack, and a manifest.

    20261123T041500Z/
        manifest.json      what is in here; written last, so a folder without one is no backup
        chap_core.dump     PostgreSQL's custom format, for pg_restore
        files/             the Compose files, env files and whatever else they name
        local-changes.diff what was changed in a source checkout
        dhis2.dump         DHIS2's database, on request
        volumes/           logs, runs and the model services' own data, on request
        RESTORE.txt        how to restore by hand
        proof.json         when it was last proven, and how
        pinned             keeps it from being pruned

A backup is made under a name that ends with `.partial` and renamed when it is proven.

The manifest, `"format": 1`, holds no secret:

    format, id, created_at, reason, tool     what this is, when it was begun (UTC) and why
    project         name, directory, files and env_files of the Compose project
    checkout        commit, describe, remote and diff of a source checkout; null for none
    chap            version and worker_version that ran, schema verdict
    server          PostgreSQL's version, such as 170006
    database        name, owner, size, encoding, locale, collation_version, comment, privileges, settings
    images          service, role, image, id and digests of each service
    dump            file, size, sha256, compression
    tables          rows of each table at the moment of the dump
    dhis2           the same facts of DHIS2's database; null when it was not asked for
    volumes         volume, service, path, file, size, sha256 of each
    files           path, file, size, sha256 of each
    instructions    the same of RESTORE.txt
    seconds         how long each part took
    proven_at       when the dump had been read back
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from compose_chap import __version__, archive, belongings, lock, state, units
from compose_chap.archive import Clock, Notify
from compose_chap.engine import Engine
from compose_chap.errors import DatabaseError, DumpError, StackError, StateError
from compose_chap.postgres import Database, Server
from compose_chap.stack import DatabaseAccess, Role, Service, Stack

FORMAT = 1
PARTIAL = ".partial"
PIN_FILE = "pinned"
PROOF_FILE = "proof.json"

# Without an earlier backup to learn from: CHAP's tables shrink to about a quarter, and a little more is kept free.
_FIRST_RATIO = 0.35
_MARGIN = 1.2


@dataclass(frozen=True)
class Backup:
    """A finished backup: its folder and its manifest."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The id, which is when it was begun, in UTC."""
        return str(self.manifest["id"])

    @property
    def project(self) -> str:
        """The Compose project that it was made of."""
        return str(self.manifest["project"]["name"])

    @property
    def dump(self) -> Path:
        """The dump of CHAP's database."""
        return self.folder / str(self.manifest["dump"]["file"])

    @property
    def tables(self) -> dict[str, int]:
        """Rows of each table at the moment of the dump."""
        return dict(self.manifest["tables"])

    @property
    def created_at(self) -> datetime:
        """When it was begun."""
        return datetime.fromisoformat(self.manifest["created_at"])

    @property
    def parts(self) -> list[dict[str, Any]]:
        """Every file of it that has a checksum: `file`, `size`, `sha256`."""
        one = self.manifest
        found = [one["dump"], *one["files"], *one.get("volumes", ())]
        found += [one["dhis2"]["dump"]] if one.get("dhis2") else []
        found += [one["checkout"]["diff"]] if one.get("checkout") and one["checkout"]["diff"] else []
        return found + ([one["instructions"]] if "instructions" in one else [])

    @property
    def size(self) -> int:
        """Bytes of everything in it."""
        return sum(int(part["size"]) for part in self.parts)

    @property
    def pinned(self) -> bool:
        """Whether it stays whatever retention says."""
        return (self.folder / PIN_FILE).exists()

    @property
    def proof(self) -> tuple[datetime, str]:
        """When it was last proven, and how: `read back` or `restored`."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads((self.folder / PROOF_FILE).read_bytes())
            return datetime.fromisoformat(found["at"]), str(found["how"])
        return datetime.fromisoformat(self.manifest["proven_at"]), "read back"


def folder_for(stack: Stack, asked: Path | None, environment: Mapping[str, str]) -> Path:
    """Return where backups of a stack lie: as asked, as DOCKER_CHAP_BACKUPS says, or beside the Compose file."""
    return folder_beside(stack.project.directory, asked, environment)


def folder_beside(directory: Path, asked: Path | None, environment: Mapping[str, str]) -> Path:
    """Return where backups of a stack lie whose main folder is `directory`."""
    if asked:
        return asked.absolute()
    if environment.get("DOCKER_CHAP_BACKUPS"):
        return Path(environment["DOCKER_CHAP_BACKUPS"]).absolute()
    return directory / "backups"


def take(
    engine: Engine,
    stack: Stack,
    sources: Iterable[Path],
    folder: Path,
    reason: str,
    *,
    clock: Clock,
    notify: Notify,
    with_dhis2: bool = False,
    with_volumes: bool = False,
) -> Backup:
    """Back the stack up into a new folder below `folder` and return the proven backup.

    `sources` are the files that make the stack. Raise DumpError, DatabaseError or StateError with nothing
    left behind that looks like a backup.
    """
    server = server_of(engine, stack)
    database = database_of(server, stack.access)
    dhis2 = dhis2_of(engine, stack) if with_dhis2 else None
    state.private_folder(folder)
    remove_abandoned(folder)
    databases = [database] + ([dhis2[2]] if dhis2 else [])
    _check_space(folder, sum(one.size for one in databases), list_backups(folder, stack.project.name))

    begun, partial = _new_folder(folder, clock())
    try:
        with lock.claimed(partial), archive.disk_errors(folder):
            manifest = _fill(
                engine, stack, sources, partial, begun, reason, server, database, dhis2, with_volumes, clock, notify
            )
            state.write_file(partial / "manifest.json", _document(manifest))
            final = partial.with_name(partial.name.removesuffix(PARTIAL))
            os.rename(partial, final)
            state.sync_folder(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Backup(final, manifest)


def _fill(
    engine: Engine,
    stack: Stack,
    sources: Iterable[Path],
    partial: Path,
    begun: datetime,
    reason: str,
    server: Server,
    database: Database,
    dhis2: tuple[Service, Server, Database] | None,
    with_volumes: bool,
    clock: Clock,
    notify: Notify,
) -> dict[str, Any]:
    """Write everything into the folder of an unfinished backup, and return its manifest."""
    # Small and quick first: what is in the files now belongs to the rows that are dumped next.
    files = belongings.keep_files(sources, stack, partial)
    checkout = belongings.keep_checkout(stack.project.directory, partial)
    with ThreadPoolExecutor() as aside:
        # CHAP takes seconds to say what it is. It does so while the dump is made.
        chap = aside.submit(belongings.chap_facts, engine, stack)
        images = aside.submit(belongings.image_facts, engine, stack)
        facts = aside.submit(archive.facts_of, server, database)
        dumped = archive.dump_database(server, database.name, partial, clock=clock, notify=notify)
    spent = dict(dumped.seconds)

    other = None
    if dhis2:
        service, its_server, its_database = dhis2
        more = archive.dump_database(
            its_server, its_database.name, partial, clock=clock, notify=notify, detail="dump of DHIS2"
        )
        spent |= {f"dhis2_{part}": took for part, took in more.seconds.items()}
        other = {
            "service": service.name,
            "admin": its_server.admin,
            "server": {"version": its_server.version()},
            "database": archive.facts_of(its_server, its_database),
            "image": service.containers[0].image_id,
            "dump": dict(more.file),
            "tables": dict(more.tables),
        }
    now = clock()
    volumes = belongings.keep_volumes(engine, stack, partial, notify) if with_volumes else []
    if with_volumes:
        spent["volumes"] = archive.seconds(now, clock())

    manifest = {
        "format": FORMAT,
        "id": partial.name.removesuffix(PARTIAL),
        "created_at": begun.isoformat(),
        "reason": reason,
        "tool": f"docker-chap {__version__}",
        "project": {
            "name": stack.project.name,
            "directory": str(stack.project.directory),
            "files": [str(file) for file in stack.project.files],
            "env_files": [str(file) for file in stack.project.env_files],
        },
        "checkout": checkout,
        "chap": chap.result(),
        "server": {"version": server.version(), "compression": dumped.file["compression"]},
        "database": facts.result(),
        "images": images.result(),
        "dump": dict(dumped.file),
        "tables": dict(dumped.tables),
        "dhis2": other,
        "volumes": volumes,
        "files": files,
        "seconds": {**spent, "all": archive.seconds(begun, clock())},
        "proven_at": clock().isoformat(),
    }
    text = belongings.instructions(stack, manifest).encode()
    state.write_file(partial / "RESTORE.txt", text)
    manifest["instructions"] = {
        "file": "RESTORE.txt",
        "size": len(text),
        "sha256": hashlib.sha256(text).hexdigest(),
    }
    return manifest


def _new_folder(folder: Path, now: datetime) -> tuple[datetime, Path]:
    # Several stacks may have their backups in one folder.
    while True:
        identity = state.run_id(now)
        with suppress(FileExistsError):
            if not (folder / identity).exists():
                (folder / f"{identity}{PARTIAL}").mkdir(mode=0o700)
                return now, folder / f"{identity}{PARTIAL}"
        now += timedelta(seconds=1)


def remove_abandoned(folder: Path) -> None:
    """Remove what backups that were killed left below a folder, and nothing that one is working on."""
    for partial in folder.glob(f"*{PARTIAL}"):
        if partial.is_dir() and lock.abandoned(partial):
            shutil.rmtree(partial, ignore_errors=True)


def take_dump_only(
    engine: Engine, stack: Stack, target: Path | None, sink: Callable[[bytes], object] | None, notify: Notify
) -> tuple[dict[str, int], int]:
    """Write nothing but a proven dump of CHAP's database to a file or to `sink`; return rows by table, and its size.

    A file that was there stays until the new one is proven.
    """
    server = server_of(engine, stack)
    name = database_of(server, stack.access).name
    compression, size = server.compression(), 0

    def dump_to(write: Callable[[bytes], object]) -> dict[str, int]:
        def counted(data: bytes) -> None:
            nonlocal size
            write(data)
            size += len(data)
            notify("backup", "dump", size, 0)

        return archive.dump_into(server, name, compression, counted)

    if target is None:
        assert sink is not None
        return dump_to(sink), size
    partial = target.with_name(f".{target.name}{PARTIAL}")
    with archive.disk_errors(target.parent):
        try:
            partial.unlink(missing_ok=True)
            with archive.new_file(partial) as file:
                tables = dump_to(file.write)
            os.replace(partial, target)
            state.sync_folder(target.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    return tables, size


def list_backups(folder: Path, project: str = "") -> list[Backup]:
    """Return the backups below a folder, of one project or of all, oldest first.

    What has no readable manifest is none.
    """
    found = []
    for path in sorted(folder.glob("*/manifest.json")):
        with suppress(DumpError):
            if not path.parent.name.endswith(PARTIAL):
                found.append(load(path.parent))
    return sorted((one for one in found if project in ("", one.project)), key=lambda one: one.id)


def load(folder: Path) -> Backup:
    """Return the backup in a folder. Raise DumpError when there is none, or none that this version can read."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        if manifest["format"] != FORMAT:
            raise DumpError(f"{folder} was written by another version of this tool (format {manifest['format']}).")
        found = Backup(folder, manifest)
        parts = [str(part["file"]) for part in found.parts]
        # What every reader takes for granted.
        _ = found.id, found.project, found.size, found.created_at, found.proof, found.tables, manifest["reason"]
        _ = manifest["chap"]["version"], int(manifest["database"]["size"]), int(manifest["server"]["version"])
    except FileNotFoundError:
        raise DumpError(f"{folder} has no manifest.json: it is not a finished backup.") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DumpError(f"The manifest in {folder} cannot be read: {error}.") from None
    for part in parts:
        # Links are followed here, so that one cannot lead out either.
        if not (folder / part).resolve().is_relative_to(folder.resolve()):
            raise DumpError(f"The manifest in {folder} names a file outside of it: {part}.")
    return found


def amend(made: Backup, **facts: Any) -> Backup:
    """Write into a finished backup's manifest what nobody could be asked when it was made, and return it so."""
    amended = Backup(made.folder, {**made.manifest, **facts})
    state.write_file(made.folder / "manifest.json", _document(amended.manifest))
    return amended


def find(asked: str, folder: Path, project: str = "") -> Backup:
    """Return the backup an operator means: an id, `latest` of a project, or a folder.

    Raise DumpError that lists what there is.
    """
    own = list_backups(folder, project)

    if asked == "latest" and own:
        return own[-1]
    for backup in list_backups(folder):
        if backup.id == asked:
            return backup
    if asked != "latest" and Path(asked).is_dir():
        return load(Path(asked))
    there = ", ".join(backup.id for backup in own[-5:]) or "none"
    raise DumpError(f"There is no backup '{asked}'. In {folder}: {there}.", hint="List them: docker chap backups")


def pin(backup: Backup, pinned: bool) -> None:
    """Keep a backup whatever retention says, or no longer."""
    if pinned:
        state.write_file(backup.folder / PIN_FILE, b"")
    else:
        (backup.folder / PIN_FILE).unlink(missing_ok=True)
        state.sync_folder(backup.folder)


def server_of(engine: Engine, stack: Stack) -> Server:
    """Return the stack's PostgreSQL. Raise StackError when its container does not run."""
    container = stack.database.containers[0]
    if not container.running:
        raise StackError(
            f"The database container {container.name} does not run (it is {container.state}).",
            state="Nothing was changed.",
            hint=f"Start it: docker start {container.name}",
        )
    return Server(engine, container.id, stack.access.admin)


def database_of(server: Server, access: DatabaseAccess) -> Database:
    """Return CHAP's database. Raise DatabaseError when the server has none of that name."""
    return _named(server, access.name)


def _named(server: Server, name: str) -> Database:
    found = server.databases()
    if name not in found:
        raise DatabaseError(f"The server has no database '{name}'. It has: {', '.join(found) or 'none'}.")
    return found[name]


def dhis2_of(engine: Engine, stack: Stack) -> tuple[Service, Server, Database]:
    """Return DHIS2's database service, its server and its database. Raise StackError when the project has none."""
    service = stack.one(Role.DHIS2_DATABASE)
    container = service.containers[0]
    if not container.running:
        raise StackError(f"DHIS2's database container {container.name} does not run.", state="Nothing was changed.")
    admin = container.environment.get("POSTGRES_USER", "postgres")
    server = Server(engine, container.id, admin)
    return service, server, _named(server, container.environment.get("POSTGRES_DB", admin))


def _check_space(folder: Path, database_size: int, earlier: list[Backup]) -> None:
    ratio = _FIRST_RATIO
    if earlier:
        last = earlier[-1].manifest
        ratio = last["dump"]["size"] / max(int(last["database"]["size"]), 1)
    needed = int(database_size * ratio * _MARGIN)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StateError(
            f"Not enough room in {folder}: about {units.size(needed)} are needed, {units.size(free)} are free.",
            state="Nothing was changed.",
            hint="Make room (docker chap prune), or write elsewhere: docker chap backup -o FOLDER",
        )


def _document(manifest: Mapping[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1) + "\n").encode()
