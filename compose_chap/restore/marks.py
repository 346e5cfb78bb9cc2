"""How old data are, by comparing their Alembic mark with the revisions that the installed code knows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from compose_chap import revisions
from compose_chap.engine.world import World
from compose_chap.errors import EngineError
from compose_chap.model import Stack
from compose_chap.postgres.database_schema import DatabaseSchema
from compose_chap.stack import model_schema
from compose_chap.transaction.data.repairs import HALF_MIGRATED, OLD_MARK, PREDICTION_LENGTH, TARGET_COLUMN


def chain_of(world: World, stack: Stack, version: str) -> tuple[str, ...]:
    """Return the revisions that the code of a stack's API knows, oldest first; empty if unknown.

    When the image cannot be read, they come from its `version`, if that release is known.
    """
    with suppress(EngineError):
        if chain := model_schema.of_stack(world, stack).chain:
            return chain
    return revisions.of_release(version)


def repairs(has: DatabaseSchema, chain: Sequence[str], *, backtests: bool) -> tuple[str, ...]:
    """Return what is to be mended, by name, where code from v2.2.0 on migrates data from before it or from before v2.3.

    `backtests` says whether the data have any.
    """
    if revisions.COUNTED not in chain or revisions.STAMPED not in chain:
        return ()
    stamped = chain.index(revisions.STAMPED) + 1
    reached = revisions.reached(has.marks, chain)
    names = []
    if 0 < reached < stamped:
        names.append(OLD_MARK)
    if reached <= stamped:
        names.append(PREDICTION_LENGTH)
    if backtests and revisions.TARGET_COLUMN in chain and reached <= chain.index(revisions.SPECIFICATIONS):
        names.append(HALF_MIGRATED if "backtestspecification" in has.tables else TARGET_COLUMN)
    return tuple(names)
