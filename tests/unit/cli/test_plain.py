"""A terminal is shown what comes from outside, and obeys none of it."""

from __future__ import annotations

import io
import unicodedata

import pytest

from compose_chap.check import Check
from compose_chap.cli.screen import layout, render
from compose_chap.cli.screen.checks import checks_text
from compose_chap.cli.screen.plain import plain, single_line
from compose_chap.cli.screen.progress import Progress
from compose_chap.errors import ChapError

EVIL = [
    "\x1b[2J\x1b[H",
    "\x1b]0;title\x07",
    "\x1b]52;c;aGVsbG8=\x1b\\",
    "\x1b]8;;http://evil.example\x07",
    "\x1b[8m",
    "\x1b[1;31m",
    "\x9b31m",
    "\x9d0;title\x9c",
    "\x1bP1$r\x1b\\",
    "\x1bc",
    "\b\b\b",
    "\r",
    "\x07",
    "\0",
    "\x7f",
    "\u202e",
    "\u2066",
    "\u200f",
    "\u2028",
    "\ufeff",
    "\u200b",
]


def controls(text: str) -> str:
    """Return what of a text a terminal would obey, but for the ends of lines and the tool's own colours."""
    return "".join(
        character
        for character in text
        if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") and character not in "\n\t"
    )


@pytest.mark.parametrize("evil", EVIL)
def test_what_a_terminal_would_obey_is_gone_wherever_it_is_printed(
    evil: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"a{evil}b"
    assert plain(text) == "ab"
    stream = io.StringIO()
    progress = Progress(stream, "plain")
    progress("check", text)
    progress("failed", text)
    render.tell(text)
    render.tell(render.failure(ChapError(text, state=text, hint=text)))
    render.write(text)
    render.write(layout.table([[text, "x"]], ["HEAD", "TAIL"]))
    render.write(layout.facts([("Project", text)]))
    render.write(checks_text([Check("name", "fail", text, text)]))
    shown = capsys.readouterr()
    for output in (stream.getvalue(), shown.out, shown.err):
        assert "ab" in output and not controls(output), repr(output)


def test_a_value_does_not_pretend_to_be_a_line_of_its_own() -> None:
    assert single_line("a\nError: b\r\n\tc") == "a Error: b c"
    assert layout.table([["a\nb", "c"]]) == "a b  c"


def test_what_is_only_strange_stays() -> None:
    for text in ("Lao ພາສາລາວ", "نمی\u200cخواهم", "क्\u200dष", "a\tb\n  c", "emoji 🦟", ""):
        assert plain(text) == text


def test_only_the_tool_s_own_colours_stay_and_only_where_they_are_wanted() -> None:
    assert plain("\x1b[32mok\x1b[0m \x1b[8mhidden", colours=True) == "\x1b[32mok\x1b[0m hidden"
    assert plain("\x1b[32mok\x1b[0m") == "ok"
