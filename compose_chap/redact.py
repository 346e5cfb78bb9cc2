"""Texts without passwords."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from urllib.parse import quote, quote_plus, unquote

# A password may hold anything but the characters that end a URL in a text: an @ or a slash too. In two steps, so that
# no text takes time that grows with the square of its length.
_WORD = re.compile(r"""[^\s"'<>]+""")
_USER = re.compile(r"(://[^:/@]*):(.+)", re.DOTALL)
_NAMED = r"[\w.-]*(?:password|passwd|passphrase|pwd|secret|token|credential)s?"
# A name with a dot in front of it does not count, nor does PWD alone: that is the working directory.
_ASSIGNED = re.compile(
    rf"""(?i)(?<![\w.-])(?!(?:old)?pwd=)({_NAMED}\s*=\s*)('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|(?!\$\{{)[^\s&;,'"]+)"""
)
_QUOTED = re.compile(rf"""(?i)(["']{_NAMED}["']\s*:\s*)("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")

# What a parser found wrong: it quotes a value, which may be a password with a `$` or a quote in it. The reason stays.
_QUOTING = tuple(
    (re.compile(pattern, re.DOTALL), reason)
    for pattern, reason in (
        (r"(invalid interpolation format for \S+)\.\n.*", r"\1."),
        (r"(unterminated quoted value) .*", r"\1"),
        (r"(unexpected character \S+) (?:in variable name|near) .*", r"\1 in the name of a variable"),
        (r"(Invalid template): .*", r"\1"),
        (r"strconv\.\w+: parsing .*?: (?=invalid syntax|value out of range)", ""),
        (r"(invalid duration|in duration|unknown unit) (?:\"[^\n]*\"|'[^\n]*')", r"\1"),
        (r"(?i)\b(invalid (?!syntax|reference)[\w ,]+|no port specified): [^\n]*", r"\1"),
        (r"((?:unknown anchor|found undefined alias)) '[^\n]*'", r"\1"),
        (r"'[^\n]*' (?=does not match|is not valid)", ""),
        (r"contains [^\n]*, which is an invalid type", "contains an invalid type"),
        (r"(, value): [^\n]*", r"\1 not shown"),
        (r"(cannot unmarshal !!\w+) `[^`]*`", r"\1"),
        (r"(?m)^[^\n]*level=warning[^\n]*variable is not set[^\n]*\n?", ""),
    )
)


def without_content(text: str) -> str:
    """Return what Compose, or a parser, found wrong in a file: where and why, without what is written there."""
    for pattern, reason in _QUOTING:
        text = pattern.sub(reason, text)
    return text


def redact(text: str, hidden: Iterable[str] = ()) -> str:
    """Return a text without passwords: those in URLs, in `password=...` and the like, and those in `hidden`."""
    for secret in hidden:
        for spelled in _spellings(secret):
            text = text.replace(spelled, "***")
    text = _WORD.sub(_without_password, text)
    return _QUOTED.sub(r'\1"***"', _ASSIGNED.sub(r"\1***", text))


def _without_password(match: re.Match[str]) -> str:
    before, at, rest = match[0].rpartition("@")
    return _USER.sub(r"\1:***", before, count=1) + at + rest if at else match[0]


def _spellings(secret: str) -> Iterator[str]:
    yield from (
        secret,
        json.dumps(secret)[1:-1],
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        repr(secret)[1:-1],
    )
    # Without its padding, so that what stands before more of the same text is found too.
    yield base64.b64encode(secret.encode(errors="surrogateescape")).decode().rstrip("=")


def without_values(words: Sequence[str], options: Collection[str]) -> list[str]:
    """Return the words of a command without the values of some options, which are secret as a whole."""
    shown: list[str] = []
    for before, word in zip(["", *words], words):
        name = word.partition("=")[0]
        shown.append("***" if before in options else f"{name}=***" if name in options and name != word else word)
    return shown


def passwords_in(value: str) -> list[str]:
    """Return the passwords in a value, as written and URL-decoded: in a URL, or in a DSN."""
    words_with_at = (word.rpartition("@")[0] for word in value.split() if "@" in word)
    passwords = [match[2] for word in words_with_at if (match := _USER.search(word))]
    words = [word.strip("'\"") for _, word in _ASSIGNED.findall(value)]
    passwords += [*words, *(re.sub(r"\\(.)", r"\1", word) for word in words)]
    return [spelled for password in passwords for spelled in dict.fromkeys((password, unquote(password)))]
