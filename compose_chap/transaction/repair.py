"""Mend what is known to go wrong with the data on the way to a release, within the transaction.

It happens after the old data were kept and before the new ones are looked at. A way back brings the kept ones, so that
nothing here has to be undone.
"""

from __future__ import annotations

from collections.abc import Mapping

from compose_chap.check import Check
from compose_chap.postgres.server import Server
from compose_chap.transaction import value_query
from compose_chap.transaction.change import Change
from compose_chap.transaction.values import Column

# Faults by the names of their checks.
OLD_MARK = "old_mark"
PREDICTION_LENGTH = "prediction_length"


def before_start(server: Server, change: Change) -> Mapping[str, Column]:
    """Mend the live data before the new version migrates them. Return values that `after_migration` puts back.

    Raise DatabaseError when that cannot be done.
    """
    if OLD_MARK in change.repairs:
        server.command("DROP TABLE IF EXISTS public.alembic_version;", change.live)
    return value_query.renamed(server, change.live) if PREDICTION_LENGTH in change.repairs else {}


def after_migration(server: Server, change: Change, before: Mapping[str, Column]) -> list[Check]:
    """Mend what the migration did to the live data, and return what was mended as checks.

    Raise DatabaseError when that cannot be done.
    """
    checks = []
    if OLD_MARK in change.repairs:
        checks.append(Check("repaired", "ok", "Alembic's old mark was dropped before the new version started."))
    if before and value_query.give_back(server, change.live, before):
        names = ", ".join(sorted(label.removeprefix("public.") for label in before))
        checks.append(Check("repaired", "ok", f"The values that the migration lost were put back: {names}."))
    return checks
