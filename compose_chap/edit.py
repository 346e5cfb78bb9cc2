"""An edit of a file: planned by one part, carried out, written down and taken back by others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Edit:
    """A change of one file from exactly these bytes to those; None is no file."""

    path: Path
    before: bytes | None
    after: bytes | None
