"""Prove a backup once more: by its checksums, by reading its dumps whole, or by restoring them beside everything."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from compose_chap import units
from compose_chap.backups import catalogue, dump_file, other_files
from compose_chap.backups.catalogue import CHECKSUMS, READ_BACK, RESTORED, Backup
from compose_chap.engine.world import World
from compose_chap.errors import DatabaseError, DumpError, StateError
from compose_chap.postgres import dump_format, jail, pg_tools, unexpected
from compose_chap.postgres.dump_format import Contents
from compose_chap.postgres.sandbox import Quarantine
from compose_chap.postgres.server import Database, Server, identifier, literal

_ROLE = "docker_chap_proof"
# What a server of its own takes, before there are any data.
_LEAST = 1 << 30
_OF_THIS_SERVER = re.compile(r'No space left|role ".*" does not exist')


@contextmanager
def _on_trial(world: World, backup: Backup, how: str) -> Iterator[None]:
    """Write down that a backup is bad when the block finds so."""
    try:
        yield
    except DumpError as error:
        # One on a disk that cannot be written is as bad without a word about it.
        with suppress(StateError):
            catalogue.record_verdict(backup, world.clock(), how, error.message)
        error.state = error.state or f"Backup {backup.id} counts as bad until it passes this proof."
        if how == CHECKSUMS and (alone := catalogue.dump_alone(backup)):
            error.hint += f"\n{alone}"
        raise


def check_sums(world: World, backup: Backup) -> None:
    """Check every checksum of a backup, and that its packed volumes can be unpacked.

    Raise DumpError when it is bad; that is written down.
    """
    with _on_trial(world, backup, CHECKSUMS):
        for part in backup.manifest.parts:
            path = backup.folder / part.file
            found = dump_file.sha256_of(path, lambda done: world.notify("prove", part.file, done, part.size))
            if found != part.sha256:
                raise DumpError(f"Backup {backup.id} is damaged: {part.file} is not what was written.")
            if path.name.endswith(".tar.gz"):
                other_files.read_tar(path)


def verify(world: World, backup: Backup, server: Server | None) -> str:
    """Check every checksum of a backup, and have pg_restore read its dumps whole where there is a server to do it.

    Return how it was proven. Raise DumpError when it is bad, which is written down; ChapError when it cannot be told.
    """
    check_sums(world, backup)
    if server:
        with _on_trial(world, backup, READ_BACK):
            for dump in _dumps(backup):
                pg_tools.read_to_end(server, _pieces(world, backup.folder / dump["dump"]["file"]))
    how = READ_BACK if server else CHECKSUMS
    catalogue.record_verdict(backup, world.clock(), how)
    return how


def verify_deep(world: World, backup: Backup, image: str = "") -> dict[str, int]:
    """Restore a backup into a PostgreSQL that has no network and is thrown away, and compare every table's count.

    `image` is what to use instead of the image that the backup was made with, when that is gone. Return the
    rows that were found. Raise DumpError when anything differs from the manifest; that is written down.
    """
    check_sums(world, backup)
    found: dict[str, int] = {}
    for dump in _dumps(backup):
        used = dump["image"] if world.engine.image(dump["image"]) else image
        with jail.server(world, used, most=_needed(dump) * 4 + _LEAST) as server:
            with _on_trial(world, backup, RESTORED):
                found |= _restored(world, backup, dump, server)
    catalogue.record_verdict(backup, world.clock(), RESTORED)
    return found


def image_of(backup: Backup) -> str:
    """Return the id of the PostgreSQL image that a backup was made with, empty when it does not say."""
    roles = {image.role: image.id for image in backup.manifest.images}
    return roles.get("database", "")


def _needed(dump: Mapping[str, Any]) -> int:
    return int(dump["database"]["size"]) + int(dump["dump"]["size"])


def _restored(world: World, backup: Backup, dump: Mapping[str, Any], server: Server) -> dict[str, int]:
    name, needed = dump["database"]["name"], _needed(dump)
    if server.free_space() < needed:
        raise DatabaseError(f"The engine's disk has no room for the test: about {units.size(needed)} are needed.")
    quarantine = Quarantine(server, "proof")
    quarantine.make()
    with open(backup.folder / dump["dump"]["file"], "rb") as file:
        path = quarantine.upload(file, "dump", lambda done: world.notify("prove", "copy", done, dump["dump"]["size"]))

    password = secrets.token_urlsafe(24)
    contents = dump_format.contents(quarantine.listing(path))
    recorded = dump.get("foreign")
    if recorded is not None:
        refuse_unrecorded(contents, recorded)
    server.command(f"CREATE ROLE {_ROLE} LOGIN NOSUPERUSER PASSWORD {literal(password)};")
    server.create("proof", like(server, dump["database"]))
    server.command(f"ALTER DATABASE proof OWNER TO {identifier(_ROLE)};")
    world.notify("prove", f"restoring {name}")
    # Nobody gets power here because a backup asks for it. What wants it is left out, and holds no rows.
    beyond = [name for name in recorded or () if dump_format.is_beyond_trust(name)] or contents.beyond_trust()
    contents = unexpected.make_extensions(quarantine, path, contents.without_beyond_trust(), "proof", _ROLE)
    try:
        quarantine.restore(path, contents.without_privileges(), "proof", _ROLE, password, strict=not beyond)
    except DumpError as error:
        # Then it is not the dump that is at fault: this server is full, or gone, or lacks a role of production.
        if _OF_THIS_SERVER.search(error.message) or not server.ready():
            raise DatabaseError(error.message, hint="Run the command again.") from None
        raise

    world.notify("prove", f"counting the rows of {name}")
    found = server.counts("proof")
    compare(found, dump["tables"])
    return found


def refuse_unrecorded(contents: Contents, recorded: Sequence[str]) -> None:
    """Raise DumpError for an archive with a kind of object that no dump of CHAP has, and its manifest does not name."""
    # A manifest has other words for some than pg_restore, so one that names anything at all is not held against it.
    if not recorded and (foreign := contents.unexpected()):
        raise DumpError(f"The dump holds what its manifest does not name: {foreign[0].called}.")


def compare(found: Mapping[str, int], recorded: Mapping[str, int]) -> None:
    """Raise DumpError, with the tables that differ, unless the restored rows are those that a manifest recorded."""
    wrong = sorted(name for name in {*found, *recorded} if found.get(name) != recorded.get(name))
    if wrong:
        said = ", ".join(f"{name}: {found.get(name, 'none')} instead of {recorded.get(name, 'none')}" for name in wrong)
        raise DumpError(f"The restored rows are not those that the manifest recorded. {said}.")


def like(server: Server, facts: Mapping[str, Any]) -> Database:
    """Return what a database has to be created like, by what a manifest says of it."""
    template = server.databases()["postgres"]
    known = {key: facts[key] for key in Database.__dataclass_fields__ if key in facts}
    wanted = Database(**{**vars(template), **known, "owner": template.owner})
    return wanted if wanted.provider == "c" else template


def _dumps(backup: Backup) -> list[dict[str, Any]]:
    one = backup.manifest.to_json()
    # What DHIS2's database holds is not known, nor looked at.
    return [{**one, "image": image_of(backup)}, *([{**one["dhis2"], "foreign": None}] if one.get("dhis2") else [])]


def _pieces(world: World, path: Path) -> Iterator[bytes]:
    size, done = path.stat().st_size, 0
    with open(path, "rb") as file:
        while data := file.read(1 << 18):
            yield data
            done += len(data)
            world.notify("prove", f"read back {path.name}", done, size)
