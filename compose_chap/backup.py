"""Take a backup, and prove it: a folder with the dump, the files that make the stack, and a manifest.

    20261123T041500Z/
        manifest.json    what is in here; written last, so a folder without one is no backup
        chap_core.dump   PostgreSQL's custom format, for pg_restore
        files/           the Compose files, env files and whatever else they name
        RESTORE.txt      how to restore by hand

A backup is made under a name that ends with `.partial` and renamed when it is proven.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from compose_chap import __version__, chap, state
from compose_chap.engine import Engine, compose_command
from compose_chap.errors import ChapError, DumpError, StateError
from compose_chap.postgres import Database, Server
from compose_chap.stack import DatabaseAccess, Role, Stack

FORMAT = 1
PARTIAL = ".partial"

# Without an earlier backup to learn from: CHAP's tables shrink to about a quarter, and a little more is kept free.
_FIRST_RATIO = 0.35
_MARGIN = 1.2

Notify = Callable[..., None]
Clock = Callable[[], datetime]


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
    def size(self) -> int:
        """Bytes of everything in it."""
        return int(self.manifest["dump"]["size"]) + sum(int(one["size"]) for one in self.manifest["files"])


def folder_for(stack: Stack, asked: Path | None, environment: Mapping[str, str]) -> Path:
    """Return where backups of a stack lie: as asked, as DOCKER_CHAP_BACKUPS says, or beside the Compose file."""
    if asked:
        return asked.absolute()
    if environment.get("DOCKER_CHAP_BACKUPS"):
        return Path(environment["DOCKER_CHAP_BACKUPS"]).absolute()
    return stack.project.directory / "backups"


def take(
    engine: Engine,
    stack: Stack,
    sources: Iterable[Path],
    folder: Path,
    reason: str,
    *,
    clock: Clock,
    notify: Notify,
) -> Backup:
    """Back the stack up into a new folder below `folder` and return the proven backup.

    `sources` are the files that make the stack. Raise DumpError, DatabaseError or StateError with nothing
    left behind that looks like a backup.
    """
    server = server_of(engine, stack)
    database = database_of(server, stack.access)
    state.private_folder(folder)
    _check_space(folder, database.size, list_backups(folder))

    begun = clock()
    identity = state.run_id(begun)
    partial = folder / f"{identity}{PARTIAL}"

    try:
        partial.mkdir(mode=0o700)
        with _disk_errors(folder):
            dump, tables, seconds = dump_database(server, database, partial, clock=clock, notify=notify)
            files = [_keep_file(path, stack.project.directory, partial) for path in dict.fromkeys(sources)]
            (partial / "RESTORE.txt").write_text(_instructions(stack, dump["file"]))
            os.chmod(partial / "RESTORE.txt", 0o600)
            manifest = {
                "format": FORMAT,
                "id": identity,
                "created_at": begun.isoformat(),
                "reason": reason,
                "tool": f"docker-chap {__version__}",
                "project": {
                    "name": stack.project.name,
                    "directory": str(stack.project.directory),
                    "files": [str(file) for file in stack.project.files],
                    "env_files": [str(file) for file in stack.project.env_files],
                },
                "chap": _chap_facts(engine, stack),
                "server": {"version": server.version(), "compression": dump.pop("compression")},
                "database": {key: value for key, value in vars(database).items() if key != "collation_version_now"},
                "images": image_facts(engine, stack),
                "dump": dump,
                "tables": tables,
                "files": files,
                "seconds": seconds,
                "proven_at": clock().isoformat(),
            }
            state.write_file(partial / "manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())
            final = folder / identity
            os.rename(partial, final)
            state.sync_folder(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Backup(final, manifest)


def dump_database(
    server: Server, database: Database, folder: Path, *, clock: Clock, notify: Notify
) -> tuple[dict[str, Any], dict[str, int], dict[str, float]]:
    """Dump one database into `folder` and prove the file; return its facts, rows by table, and seconds by part."""
    target = folder / f"{file_name(database.name)}.dump"
    begun = clock()
    compression = server.compression()

    with server.snapshot(database.name) as snapshot:
        with _HashingFile(target, lambda done: notify("backup", "dump", done, 0)) as file:
            server.dump(database.name, snapshot.id, compression, file.write)
        tables = snapshot.counts()
    dumped = clock()

    with open(target, "rb") as written:
        reread = _HashingReader(written)
        server.read_back(reread, lambda done: notify("backup", "read back", done, file.size))  # type: ignore[arg-type]
    if reread.hexdigest() != file.hexdigest():
        raise DumpError(f"The disk gave back other bytes than were written to {target.name}.", hint="Check the disk.")
    proven = clock()

    facts = {"file": target.name, "size": file.size, "sha256": file.hexdigest(), "compression": compression}
    seconds = {"dump": _seconds(begun, dumped), "read_back": _seconds(dumped, proven)}
    return facts, tables, seconds


def verify(backup: Backup, server: Server | None, notify: Notify) -> None:
    """Check every checksum of a backup and have pg_restore read its dump whole. Raise DumpError when it is bad.

    Without a `server` only the checksums are checked.
    """
    parts = [backup.manifest["dump"], *backup.manifest["files"]]
    for part in parts:
        path = backup.folder / part["file"]
        if sha256_of(path, lambda done: notify("verify", "checksum", done, part["size"])) != part["sha256"]:
            raise DumpError(
                f"Backup {backup.id} is damaged: {part['file']} is not what was written.",
                hint="Use another one: docker chap backups",
            )
    if server:
        with open(backup.dump, "rb") as file:
            server.read_back(file, lambda done: notify("verify", "read back", done, backup.manifest["dump"]["size"]))


def list_backups(folder: Path) -> list[Backup]:
    """Return the backups below a folder, oldest first. What has no readable manifest is none."""
    found = []
    for path in sorted(folder.glob("*/manifest.json")):
        with suppress(DumpError):
            if not path.parent.name.endswith(PARTIAL):
                found.append(load(path.parent))
    return sorted(found, key=lambda backup: backup.id)


def load(folder: Path) -> Backup:
    """Return the backup in a folder. Raise DumpError when there is none, or none that this version can read."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        known = manifest["format"] == FORMAT
    except FileNotFoundError:
        raise DumpError(f"{folder} has no manifest.json: it is not a finished backup.") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DumpError(f"The manifest in {folder} cannot be read: {error}.") from None
    if not known:
        raise DumpError(f"{folder} was written by another version of this tool (format {manifest['format']}).")
    for part in (manifest["dump"], *manifest["files"]):
        if (folder / part["file"]).resolve().is_relative_to(folder.resolve()):
            continue
        raise DumpError(f"The manifest in {folder} names a file outside of it: {part['file']}.")
    return Backup(folder, manifest)


def find(asked: str, folder: Path) -> Backup:
    """Return the backup an operator means: an id, `latest`, or a folder. Raise DumpError that lists what there is."""
    backups = list_backups(folder)

    if asked == "latest" and backups:
        return backups[-1]
    for backup in backups:
        if backup.id == asked:
            return backup
    if (Path(asked) / "manifest.json").exists():
        return load(Path(asked))
    there = ", ".join(backup.id for backup in backups[-5:]) or "none"
    raise DumpError(f"There is no backup '{asked}'. In {folder}: {there}.", hint="List them: docker chap backups")


def server_of(engine: Engine, stack: Stack) -> Server:
    """Return the stack's PostgreSQL. Raise StackError when its container does not run."""
    from compose_chap.errors import StackError

    container = stack.database.containers[0]
    if not container.running:
        raise StackError(
            f"The database container {container.name} does not run (it is {container.state}).",
            state="Nothing was changed.",
            hint=f"Start it: docker start {container.name}",
        )
    return Server(engine, container.id, stack.access.admin)


def database_of(server: Server, access: DatabaseAccess) -> Database:
    """Return CHAP's database. Raise DumpError when the server has none of that name."""
    found = server.databases()
    if access.name not in found:
        raise DumpError(f"The server has no database '{access.name}'. It has: {', '.join(found) or 'none'}.")
    return found[access.name]


def image_facts(engine: Engine, stack: Stack) -> list[dict[str, Any]]:
    """Return the identity of every image of the stack: service, role, reference, id and digests."""
    facts = []
    for service in stack.services:
        image = engine.image(service.containers[0].image_id)
        facts.append(
            {
                "service": service.name,
                "role": service.role.value,
                "image": str(service.image),
                "id": service.containers[0].image_id,
                "digests": list(image.digests) if image else [],
            }
        )
    return facts


def sha256_of(path: Path, progress: Callable[[int], None] = lambda done: None) -> str:
    """Return the SHA-256 of a file as hexadecimal text. Raise DumpError when it cannot be read."""
    digest, done = hashlib.sha256(), 0
    try:
        with open(path, "rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
                done += len(data)
                progress(done)
    except OSError as error:
        raise DumpError(f"Cannot read {path}: {error.strerror}.") from None
    return digest.hexdigest()


def file_name(text: str) -> str:
    """Return a name that is safe as a file's, for one that comes from a database."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text).lstrip(".") or "_"


class _HashingFile:
    """A new file, 0600, that is hashed while it is written and on the disk when the block ends."""

    def __init__(self, path: Path, progress: Callable[[int], None]) -> None:
        self._file = open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))
        self._digest = hashlib.sha256()
        self._progress = progress
        self.size = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)
        self._progress(self.size)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def __enter__(self) -> _HashingFile:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()


class _HashingReader:
    """Hashes what is read through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        return data

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


class _disk_errors:  # noqa: N801  (used like a function)
    """Turn a full or broken disk into a message; the caller removes what was written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, ChapError):
            raise StateError(
                f"Cannot write the backup in {self._folder}: {error.strerror}.",
                state="The unfinished backup was removed. The stack was not touched.",
                hint="Make room, or write elsewhere: docker chap backup -o FOLDER",
            ) from None


def _check_space(folder: Path, database_size: int, earlier: list[Backup]) -> None:
    ratio = _FIRST_RATIO
    if earlier:
        last = earlier[-1].manifest
        ratio = last["dump"]["size"] / max(int(last["database"]["size"]), 1)
    needed = int(database_size * ratio * _MARGIN)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StateError(
            f"Not enough room in {folder}: about {needed >> 20} MiB are needed, {free >> 20} MiB are free.",
            state="Nothing was changed.",
            hint="Make room (docker chap prune), or write elsewhere: docker chap backup -o FOLDER",
        )


def _keep_file(path: Path, project: Path, partial: Path) -> dict[str, Any]:
    inside = path.is_relative_to(project)
    relative = path.relative_to(project) if inside else Path("outside", *path.parts[1:])
    copy = partial / "files" / relative
    copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = path.read_bytes()
    state.write_file(copy, content)
    return {
        "path": str(path),
        "file": str(copy.relative_to(partial)),
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _chap_facts(engine: Engine, stack: Stack) -> dict[str, Any]:
    # A backup must be possible when CHAP itself is down: what it cannot say is left empty.
    facts: dict[str, Any] = {"version": "", "worker_version": "", "schema": None}
    api = stack.api.containers[0]

    if api.running:
        facts["version"] = chap.version_in(engine, api.id)
        with suppress(ChapError):
            schema = chap.Chap(engine, api.id).schema()
            facts["schema"] = {**vars(schema), "verdict": schema.verdict}
    for worker in stack.of(Role.WORKER):
        if worker.containers[0].running:
            facts["worker_version"] = chap.version_in(engine, worker.containers[0].id)
    return facts


def _instructions(stack: Stack, dump: str) -> str:
    compose = "docker " + " ".join(compose_command(stack.project))
    writers = " ".join(service.name for service in stack.writers)
    database, admin, name = stack.database.name, stack.access.admin, stack.access.name
    return f"""\
This folder is a backup of CHAP. The easy way to restore it:

    docker chap restore FOLDER        (FOLDER is the path of this folder)

By hand, without that tool, in this folder. The old database is kept under another name.

1. Stop what writes to the database:
   {compose} stop {writers}
2. Keep the old database, and make a new one:
   {compose} exec -T {database} psql -U {admin} -d postgres -c 'ALTER DATABASE "{name}" RENAME TO "{name}_old"'
   {compose} exec -T {database} createdb -U {admin} -O {stack.access.owner} {name}
3. Put the dump into it. It must end without an error:
   {compose} exec -T {database} pg_restore -U {admin} -d {name} --exit-on-error < {dump}
4. If the Compose files were changed since, compare them with those in files/.
5. Start CHAP again:
   {compose} up -d --no-deps {writers}

When CHAP works again, the old database can go:
   {compose} exec -T {database} dropdb -U {admin} {name}_old
"""


def _seconds(begun: datetime, ended: datetime) -> float:
    return round((ended - begun).total_seconds(), 3)
