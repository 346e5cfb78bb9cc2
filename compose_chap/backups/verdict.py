"""The last word about a backup, in the file `proof.json` beside its manifest.

    {"at": "2026-11-23T04:15:00+00:00", "how": "test-restored", "restored_at": "2026-11-23T04:15:00+00:00"}
    {"at": "2026-11-24T04:15:00+00:00", "how": "read back", "restored_at": "2026-11-23T04:15:00+00:00"}
    {"at": "2026-11-25T04:15:00+00:00", "how": "bad", "by": "checksums", "why": ".env is not what was written."}

A weaker proof never takes the place of a better one: the date of the last test-restore stays.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from compose_chap import reading
from compose_chap.errors import DumpError
from compose_chap.records.files import own_folder

FILE = "proof.json"

# How a backup was proven, each way better than the one before it; or that it was found to be bad.
CHECKSUMS, READ_BACK, RESTORED = PROOFS = ("checksums", "read back", "test-restored")
BAD = "bad"

_LONGEST = 1 << 20  # bytes


@dataclass(frozen=True)
class Proof:
    """When a backup was last looked at, and how that ended; for a bad one `why`, and `by` which proof it failed.

    `restored_at` is when it was last test-restored, whatever weaker proof came later; None for never.
    """

    at: datetime
    how: str
    by: str = ""
    why: str = ""
    restored_at: datetime | None = None

    @property
    def best(self) -> str:
        """The best proof that it passed, or that it is bad."""
        return RESTORED if self.restored_at and self.how != BAD else self.how

    @property
    def best_at(self) -> datetime:
        """When it passed that."""
        return self.restored_at if self.restored_at and self.how != BAD else self.at


def read(folder: Path, made_at: datetime) -> Proof:
    """Return the last word about the backup in a folder, which was read back at `made_at` when it was made.

    A word that cannot be read says nothing.
    """
    with suppress(FileNotFoundError, DumpError):
        word = reading.read_document(folder / FILE, DumpError, limit=_LONGEST, own=True)
        by, why = (part.text() if (part := word.get(name)) else "" for name in ("by", "why"))
        at, how, restored = word.at("at").moment(), word.at("how").filled(), word.get("restored_at")
        # Older versions wrote one date only.
        restored_at = restored.moment() if restored else at if how == RESTORED else None
        return Proof(at, how, by, why, restored_at)
    return Proof(made_at, READ_BACK)


def record(folder: Path, last: Proof, at: datetime, how: str, why: str = "") -> None:
    """Write down that the backup in a folder passed the proof `how`, or, with `why`, that it failed it.

    `last` was the last word so far. A proof that is passed says nothing against a better one that failed. Raise
    StateError when it cannot be written.
    """
    if why:
        _write(folder, Proof(at, BAD, how, why, last.restored_at))
    elif last.how == BAD and last.by in PROOFS[PROOFS.index(how) + 1 :]:
        return
    elif how == CHECKSUMS:
        # The bytes are those that were read back before. That stays the last word, or becomes it again.
        if last.how == BAD and last.restored_at:
            _write(folder, Proof(last.restored_at, RESTORED, restored_at=last.restored_at))
        elif last.how == BAD:
            own_folder.remove(folder / FILE)
    else:
        _write(folder, Proof(at, how, restored_at=at if how == RESTORED else last.restored_at))


def _write(folder: Path, proof: Proof) -> None:
    word = {
        "at": proof.at.isoformat(),
        "how": proof.how,
        **({"by": proof.by, "why": proof.why} if proof.why else {}),
        **({"restored_at": proof.restored_at.isoformat()} if proof.restored_at else {}),
    }
    own_folder.write(folder / FILE, (json.dumps(word) + "\n").encode())
