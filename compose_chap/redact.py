"""Texts without passwords."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

# A password may hold anything but what ends a URL where it stands, an @ or a slash too.
_IN_URL = re.compile(r"""(://[^\s:/@"'<>]*):[^\s"'<>]+@""")
_NAMED = r"[\w.-]*(?:password|passwd|passphrase|pwd|secret|token|credential)s?"
# A name with a dot in front of it, or PWD alone, is none: that is where a process stands.
_ASSIGNED = re.compile(
    rf"""(?i)(?<![\w.-])(?!(?:old)?pwd=)({_NAMED}\s*=\s*)('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|(?!\$\{{)[^\s&;,'"]+)"""
)
_QUOTED = re.compile(rf"""(?i)(["']{_NAMED}["']\s*:\s*)("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")


def redact(text: str, hidden: Iterable[str] = ()) -> str:
    """Return a text without passwords: those in URLs, in `password=...` and its like, and `hidden`."""
    for secret in hidden:
        for spelled in (secret, json.dumps(secret)[1:-1], quote(secret, safe="")):
            text = text.replace(spelled, "***")
    text = _IN_URL.sub(r"\1:***@", text)
    return _QUOTED.sub(r'\1"***"', _ASSIGNED.sub(r"\1***", text))


def passwords_in(value: str) -> list[str]:
    """Return the passwords that a setting holds, as it spells them and as they are: of a URL, or of a DSN."""
    found = re.findall(r"://[^\s:/@]*:(\S+)@", value)
    found += [word.strip("'\"") for _, word in _ASSIGNED.findall(value)]
    return [spelled for one in found for spelled in dict.fromkeys((one, unquote(one)))]
