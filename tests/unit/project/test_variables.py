"""Variables and env files, as Compose 2.40 was seen to read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from compose_chap.errors import ComposeFileError
from compose_chap.project.variables import (
    TemplateError,
    Text,
    decode,
    defined,
    encode,
    from_process,
    substitute,
    written,
)

VARIABLES = from_process({"A": "a", "EMPTY": "", "_b1": "b"})
ENV = Path("/p/.env")


def read(text: str) -> dict[str, str]:
    return {name: str(value) for name, value in defined(ENV, text.encode(), VARIABLES, {}).items()}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("$A.$_b1", "a.b"),
        ("${A}x", "ax"),
        ("$$A", "$A"),
        ("$", "$"),
        ("$1 $.", "$1 $."),
        ("$NONE", ""),
        ("${NONE}", ""),
        ("${A:-d}", "a"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${NONE-d}", "d"),
        ("${NONE:-}", ""),
        ("${A:+r}", "r"),
        ("${EMPTY:+r}", ""),
        ("${EMPTY+r}", "r"),
        ("${NONE+r}", ""),
        ("${A:?m}", "a"),
        ("${EMPTY?m}", ""),
        ("${NONE:-${A}}", "a"),
        ("${NONE:-${NONE:-x}}-${A}", "x-a"),
        ("${NONE:-a:b}", "a:b"),
        ("${NONE:-$$}", "$"),
        ("${NONE-}}", "}"),
        ("${A:-{}}", "a"),
    ],
)
def test_a_template_takes_the_values_that_compose_takes(template: str, expected: str) -> None:
    assert substitute(written(template, ENV), VARIABLES) == expected


@pytest.mark.parametrize(
    "template",
    [
        "${",
        "${}",
        "${A",
        "${A!}",
        "${1}",
        "${NONE:?m}",
        "${EMPTY:?m}",
        "${A:-${NONE:?m}}",
    ],
)
def test_what_compose_refuses_is_refused(template: str) -> None:
    with pytest.raises(TemplateError):
        substitute(written(template, ENV), VARIABLES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("X=1", {"X": "1"}),
        ("export X = 1 ", {"X": "1"}),
        ("\ufeffX=1", {"X": "1"}),
        ("X: 1\r\nY=2\r\n", {"X": "1", "Y": "2"}),
        ("X=1 # c", {"X": "1"}),
        ("X=1# c", {"X": "1# c"}),
        ("# X=1\n  #\nY=", {"Y": ""}),
        ("X=1\nX=2", {"X": "2"}),
        ("X='$A # \"'", {"X": '$A # "'}),
        ('X="$A"Y=2', {"X": "a", "Y": "2"}),
        ("X=$A-${NONE:-d}", {"X": "a-d"}),
        ("X='it\\'s'", {"X": "it's"}),
        (r'X="a\nb\"\$A\\ \c\0101"', {"X": 'a\nb"$A\\ \\cA'}),
        ("X='a\nb'", {"X": "a\nb"}),
        ("A\nNONE\nX=1", {"A": "a", "X": "1"}),
        ("X=1\nY", {"X": "1"}),
        ("X.y-z[0]=1", {"X.y-z[0]": "1"}),
        ("", {}),
        ("A=own\nX=$A", {"A": "own", "X": "a"}),
        ("B=own\nX=$B", {"B": "own", "X": "own"}),
    ],
)
def test_an_env_file_says_what_compose_reads(text: str, expected: dict[str, str]) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\nX Y=1", 2),
        ("X=1\n!=2", 2),
        ("X='a", 1),
        ("X=${NONE:?m}", 1),
        ("X=${", 1),
    ],
)
def test_a_broken_env_file_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ComposeFileError) as refusal:
        read(text)
    assert (refusal.value.path, refusal.value.line) == ("/p/.env", line)


def test_variables_that_double_each_other_end() -> None:
    doubling = "V0=xxxxxxxxxx\n" + "".join(f"V{n + 1}=$V{n}$V{n}\n" for n in range(60))
    with pytest.raises(ComposeFileError, match="grow without end"):
        read(doubling)


def test_every_character_knows_where_it_was_written() -> None:
    source = b"BASE='2.0'\nV=v${BASE}\n"
    (first, second) = defined(ENV, source, {}, {})["V"].pieces
    assert (first.text, first.offset, second.text, second.offset) == ("v", 13, "2.0", 6)


def test_cutting_keeps_the_places() -> None:
    text = Text().joined([written("abc", ENV, 5), written("def", ENV, 20)])
    assert [(piece.text, piece.offset) for piece in text.cut(2, 5).pieces] == [("c", 7), ("de", 20)]


def test_bytes_that_are_no_utf_8_survive() -> None:
    assert encode(decode(b"# \xe9\xff\r\n")) == b"# \xe9\xff\r\n"
