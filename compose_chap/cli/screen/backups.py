"""A backup as a document for scripts."""

from __future__ import annotations

from typing import Any

from compose_chap.backups.catalogue import Backup


def backup_document(one: Backup) -> dict[str, Any]:
    bad = one.proof.how == "bad"
    return {
        **one.manifest.to_json(),
        "folder": str(one.folder),
        "size": one.size,
        "pinned": one.pinned,
        "proven_at": None if bad else one.proof.best_at.isoformat(),
        "proven_by": None if bad else one.proof.best,
        "read_back_at": None if bad else one.proof.at.isoformat(),
        "test_restored_at": one.proof.restored_at.isoformat() if one.proof.restored_at else None,
        "fault": one.fault,
    }
