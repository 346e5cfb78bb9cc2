"""Answers that are slow to get, kept for the next command in the user's own cache folder.

A cache is no record: what is missing, damaged, or not this user's alone is asked again, and nothing is lost.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def recall(name: str, environment: Mapping[str, str]) -> Any:
    """Return what was kept under a name, None where there is nothing that can be believed."""
    with suppress(OSError, ValueError):
        _private(_folder(environment).lstat(), stat.S_ISDIR)
        descriptor = os.open(_folder(environment) / f"{name}.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, encoding="utf-8") as file:
            _private(os.fstat(descriptor), stat.S_ISREG)
            return json.load(file)
    return None


def keep(name: str, answer: Any, environment: Mapping[str, str]) -> None:
    """Keep an answer that JSON can hold, where there is a cache folder of this user's own. No error where not."""
    path = _folder(environment) / f"{name}.json"
    draft = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError, ValueError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _private(path.parent.lstat(), stat.S_ISDIR)
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(answer, file)
        draft.replace(path)


def _private(facts: os.stat_result, kind: Any) -> None:
    """Raise ValueError for what is of another kind, of another user, or may be written by others."""
    if not kind(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise ValueError("It is not this user's alone.")


def _folder(environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME") or "/nonexistent", ".cache")
    return Path(base, "docker-chap")
