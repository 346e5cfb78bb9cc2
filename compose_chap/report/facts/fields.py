"""What a record says in a field that may be missing, or hold anything: older versions wrote it, or a person did."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from compose_chap import reading
from compose_chap.records.run_records import run_began


def text(record: Mapping[str, Any], name: str) -> str:
    """Return a text, empty for anything else."""
    value = record.get(name)
    return value if isinstance(value, str) else ""


def whole(record: Mapping[str, Any], name: str) -> int | None:
    """Return a whole number that is not negative, None for anything else."""
    value = record.get(name)
    return value if type(value) is int and 0 <= value <= reading.MOST else None


def seconds(record: Mapping[str, Any], name: str) -> float | None:
    """Return a duration, None for anything else and for one of a hundred years."""
    value = record.get(name)
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known and value is not None and 0 <= value < 3e9 else None


def rows(record: Mapping[str, Any], name: str) -> dict[str, int]:
    """Return the rows of each table; a table whose number is odd is left out."""
    value = record.get(name)
    tables = value if isinstance(value, Mapping) else {}
    return {str(table): known for table in tables if (known := whole(tables, table)) is not None}


def moment_of(identity: str) -> datetime | None:
    """Return when a backup was begun, which is what its id says; None for what is no id."""
    with suppress(ValueError):
        return run_began(identity)
    return None


def started_at(text_of_engine: str) -> datetime | None:
    """Return when a container was started, as the engine writes it; None for never."""
    with suppress(ValueError):
        when = datetime.fromisoformat(text_of_engine[:19]).replace(tzinfo=timezone.utc)
        return when if when.year > 1970 else None
    return None
