"""Texts without passwords."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

# A password may hold anything but the characters that end a URL in a text: an @ or a slash too.
_IN_URL = re.compile(r"""(://[^\s:/@"'<>]*):[^\s"'<>]+@""")
_NAMED = r"[\w.-]*(?:password|passwd|passphrase|pwd|secret|token|credential)s?"
# A name with a dot in front of it does not count, nor does PWD alone: that is the working directory.
_ASSIGNED = re.compile(
    rf"""(?i)(?<![\w.-])(?!(?:old)?pwd=)({_NAMED}\s*=\s*)('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|(?!\$\{{)[^\s&;,'"]+)"""
)
_QUOTED = re.compile(rf"""(?i)(["']{_NAMED}["']\s*:\s*)("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")


def redact(text: str, hidden: Iterable[str] = ()) -> str:
    """Return a text without passwords: those in URLs, in `password=...` and the like, and those in `hidden`."""
    for secret in hidden:
        for spelled in (secret, json.dumps(secret)[1:-1], quote(secret, safe="")):
            text = text.replace(spelled, "***")
    text = _IN_URL.sub(r"\1:***@", text)
    return _QUOTED.sub(r'\1"***"', _ASSIGNED.sub(r"\1***", text))


def passwords_in(value: str) -> list[str]:
    """Return the passwords in a value, as written and URL-decoded: in a URL, or in a DSN."""
    passwords = re.findall(r"://[^\s:/@]*:(\S+)@", value)
    passwords += [word.strip("'\"") for _, word in _ASSIGNED.findall(value)]
    return [spelled for password in passwords for spelled in dict.fromkeys((password, unquote(password)))]
