"""What comes from outside, as a terminal may show it: without control characters, escape sequences and bidi tricks."""

from __future__ import annotations

import re
import unicodedata

# A terminal obeys these: colours, the window's title, the clipboard, links.
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[^\n]?"
)
_OWN_COLOURS = re.compile(r"\x1b\[(?:0|2|31|32|33)m")
# Persian and the languages of India are written with these two.
_JOINERS = "\u200c\u200d"


def plain(text: str, *, colours: bool = False) -> str:
    """Return a text without what a terminal would obey instead of show; lines and tabs stay.

    With `colours` those that this tool uses itself stay too.
    """
    if text.isprintable():
        return text
    parts = _OWN_COLOURS.split(text) if colours else [text]
    own = [*_OWN_COLOURS.findall(text), ""] if colours else [""]
    return "".join(_shown(part) + colour for part, colour in zip(parts, own))


def single_line(text: str) -> str:
    """Return a text, as `plain` does, on one line: a name or a value cannot pretend to be a line of its own."""
    return text if text.isprintable() else " ".join(plain(text).split())


def _shown(text: str) -> str:
    text = _SEQUENCES.sub("", text.replace("\r\n", "\n"))
    return "".join(letter for letter in text if letter in "\n\t" or letter in _JOINERS or not _is_control(letter))


def _is_control(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp")
