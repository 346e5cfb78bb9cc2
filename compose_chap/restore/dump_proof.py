"""Prove a dump that comes without a backup: in a throwaway server, so that the stack's own never sees it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

from compose_chap.engine.world import World
from compose_chap.errors import DumpError
from compose_chap.model import Stack
from compose_chap.postgres import dump_format
from compose_chap.postgres.dump_format import Contents, Kind
from compose_chap.postgres.server import literal
from compose_chap.postgres.untrusted import jail, unexpected
from compose_chap.postgres.untrusted.sandbox import Quarantine
from compose_chap.restore import plain_dump, source
from compose_chap.restore.source import Source

_ROLE, _DATABASE = "docker_chap_proof", "proof"


@dataclass(frozen=True)
class DumpProof:
    """What a dump holds: how many tables, and what no database of CHAP has, by kind and name.

    `rows` are those of each table after a test restore, None where the dump was only read.
    """

    tables: int
    unexpected: tuple[str, ...]
    rows: Mapping[str, int] | None = None


def verify(world: World, dump: Source, stack: Stack, *, deep: bool) -> DumpProof:
    """Let a PostgreSQL like the stack's read a dump from its first byte to its last; if `deep`, restore it there too.

    A plain dump is loaded in any case: nothing else can read one. Raise DumpError when the dump is damaged, cut off or
    beyond what can be restored here; DatabaseError when there is no image to do it with, or no room.
    """
    with jail.server(world, stack.database.containers[0].image_id) as server:
        quarantine = Quarantine(server, "proof")
        quarantine.make()
        kind, path = _bring(world, dump, quarantine, stack.access.name)
        # What CHAP does not have is reported, not refused: nothing comes near CHAP here.
        contents = source.check_contents(quarantine, dump, kind, path, trust=True)
        tables = sum(entry.kind == "TABLE" for entry in contents.entries)
        if not tables:
            raise DumpError(f"{dump.path} has no tables.")
        made = DumpProof(tables, tuple(entry.called for entry in contents.unexpected()))
        if not deep:
            return made
        return replace(made, rows=_restored(world, quarantine, contents, path, parallel=kind is not Kind.TAR))


def _bring(world: World, dump: Source, quarantine: Quarantine, database: str) -> tuple[Kind, str]:
    """Bring a dump into the throwaway server; a plain one as the archive that a jail makes of it."""
    action = f"read {dump.path.name}"

    def progress(done: int) -> None:
        world.notify("prove dump", action, done, dump.size)

    def jailed(doing: str, done: int) -> None:
        world.notify("prove dump", doing, done, 0)

    progress(0)
    kind, path = source.bring(dump, quarantine, progress)
    if kind is not Kind.PLAIN:
        return kind, path
    source.check_server(dump_format.server_major(source.head(dump, quarantine, path)), quarantine.server)
    pieces = source.pieces(dump, quarantine, path, progress)
    return Kind.CUSTOM, plain_dump.archive(world, quarantine, pieces, database, jailed, trust=True).path


def _restored(
    world: World, quarantine: Quarantine, contents: Contents, path: str, *, parallel: bool
) -> Mapping[str, int]:
    """Restore an archive into the throwaway server, and return the rows of each table."""
    server, password = quarantine.server, secrets.token_urlsafe(24)
    world.notify("prove dump", "restore it")
    server.command(f"CREATE ROLE {_ROLE} LOGIN NOSUPERUSER PASSWORD {literal(password)};")
    server.create(_DATABASE, replace(server.databases()["postgres"], owner=_ROLE))
    contents = unexpected.make_extensions(quarantine, path, contents, _DATABASE, _ROLE)
    quarantine.restore(path, contents.without_privileges(), _DATABASE, _ROLE, password, parallel=parallel)
    world.notify("prove dump", "count its rows")
    return server.counts(_DATABASE)
