"""Prove a backup again: by its checksums, by reading its dumps, or by restoring them in a throwaway server."""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from compose_chap import units
from compose_chap.backups import catalogue, dump_file, volumes
from compose_chap.backups.catalogue import Backup
from compose_chap.backups.verdict import CHECKSUMS, READ_BACK, RESTORED
from compose_chap.engine.world import World
from compose_chap.errors import DatabaseError, DumpError, StateError
from compose_chap.postgres import dump_format, pg_tools
from compose_chap.postgres.dump_format import Contents
from compose_chap.postgres.server import Database, Server, identifier, literal
from compose_chap.postgres.untrusted import jail, unexpected
from compose_chap.postgres.untrusted.sandbox import Quarantine

_ROLE = "docker_chap_proof"
# The disk space of a new server without data.
_LEAST = 1 << 30
_OF_THIS_SERVER = re.compile(r'No space left|role ".*" does not exist')


@contextmanager
def _recording_failure(world: World, backup: Backup, how: str) -> Iterator[None]:
    """Record that a backup is bad when the block raises DumpError."""
    try:
        yield
    except DumpError as error:
        # On a disk that cannot be written, the verdict cannot be recorded. The error is still raised.
        with suppress(StateError):
            catalogue.record_verdict(backup, world.clock(), how, error.message)
        error.state = error.state or f"Backup {backup.id} counts as bad until it passes this check."
        if how == CHECKSUMS and (alone := catalogue.dump_alone(backup)):
            error.hint += f"\n{alone}"
        raise


def check_sums(world: World, backup: Backup) -> None:
    """Check every checksum of a backup, and that its packed volumes can be unpacked.

    Raise DumpError when it is bad, and record that.
    """
    with _recording_failure(world, backup, CHECKSUMS):
        for part in backup.manifest.parts:
            path = backup.folder / part.file
            actual = dump_file.sha256_of(path, lambda done: world.notify("prove", part.file, done, part.size))
            if actual != part.sha256:
                raise DumpError(f"Backup {backup.id} is damaged: the content of {part.file} has changed.")
            if path.name.endswith(".tar.gz"):
                volumes.read_tar(path)


def verify(world: World, backup: Backup, server: Server | None) -> str:
    """Check every checksum of a backup, and let pg_restore read its dumps completely if there is a server.

    Return how it was proven. Raise DumpError when it is bad, and record that; another ChapError when it is not known.
    """
    check_sums(world, backup)
    if server:
        with _recording_failure(world, backup, READ_BACK):
            for dump in _dumps(backup):
                path = backup.folder / dump["dump"]["file"]
                tell = functools.partial(world.notify, "prove", f"read back {path.name}")
                pg_tools.read_to_end(server, dump_file.pieces(path, tell))
    how = READ_BACK if server else CHECKSUMS
    catalogue.record_verdict(backup, world.clock(), how)
    return how


def verify_deep(world: World, backup: Backup, image: str = "") -> dict[str, int]:
    """Restore a backup into a throwaway PostgreSQL without a network, and compare the row count of every table.

    `image` is used when the image that the backup was made with is gone. Return the restored rows of each table.
    Raise DumpError when anything differs from the manifest, and record that.
    """
    check_sums(world, backup)
    restored: dict[str, int] = {}
    for dump in _dumps(backup):
        used = dump["image"] if world.engine.image(dump["image"]) else image
        with jail.server(world, used, most=_needed(dump) * 4 + _LEAST) as server:
            with _recording_failure(world, backup, RESTORED):
                restored |= _restored(world, backup, dump, server)
    catalogue.record_verdict(backup, world.clock(), RESTORED)
    return restored


def image_of(backup: Backup) -> str:
    """Return the id of the PostgreSQL image that a backup was made with, empty when unknown."""
    roles = {image.role: image.id for image in backup.manifest.images}
    return roles.get("database", "")


def _needed(dump: Mapping[str, Any]) -> int:
    return int(dump["database"]["size"]) + int(dump["dump"]["size"])


def _restored(world: World, backup: Backup, dump: Mapping[str, Any], server: Server) -> dict[str, int]:
    name, needed = dump["database"]["name"], _needed(dump)
    if server.free_space() < needed:
        raise DatabaseError(
            f"The engine's disk has no room for the test: about {units.size(needed)} are needed.",
            state="The stack was not touched.",
            hint="Make room: docker image prune, docker chap prune",
        )
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
    # A backup gets no superuser rights, even here. Objects that need them are left out; they hold no rows.
    beyond = [name for name in recorded or () if dump_format.is_beyond_trust(name)] or contents.beyond_trust()
    contents = unexpected.make_extensions(quarantine, path, contents.without_beyond_trust(), "proof", _ROLE)
    try:
        quarantine.restore(path, contents.without_privileges(), "proof", _ROLE, password, strict=not beyond)
    except DumpError as error:
        # Not the fault of the dump: this server is full, or gone, or lacks a role of production.
        if _OF_THIS_SERVER.search(error.message) or not server.ready():
            raise DatabaseError(error.message, hint="Run the command again.") from None
        raise

    world.notify("prove", f"counting the rows of {name}")
    restored = server.counts("proof")
    compare(restored, dump["tables"])
    return restored


def refuse_unrecorded(contents: Contents, recorded: Sequence[str]) -> None:
    """Raise DumpError for an archive with unexpected objects that its manifest does not name."""
    # A manifest may name some objects differently than pg_restore; one that names any is accepted.
    if not recorded and (extra := contents.unexpected()):
        raise DumpError(f"The dump holds something that its manifest does not list: {extra[0].called}.")


def compare(restored: Mapping[str, int], recorded: Mapping[str, int]) -> None:
    """Raise DumpError with the tables whose restored row count differs from the manifest."""
    wrong = sorted(name for name in {*restored, *recorded} if restored.get(name) != recorded.get(name))
    if wrong:
        details = ", ".join(
            f"{name}: {restored.get(name, 'none')} instead of {recorded.get(name, 'none')}" for name in wrong
        )
        raise DumpError(f"The restored rows differ from the manifest. {details}.")


def like(server: Server, facts: Mapping[str, Any]) -> Database:
    """Return the properties to create a database with, from its facts in a manifest."""
    template = server.databases()["postgres"]
    known = {key: facts[key] for key in Database.__dataclass_fields__ if key in facts}
    wanted = Database(**{**vars(template), **known, "owner": template.owner})
    return wanted if wanted.provider == "c" else template


def _dumps(backup: Backup) -> list[dict[str, Any]]:
    facts = backup.manifest.to_json()
    # Which objects DHIS2's database may have is not known, and not checked.
    return [
        {**facts, "image": image_of(backup)},
        *([{**facts["dhis2"], "foreign": None}] if facts.get("dhis2") else []),
    ]
