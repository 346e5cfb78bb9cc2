"""Backups as a table for people, and as documents for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from compose_chap import units
from compose_chap.backups.catalogue import Backup
from compose_chap.backups.verdict import RESTORED
from compose_chap.cli.screen.layout import table
from compose_chap.model import Origin

# A proof that came with the backup needs no age of its own.
_SAME_TIME = 3600  # seconds


def backup_document(backup: Backup) -> dict[str, Any]:
    """Return a backup for scripts."""
    bad = backup.proof.how == "bad"
    return {
        **backup.manifest.to_json(),
        "folder": str(backup.folder),
        "size": backup.size,
        "pinned": backup.pinned,
        "proven_at": None if bad else backup.proof.best_at.isoformat(),
        "proven_by": None if bad else backup.proof.best,
        "read_back_at": None if bad else backup.proof.at.isoformat(),
        "test_restored_at": backup.proof.restored_at.isoformat() if backup.proof.restored_at else None,
        "fault": backup.fault,
    }


def backups_table(backups: Sequence[Backup], origin: Origin, now: datetime) -> str:
    """Return a line for each backup; of which stack it is, and where, only if that is not the same for all."""
    heads = ["BACKUP", "AGE", "SIZE", "CHAP", "PROVEN", "STACK", "FOLDER", "REASON"]
    mixed = not all(origin.owns(backup.origin) for backup in backups)
    apart = len({backup.folder.parent for backup in backups}) > 1
    return table([_row(backup, now, mixed, apart) for backup in backups], heads)


def _row(backup: Backup, now: datetime, mixed: bool, apart: bool) -> list[str]:
    reason = backup.manifest.reason
    reason += ", pinned" if backup.pinned else ""
    reason += ", needs --trust" if backup.manifest.unexpected else ""
    return [
        backup.id,
        units.short_age(backup.created_at, now),
        units.size(backup.size),
        backup.manifest.chap.version or "?",
        _proven(backup, now),
        str(backup.origin) if mixed else "",
        str(backup.folder.parent) if apart else "",
        reason,
    ]


def _proven(backup: Backup, now: datetime) -> str:
    if backup.fault:
        return "BAD"
    how = "restored" if backup.proof.best == RESTORED else backup.proof.best
    if (backup.proof.best_at - backup.created_at).total_seconds() < _SAME_TIME:
        return how
    return f"{how} {units.short_age(backup.proof.best_at, now)}"
