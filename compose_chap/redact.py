"""Texts without passwords."""

from __future__ import annotations

import re
from collections.abc import Iterable


def redact(text: str, hidden: Iterable[str] = ()) -> str:
    """Return a text without passwords: those in URLs, and `hidden`."""
    text = re.sub(r"(://[^\s:/@]*):[^\s@/]+@", r"\1:***@", text)
    for secret in hidden:
        text = text.replace(secret, "***")
    return text
