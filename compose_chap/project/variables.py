"""Compose's variables: where they are defined, how templates use them, where each character was written.

Both grammars, of templates and of env files, follow Compose exactly, corner cases included,
because a tag must be changed exactly where Compose takes it from. No Python library knows them:
python-dotenv does not understand `$A`, `A: b`, `${A:?}` and `${A:+b}`, and would find another value,
or another line, than the one that counts.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from compose_chap.errors import ComposeFileError

_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)"
    r"|(?P<named>[_a-z][_a-z0-9]*)"
    r"|\{(?P<braced>[_a-z][_a-z0-9]*)(?:(?P<operator>:?[-+?])(?P<argument>.*))?\}"
    r"|(?P<invalid>\{))",
    re.IGNORECASE | re.ASCII,
)

# Far above any real value; it stops variables that double each other before memory runs out.
_LONGEST = 100_000

_BLANK = "\t\v\f\r \x85\xa0"
_SPACE = _BLANK + "\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))

_GAP = re.compile(rf"(?:[\n{_SPACE}]+|#[^\n]*)*")
_EXPORT = re.compile(rf"(?:export[\t\n\f\r ][{_BLANK}]*)?")
_NAME = re.compile(rf"(?P<name>[\w.\-\[\]{_BLANK}]*)(?P<separator>[=:\n]|\Z)[{_BLANK}]*")
_QUOTED = re.compile(r"""(?P<quote>["'])(?P<value>(?:\\.|(?!(?P=quote))[^\\])*)(?P=quote)""", re.DOTALL)
_BACKSLASH = re.compile(r"\\.", re.DOTALL)
_ESCAPE = re.compile(r'\\(?:[abfnrtv$"\\]|0\d{0,3})')
_UNESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "$": "$$"}


class TemplateError(ValueError):
    """A template that Compose refuses as well: a broken `${`, or a required variable without a value."""


@dataclass(frozen=True)
class Piece:
    """A run of characters, and where it was written.

    `offset` counts characters from the start of the decoded `path`. It is not `verbatim` when the
    file spells the text differently: an escape, a folded line. Without a `path` the text comes
    from `variable` of the process environment, or from nowhere.
    """

    text: str
    path: Path | None = None
    offset: int = 0
    verbatim: bool = True
    variable: str = ""

    @property
    def end(self) -> int:
        return self.offset + len(self.text)

    def cut(self, start: int, end: int) -> Piece:
        return replace(self, text=self.text[start:end], offset=self.offset + start if self.verbatim else self.offset)

    def continues(self, other: Piece) -> bool:
        """Return whether this piece directly follows `other` in a file."""
        return (
            self.path is not None
            and self.path == other.path
            and self.verbatim
            and other.verbatim
            and self.offset == other.end
        )


class Text(str):
    """A string made of pieces; equal to any string with the same characters.

    `origin` is the template that the text was made from. `problem` says why that failed;
    then the text is the template itself.
    """

    pieces: tuple[Piece, ...]
    origin: Piece | None
    problem: str

    def __new__(cls, pieces: Iterable[Piece] = (), origin: Piece | None = None, problem: str = "") -> Text:
        joined = tuple(_coalesced(pieces))
        text = super().__new__(cls, "".join(piece.text for piece in joined))
        text.pieces = joined
        text.origin = origin or (joined[0] if joined else None)
        text.problem = problem
        return text

    def cut(self, start: int, end: int) -> Text:
        """Return the characters from `start` to `end`, which must not be negative."""
        return Text(_cut_pieces(self.pieces, start, end))

    def joined(self, others: Iterable[Text]) -> Text:
        """Return this text followed by `others`."""
        return Text(piece for text in (self, *others) for piece in text.pieces)


def written(text: str, path: Path, offset: int = 0) -> Text:
    """Return `text` as written verbatim at `offset` of `path`."""
    return Text((Piece(text, path, offset),))


def from_process(environ: Mapping[str, str]) -> dict[str, Text]:
    """Return the process environment as texts that no file can change."""
    return {name: Text((Piece(value, variable=name),)) for name, value in environ.items()}


def substitute(template: Text, variables: Mapping[str, Text]) -> Text:
    """Return `template` with its variables filled in. Raise TemplateError where Compose refuses."""
    try:
        return _substitute(template, variables)
    except RecursionError:
        raise TemplateError("variables are nested too deeply") from None


def filled(template: Text, variables: Mapping[str, Text]) -> Text:
    """Return `template` with its variables filled in, or unchanged with its `problem`."""
    if "$" not in template:
        return template
    try:
        return Text(substitute(template, variables).pieces, template.origin)
    except TemplateError as error:
        return Text(template.pieces, template.origin, str(error))


def required(template: str) -> Iterator[str]:
    """Yield the names of the variables in a template that have no default, in order."""
    position = 0
    while match := _VARIABLE.search(template, position):
        position = match.end()
        if match["operator"]:
            position = _closing_brace(template, match.start(), match.end())
        name = match["named"] or match["braced"]
        if name and (match["operator"] or "?").endswith("?"):
            yield name


def decode(content: bytes) -> str:
    """Return the text of an env file. Bytes that are not UTF-8 survive `encode`; Compose takes them too."""
    return content.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """Return the bytes that `decode` turned into `text`."""
    return text.encode("utf-8", "surrogateescape")


def defined(path: Path, content: bytes, known: Mapping[str, Text], earlier: Mapping[str, Text]) -> dict[str, Text]:
    """Return what the env file at `path` defines.

    Its values may use variables of `known`, which win, and of `earlier` files.
    Raise ComposeFileError where Compose cannot read the file.
    """
    text = written(decode(content), path)
    result: dict[str, Text] = {}
    variables = ChainMap(dict(known), result, dict(earlier))
    position = 1 if text.startswith("\ufeff") else 0
    while (position := _end(_GAP, text, position)) < len(text):
        position = _end(_EXPORT, text, position)
        start = _NAME.match(text, position)
        if start is None:
            raise _refusal(text, path, position, "a line that is not NAME=value")
        name = start["name"].rstrip(_SPACE)
        if " " in name:
            raise _refusal(text, path, position, "a variable name with a space in it")
        position = start.end()
        if start["separator"] == "":
            break  # a bare name at the end of the file defines nothing; elsewhere it passes on the variable
        if start["separator"] == "\n":
            if name in variables:
                result[name] = variables[name]
            continue
        try:
            result[name], position = _value(text, position, variables)
        except TemplateError as error:
            raise _refusal(text, path, position, str(error)) from None

    return result


def _substitute(template: Text, variables: Mapping[str, Text]) -> Text:
    parts: list[Text] = []
    position = 0
    while match := _VARIABLE.search(template, position):
        parts.append(template.cut(position, match.start()))
        position = match.end()
        if match["escaped"]:
            parts.append(template.cut(position - 1, position))
        elif match["named"]:
            parts.append(variables.get(match["named"], Text()))
        elif match["invalid"]:
            raise TemplateError("a `${` that no variable follows")  # the text itself may be a password
        elif not match["operator"]:
            parts.append(variables.get(match["braced"], Text()))
        else:
            position = _closing_brace(template, match.start(), match.end())
            argument = template.cut(match.start("argument"), position - 1)
            parts.append(_choose(match["braced"], match["operator"], argument, variables))
        if sum(map(len, parts)) > _LONGEST:
            raise TemplateError("variables grow without end")
    parts.append(template.cut(position, len(template)))

    return Text().joined(parts)


def _choose(name: str, operator: str, argument: Text, variables: Mapping[str, Text]) -> Text:
    """Apply one of Compose's operators; with a colon, an empty value counts as unset.

    An argument that the operator does not use is not evaluated: newer versions of Compose ignore errors in it, and an
    older one reports them itself.
    """
    value = variables.get(name)
    present = value is not None and (value != "" or not operator.startswith(":"))
    if operator.endswith("+"):
        return _substitute(argument, variables) if present else value or Text()
    if present and value is not None:
        return value
    reason = _substitute(argument, variables)
    if operator.endswith("?"):
        raise TemplateError(f"required variable {name} is missing a value" + (f": {reason}" if reason else ""))

    return reason


def _closing_brace(template: str, start: int, end: int) -> int:
    """Return the position after the brace that closes the one after `start`, or else `end`.

    The character after an opening brace is skipped, as Compose does.
    """
    depth = 0
    position = start
    while position < end:
        if template[position] == "}":
            depth -= 1
            if depth == 0:
                return position + 1
        elif template[position] == "{":
            depth += 1
            position += 1
        position += 1

    return end


def _cut_pieces(pieces: Iterable[Piece], start: int, end: int) -> Iterator[Piece]:
    position = 0
    for piece in pieces:
        length = len(piece.text)
        first, last = max(start - position, 0), min(end - position, length)
        if first < last:
            yield piece.cut(first, last)
        position += length


def _coalesced(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Join pieces that are adjacent in a file, and drop empty ones."""
    last: Piece | None = None
    for piece in pieces:
        if not piece.text:
            continue
        if last is not None and piece.continues(last):
            last = replace(last, text=last.text + piece.text)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last


def _value(text: Text, start: int, variables: Mapping[str, Text]) -> tuple[Text, int]:
    """Return the value that starts at `start`, and the position after it. Raise TemplateError."""
    if text[start : start + 1] not in ("'", '"'):
        line = text[start:].partition("\n")[0]
        value = line.partition(" #")[0].rstrip(_SPACE)
        return substitute(text.cut(start, start + len(value)), variables), start + len(line)

    quoted = _QUOTED.match(text, start)
    if quoted is None:
        raise TemplateError("a quote that is never closed")
    quote = quoted["quote"]
    inside = text.cut(*quoted.span("value"))
    inside = _respelled(inside, _BACKSLASH, lambda pair: quote if pair[1] == quote else pair)
    if quote == '"':
        inside = substitute(_respelled(inside, _ESCAPE, _unescaped), variables)

    return inside, quoted.end()


def _respelled(text: Text, pattern: re.Pattern[str], spell: Callable[[str], str]) -> Text:
    """Return `text` with each match of `pattern` replaced by `spell`; what changes is no longer verbatim."""
    parts: list[Text] = []
    position = 0
    for match in pattern.finditer(text):
        spelled = spell(match[0])
        if spelled != match[0]:
            first = text.cut(match.start(), match.start() + 1).pieces[0]
            parts += text.cut(position, match.start()), Text((replace(first, text=spelled, verbatim=False),))
            position = match.end()

    return Text().joined((*parts, text.cut(position, len(text))))


def _unescaped(escape: str) -> str:
    if escape[1] != "0":
        return _UNESCAPED.get(escape[1], escape[1])
    digits = escape[2:]
    octal = re.fullmatch("[0-3][0-7][0-7]", digits)

    return chr(int(digits, 8)) if octal else "\\" + digits


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _refusal(text: str, path: Path, position: int, problem: str) -> ComposeFileError:
    return ComposeFileError(
        f"Compose cannot read this env file: {problem}",
        path=str(path),
        line=text.count("\n", 0, position) + 1,
        hint="Correct that line first; `docker compose config` shows whether Compose can read it.",
    )


def unescaped(value: object) -> str:
    """Return a value of `docker compose config` as the container gets it: Compose writes $ as $$ in it."""
    return str(value).replace("$$", "$")
