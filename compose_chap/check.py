"""The answer to one question about a stack, in the shape that chap-checker gives its own checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Check:
    """The answer to one question about the stack; `status` is ok, warn, fail, error or skipped."""

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
