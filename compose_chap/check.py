"""The answer to one question about a stack, in the shape that chap-checker gives its own checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from compose_chap.errors import ChapError

# Names of checks are identifiers for scripts. Where their words alone do not say it, it is said here.
_WORDS = {
    "compose_files": "files readable",
    "failed_data": "new data",
    "good_way": "upgrade path",
    "healthy_now": "health",
    "interrupted_run": "unfinished run",
    "old_mark": "old revision",
    "mark_behind": "revision behind",
    "roads": "upgrade path",
    "release_files": "files of release",
    "room": "free space",
    "same_version": "one version",
    "version_path": "version",
    "written_meanwhile": "newer data",
}


def words_of(name: str) -> str:
    """Return the name of a check in words."""
    return "note" if name.startswith("note_") else _WORDS.get(name, name.replace("_", " "))


@dataclass(frozen=True)
class Finding:
    """The answer to a question that has no name yet; `status` is ok, warn, fail, error or skipped."""

    status: str
    message: str
    hint: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def named(self, name: str, duration_ms: int = 0) -> Check:
        """Return the check of that name with this answer."""
        return Check(name, self.status, self.message, self.hint, self.details, duration_ms)


# Each takes the message, then the hint and the details.
ok = partial(Finding, "ok")
warn = partial(Finding, "warn")
fail = partial(Finding, "fail")
skipped = partial(Finding, "skipped")


@dataclass(frozen=True)
class Check:
    """A question about the stack, and the answer to it."""

    name: str
    status: str
    message: str
    hint: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    duration_ms: int = 0

    @property
    def failed(self) -> bool:
        """Whether this blocks the operation."""
        return self.status in ("fail", "error")


def failures(checks: Iterable[Check]) -> str:
    """Return the messages of the checks that failed."""
    return " ".join(check.message for check in checks if check.failed)


def answered(
    name: str, clock: Callable[[], datetime], look: Callable[[], Finding], *, if_raised: str = "error"
) -> Check:
    """Ask a question and return the check, with the time it took. A ChapError counts as the status `if_raised`."""
    begun = clock()
    try:
        finding = look()
    except ChapError as error:
        finding = Finding(if_raised, error.message, error.hint)
    took = int((clock() - begun).total_seconds() * 1000)
    return finding.named(name, took)
