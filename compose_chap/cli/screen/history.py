"""The audit trail as a table for people."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime

from compose_chap.cli.screen.layout import table, width_of
from compose_chap.records.audit import AuditEntry
from compose_chap.units import clipped

_SHOWN = 100  # bytes of a message; --json has all of it
_WIDE = 120  # columns that have room for the command as it was typed


def history_table(entries: Sequence[AuditEntry], now: datetime) -> str:
    """Return a line for each attempt, with the flags where there is room for them; nothing for none."""
    heads = [f"WHEN ({now.astimezone():%Z})", "WHAT", "RESULT", "BY", "DETAILS"]
    typed = not 0 < width_of(sys.stdout) < _WIDE
    return table([_row(entry, now, typed) for entry in entries], heads) if entries else ""


def _row(entry: AuditEntry, now: datetime, typed: bool) -> list[str]:
    when = entry.began_at.astimezone()
    details = clipped(entry.message, _SHOWN) or entry.summary
    by = entry.by if typed else entry.by.partition("@")[0]
    return [
        # Without the year where that goes without saying: a line has to fit 80 columns.
        f"{when:%d %b %H:%M}" if when.year == now.year else f"{when:%d %b %Y}",
        (" ".join(entry.words) if typed else "") or entry.operation,
        entry.result,
        by + (f" as {entry.user}" if entry.user and not entry.by.startswith(f"{entry.user}@") else ""),
        details + (f" ({entry.run})" if entry.run and entry.run not in details else ""),
    ]
