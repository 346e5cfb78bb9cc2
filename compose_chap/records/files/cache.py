"""A cache of slow answers for the next command, in the user's own cache folder.

A cache entry that is missing, damaged, or writable by others is ignored, and the question is asked again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from compose_chap import reading
from compose_chap.errors import StateError
from compose_chap.ownership import not_own
from compose_chap.reading import Value


def recall(name: str, environment: Mapping[str, str]) -> Value | None:
    """Return the cached answer of a name, None where there is none that can be trusted."""
    folder = _folder(environment)
    with suppress(OSError, StateError):
        if folder and not not_own(folder.lstat()):
            return reading.read_document(folder / f"{name}.json", StateError, own=True)
    return None


def remember(name: str, answer: Any, environment: Mapping[str, str]) -> None:
    """Cache an answer that JSON can hold, if this user has a cache folder. Never raises when that fails."""
    folder = _folder(environment)
    if folder is None:
        return
    draft = folder / f"{name}.{os.getpid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not_own(folder.lstat()):
            return
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(answer, file)
        draft.replace(folder / f"{name}.json")


def _folder(environment: Mapping[str, str]) -> Path | None:
    if base := environment.get("XDG_CACHE_HOME"):
        return Path(base, "docker-chap")
    home = environment.get("HOME")
    return Path(home, ".cache", "docker-chap") if home else None
