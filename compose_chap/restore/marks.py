"""How old data are, by comparing their Alembic mark with the revisions that the installed code knows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from compose_chap.engine.world import World
from compose_chap.errors import EngineError
from compose_chap.image import release_key
from compose_chap.model import Stack
from compose_chap.postgres.database_schema import MARK_TABLE
from compose_chap.postgres.server import Server
from compose_chap.stack import model_schema
from compose_chap.transaction.data.value_query import OLD_MARK, PREDICTION_LENGTH

# What v2.2.0 and newer take a database without a mark for, and the first revision after it.
_STAMPED, _COUNTED = "a7b8c9d0e1f2", "b8c9d0e1f2a3"
# The chain of CHAP by the release that each part came with, for an API that is down.
_KNOWN = (
    ("1.1.0", ("fe59a33965ed",)),
    ("1.1.1", ("ff2b1bbb8418",)),
    ("1.1.5", ("a1b2c3d4e5f6",)),
    ("2.0.0", ("b2c3d4e5f6a7", "c3d4e5f6a7b8", "d4e5f6a7b8c9", "e5f6a7b8c9d0", "f6a7b8c9d0e1")),
    ("2.1.0", (_STAMPED,)),
    ("2.2.0", (_COUNTED, "c9d0e1f2a3b4", "d0e1f2a3b4c5", "e1f2a3b4c5d6")),
    ("2.3.0", ("f2a3b4c5d6e1",)),
    ("2.3.1", ("a3b4c5d6e7f2",)),
    ("2.4.0", ("b4c5d6e7f8a3", "c5d6e7f8a3b4", "d6e7f8a3b4c5", "e7f8a3b4c5d6")),
    ("2.5.0", ("de7478f3ff6d",)),
)
_NEWEST = "2.5.1"


def of_database(server: Server, database: str) -> tuple[str, ...]:
    """Return the marks in a database, empty if it has no table for them. Raise DatabaseError."""
    if "version_num" not in server.columns(database).get(MARK_TABLE, ()):
        return ()
    rows = server.query(f"SELECT version_num FROM {MARK_TABLE} ORDER BY 1 LIMIT 10", database)
    return tuple(str(row[0]) for row in rows)


def chain_of(world: World, stack: Stack, version: str) -> tuple[str, ...]:
    """Return the revisions that the code of a stack's API knows, oldest first; empty if unknown.

    When the image cannot be read, they come from its `version`, if that release is known.
    """
    with suppress(EngineError):
        if chain := model_schema.of_stack(world, stack).chain:
            return chain
    return known_chain(version)


def known_chain(version: str) -> tuple[str, ...]:
    """Return the revisions that a release has, the oldest first; none for one that this tool does not know."""
    here, newest = release_key(version), release_key(_NEWEST)
    if not here or not newest or here > newest:
        return ()
    return tuple(revision for first, part in _KNOWN if (release_key(first) or here) <= here for revision in part)


def unknown(marks: Sequence[str], chain: Sequence[str]) -> str:
    """Return a mark that a newer CHAP has left, empty where there is none or the code does not say what it knows."""
    return next((mark for mark in marks if chain and mark not in chain), "")


def says_older(marks: Sequence[str], chain: Sequence[str]) -> bool:
    """Whether data are surely not newer than the code: up to v2.1.0 CHAP leaves no mark that can be relied on."""
    return _COUNTED in chain and not unknown(marks, chain)


def repairs(marks: Sequence[str], chain: Sequence[str]) -> tuple[str, ...]:
    """Return what is to be mended, by name, where code from v2.2.0 on migrates data from before it."""
    if _COUNTED not in chain or _STAMPED not in chain:
        return ()
    positions = [chain.index(mark) for mark in marks if mark in chain]
    if positions and max(positions) > chain.index(_STAMPED):
        return ()
    old = any(position < chain.index(_STAMPED) for position in positions)
    return (OLD_MARK, PREDICTION_LENGTH) if old else (PREDICTION_LENGTH,)
