"""The parts of a stack besides the rows of its database: files, source checkout, images, versions, volumes."""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from compose_chap.backups.dump_file import disk_errors, file_name, write_hashed
from compose_chap.backups.manifest import ChapFacts, CheckoutFacts, FilePart, ImageFacts, Part, VolumePart
from compose_chap.detection import project
from compose_chap.engine.engine import Engine
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, DumpError
from compose_chap.model import Container, Role, Service, Stack
from compose_chap.project import checkout
from compose_chap.project.project_file import read_project_file
from compose_chap.records import own_folder
from compose_chap.stack import chap, chap_scripts, schema

MARKETPLACE = "compose.marketplace.yml"
# Caches are slow to fill, but fill themselves.
_CACHES = re.compile(r"renv|pytensor|(^|[/_-])uv$|cache|(^|[/_-])tmp$")
_LONGEST_NAME = 150
_SQLITE = re.compile(r"\.(db|sqlite3?)$")
# SQLite's files beside a database: changes that are not in it yet, or that it may have to undo.
_BESIDE = re.compile(r"-(wal|journal)$")

# A copy made by SQLite itself is consistent even while the model service writes.
_COPY_SQLITE = """
import sqlite3, sys, tempfile
with tempfile.NamedTemporaryFile() as file:
    source, copy = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True), sqlite3.connect(file.name)
    source.backup(copy)
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copy.close()
    with open(file.name, "rb") as written:
        while data := written.read(1 << 16):
            sys.stdout.buffer.write(data)
"""


def copy_files(project_files: Iterable[Path], stack: Stack, folder: Path) -> tuple[FilePart, ...]:
    """Copy the `project_files`, a checkout's model configurations, and the files of other containers.

    The copies go into `folder`/files. Return the facts of each for the manifest.
    """
    directory = stack.project.directory
    models = sorted(path for path in (directory / "config" / "configured_models").glob("**/*") if path.is_file())
    paths = dict.fromkeys([*project_files, *models, *_others(stack)])
    return tuple(_copy_file(path, directory, folder) for path in paths)


def _others(stack: Stack) -> list[Path]:
    """Return the existing files in the labels of any container, and the marketplace's, which no label names."""
    projects = [project("", container.labels) for service in stack.services for container in service.containers]
    paths = {path for project in projects for path in (*project.files, *project.env_files)}
    return sorted(path for path in {*paths, stack.project.files[0].with_name(MARKETPLACE)} if path.is_file())


def _copy_file(path: Path, directory: Path, folder: Path) -> FilePart:
    inside = path.is_relative_to(directory) and ".." not in path.parts
    relative = path.relative_to(directory) if inside else Path("outside", *path.resolve().parts[1:])
    copy = folder / "files" / relative
    # One by one: with `parents`, mkdir gives the parents the umask's mode.
    for parent in reversed(copy.relative_to(folder).parents[:-1]):
        (folder / parent).mkdir(mode=0o700, exist_ok=True)
    content = read_project_file(path)
    own_folder.write(copy, content)
    name = str(copy.relative_to(folder))
    return FilePart(name, len(content), hashlib.sha256(content).hexdigest(), path=str(path))


def copy_checkout(directory: Path, folder: Path) -> CheckoutFacts | None:
    """Describe the source checkout that a stack was started from and save its local changes; None for none."""
    source_checkout = checkout.find(directory)
    try:
        head = source_checkout.head if source_checkout else None
    except ChapError:
        head = None
    if source_checkout is None or head is None:
        return None
    patch = None
    if diff := source_checkout.diff:
        content = diff.encode(errors="replace")
        own_folder.write(folder / "local-changes.diff", content)
        patch = Part("local-changes.diff", len(content), hashlib.sha256(content).hexdigest())
    return CheckoutFacts(head.commit, head.branch, source_checkout.name, source_checkout.address, patch)


def image_facts(engine: Engine, stack: Stack) -> tuple[ImageFacts, ...]:
    """Return the identity of every image of the stack."""
    facts = []
    for service in stack.services:
        identity = service.containers[0].image_id
        image = engine.image(identity)
        digests = tuple(image.digests) if image else ()
        facts.append(ImageFacts(service.name, service.role.value, str(service.image), identity, digests))
    return tuple(facts)


def chap_facts(world: World, stack: Stack) -> ChapFacts:
    """Return versions and schema verdict of CHAP; empty where unknown, for example when it is down."""
    version, worker_version, verdict = "", "", None
    engine, api = world.engine, stack.api.containers[0]

    workers = [worker.containers[0].id for worker in stack.of(Role.WORKER) if worker.containers[0].running]
    with ThreadPoolExecutor() as pool:
        versions = [pool.submit(chap.version_in, engine, worker) for worker in workers]
        if api.running:
            version = chap.version_in(engine, api.id)
        with suppress(ChapError):
            verdict = schema.of_stack(world, stack).to_json()
    for future in versions:
        worker_version = future.result()
    return ChapFacts(version, worker_version, verdict)


# Volumes, and data of model services in their containers


def pack_volumes(engine: Engine, stack: Stack, folder: Path, notify: Callable[..., None]) -> tuple[VolumePart, ...]:
    """Pack logs, runs and the model services' own data into `folder`/volumes, and return their facts for the manifest.

    Caches are left out.
    """
    (folder / "volumes").mkdir(mode=0o700)
    kept: dict[str, VolumePart] = {}
    names: set[str] = set()

    for volume, (service, path) in _volumes(engine, stack).items():
        part = _pack(engine, service.containers[0], path, folder, (volume, unique_name(volume, names)), notify)
        kept[volume] = VolumePart(**part, volume=volume, service=service.name, path=path)
    for service in stack.of(Role.MODEL):
        for layer in _copy_layer(engine, service, folder, names, notify):
            kept[f"{service.name}:{layer.path}"] = layer
    return tuple(kept.values())


def volumes_size(engine: Engine, stack: Stack) -> int:
    """Return how many bytes `pack_volumes` would read, as far as known: from running containers."""
    total = 0
    for service, path in _volumes(engine, stack).values():
        if service.containers[0].running:
            output = engine.run(service.containers[0].id, ["du", "-sk", path]).stdout.split()
            total += int(output[0]) * 1024 if output and output[0].isdigit() else 0
    return total


def _volumes(engine: Engine, stack: Stack) -> dict[str, tuple[Service, str]]:
    """Return the volumes to back up, each with a service that has it and its path there."""
    volumes: dict[str, tuple[Service, str]] = {}
    for service in (*stack.writers, *stack.of(Role.MODEL)):
        for volume, path in engine.volumes(service.containers[0].id):
            if not (_CACHES.search(volume) or _CACHES.search(path)):
                volumes.setdefault(volume, (service, path))
    return volumes


def _pack(
    engine: Engine, container: Container, path: str, folder: Path, names: tuple[str, str], notify: Callable[..., None]
) -> dict[str, Any]:
    name, file = names
    target = folder / "volumes" / f"{file}.tar.gz"
    with disk_errors(folder.parent):
        facts = write_hashed(
            target,
            _gzipped(engine.archive(container.id, f"{path}/.")),
            lambda done: notify("backup", f"volume {name}", done, 0),
        )
    return {**facts, "file": f"volumes/{target.name}", "entries": read_tar(target)}


def unique_name(text: str, taken: set[str]) -> str:
    """Return a unique file name of limited length for a container's name of something; add it to `taken`."""
    name, number = file_name(text)[:_LONGEST_NAME], 1
    while name in taken:
        number += 1
        name = f"{file_name(text)[:_LONGEST_NAME]}-{number}"
    taken.add(name)
    return name


def read_tar(path: Path) -> int:
    """Read a packed volume from its first byte to its last and return how many entries it has.

    Raise DumpError when it is damaged.
    """
    try:
        with tarfile.open(path, "r|gz") as archive:
            return sum(1 for _ in archive)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DumpError(f"{path.name} cannot be read back: {error}.") from None


def _gzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    class Out:
        """The sink of GzipFile."""

        def __init__(self) -> None:
            self.pieces: list[bytes] = []

        def write(self, data: bytes) -> None:
            self.pieces.append(data)

        def flush(self) -> None: ...

    out = Out()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as packed:
        for data in pieces:
            packed.write(data)
            yield from out.pieces
            out.pieces.clear()
    yield from out.pieces


def _copy_layer(
    engine: Engine, service: Service, folder: Path, names: set[str], notify: Callable[..., None]
) -> Iterator[VolumePart]:
    """Copy the SQLite databases that a model service has in its container, outside of volumes."""
    container = service.containers[0]
    changed = engine.changed_files(container.id)
    for path in sorted(filter(_SQLITE.search, {_BESIDE.sub("", name) for name in changed})):
        target = folder / "volumes" / unique_name(service.name + path, names)
        if container.running:
            pieces = _sqlite(engine, container, path)
        else:
            files = [path, *(name for name in changed if name != path and _BESIDE.sub("", name) == path)]
            pieces = _stopped_sqlite(engine, container, files, target.parent)
        facts = write_hashed(target, pieces, lambda done: notify("backup", f"{service.name}:{path}", done, 0))
        facts["file"] = f"volumes/{target.name}"
        yield VolumePart(**facts, service=service.name, path=path)


def _sqlite(engine: Engine, container: Container, path: str) -> Iterator[bytes]:
    with engine.execute(container.id, [*chap_scripts.PYTHON, _COPY_SQLITE, path]) as execution:
        yield from execution.output()
        if execution.status() != 0:
            stderr = execution.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise DumpError(
                f"The data of {container.name} ({path}) could not be copied: {stderr[-1]}",
                hint="Mend the model service, or leave its data out: docker chap backup",
            )


def _stopped_sqlite(engine: Engine, container: Container, files: list[str], folder: Path) -> Iterator[bytes]:
    """Copy the database of a stopped service, with committed changes that are still in a file beside it.

    The first of `files` is the database. SQLite merges all of them into a single file.
    """
    # Not every Python has sqlite3, and only this function needs it.
    import sqlite3

    with tempfile.TemporaryDirectory(dir=folder) as private:
        copy = Path(private, "data")
        for path in files:
            with open(f"{copy}{path.removeprefix(files[0])}", "wb") as written:
                written.writelines(_only_file(engine, container, path))
        try:
            with closing(sqlite3.connect(copy)) as database:
                intact = database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            intact = False
        if not intact:
            raise DumpError(
                f"The data of {container.name} ({files[0]}) are damaged, or no SQLite database.",
                hint="Mend the model service, or leave its data out: docker chap backup",
            )
        with open(copy, "rb") as file:
            while data := file.read(1 << 16):
                yield data


def _only_file(engine: Engine, container: Container, path: str) -> Iterator[bytes]:
    class In:
        """The source of tarfile."""

        def __init__(self) -> None:
            self._pieces, self._rest = engine.archive(container.id, path), b""

        def read(self, size: int) -> bytes:
            while len(self._rest) < size and (data := next(self._pieces, b"")):
                self._rest += data
            data, self._rest = self._rest[:size], self._rest[size:]
            return data

    with tarfile.open(fileobj=In(), mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            if file := archive.extractfile(member):
                while data := file.read(1 << 16):
                    yield data
