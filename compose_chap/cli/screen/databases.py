"""What is in a database, and who is connected to it, in words."""

from __future__ import annotations

from collections.abc import Mapping

from compose_chap.postgres.server import Session
from compose_chap.units import several

NOWHERE_ELSE = "Their rows may be nowhere else:"


def rows_text(tables: Mapping[str, int]) -> str:
    """Return how much a database or a dump holds, from the rows of each table."""
    return f"{several(sum(tables.values()), 'row')} in {several(len(tables), 'table')}"


def session_ends(session: Session) -> str:
    """Say who will be disconnected from the database."""
    who = f"{session.application or 'unnamed'} (role {session.role}, from {session.address})"
    return f"this connection will be closed: {who}."


def set_aside_text(database: str, size: str) -> str:
    """Say why a database stays that is old, and how to remove it."""
    return (
        f"Database {database} ({size}) is kept: its rows may be nowhere else, so only a person removes it."
        " When nobody needs it: docker chap prune"
    )
