"""Read untrusted input: a path that may be no regular file, JSON that may hold anything.

Whatever does not fit raises an error that names the file (or server) and the field: never a traceback, an endless
wait, or unbounded memory. The caller says which kind of ChapError that is.

    manifest = reading.parse(reading.read_file(path, limit, DumpError), str(path), DumpError)
    size = manifest.at("dump").at("size").integer()
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from compose_chap.errors import ChapError, UsageError
from compose_chap.ownership import not_own

Failure = Callable[[str], ChapError]

LARGEST = 16 << 20  # bytes of a document, unless the caller sets a limit
DEEPEST = 40  # nested lists and objects
LONGEST_TEXT = 1 << 20
_PIECE = 1 << 18
MOST = 2**63 - 1

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISLNK, "a link"),
)


# Files


def open_file(path: Path | str, failure: Failure, *, within: int | None = None, links: bool = False) -> int:
    """Open a regular file for reading and return its descriptor, without ever waiting for it.

    `within` is the descriptor of the folder that a relative path starts from. Links are followed only with `links`.
    Raise FileNotFoundError when it is missing, else `failure`: for a FIFO, a device, a folder, or no permission.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, dir_fd=within)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise unreadable(path, error, failure) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) and not _is_null(status):
        os.close(descriptor)
        raise failure(f"{path} is {kind(status)}, not a file.")
    return descriptor


def read_file(
    path: Path | str,
    limit: int,
    failure: Failure,
    *,
    within: int | None = None,
    links: bool = False,
    own: bool = False,
) -> bytes:
    """Return the bytes of a regular file. See `open_file`; raise `failure` too for a file of more than `limit` bytes.

    With `own`, also for a file that belongs to another user or that others may write.
    """
    with open(open_file(path, failure, within=within, links=links), "rb") as file:
        if own and (fault := not_own(os.fstat(file.fileno()))):
            raise failure(f"{path} {fault}.")
        content = bytearray()
        try:
            # Piece by piece: a single read would take memory for the whole limit.
            while piece := file.read(min(_PIECE, limit + 1 - len(content))):
                content += piece
        except OSError as error:
            raise failure(f"{path} cannot be read: {error.strerror}.") from None
    if len(content) > limit:
        raise failure(f"{path} is larger than {limit} bytes.")
    return bytes(content)


def read_private(path: Path, most: int, what: str, option: str, secret: str) -> str:
    """Return the text of a file of at most `most` bytes that an operator names, and that holds a secret.

    `what` is the content of the file and `secret` what must stay secret in it, both for messages; `option` names the
    file on the command line. Raise UsageError when it cannot be read, or when others may read it.
    """
    try:
        status = path.stat()
        text = read_file(path, most, UsageError, links=True).decode(errors="replace")
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}.", hint=f"Name the file with {what}: {option} FILE") from None
    except OSError as error:
        raise UsageError(f"The file with {what} cannot be read: {path}: {error.strerror}.") from None
    if status.st_mode & 0o077:
        raise UsageError(
            f"Other users of this machine may read {path}, which holds {secret}.",
            hint=f"Make it private: chmod 600 {path}",
        )
    return text


def kind(status: os.stat_result) -> str:
    """Return what kind of file it is, in words: `a FIFO`."""
    return next((words for test, words in _KINDS if test(status.st_mode)), "a file")


def _is_null(status: os.stat_result) -> bool:
    """Whether it is /dev/null, which users of Compose name where they want no file."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)


def unreadable(path: Path | str, error: Exception, failure: Failure) -> ChapError:
    """Return the error for a file that cannot be opened or read to its end."""
    why = "it is a link" if getattr(error, "errno", 0) == errno.ELOOP else getattr(error, "strerror", "") or str(error)
    if isinstance(error, ValueError):
        why = "it has a name that no file can have"
    refused = failure(f"{path} cannot be read: {why}.")
    if isinstance(error, PermissionError):
        refused.hint = "Run it as root, or with sudo."
    return refused


# Documents


@dataclass(frozen=True)
class Value:
    """A value in a JSON document that knows its path. Every method raises `failure` when the value does not fit."""

    data: Any
    document: str
    failure: Failure
    field: str = ""

    def at(self, name: str) -> Value:
        """Return the member of an object; it must be present."""
        if name not in self._object():
            raise self.wrong("is missing", name)
        return self._member(name)

    def get(self, name: str) -> Value | None:
        """Return the member of an object, None where it is missing or null."""
        return self._member(name) if self._object().get(name) is not None else None

    def members(self) -> dict[str, Value]:
        """Return the members of an object."""
        return {self._clean(name, "has a name that is not text"): self._member(name) for name in self._object()}

    def items(self, most: int = 100_000) -> Iterator[Value]:
        """Yield the items of a list, at most `most`."""
        if not isinstance(self.data, list):
            raise self.wrong("is not a list")
        if len(self.data) > most:
            raise self.wrong(f"has more than {most} entries")
        for number, item in enumerate(self.data):
            yield Value(item, self.document, self.failure, f"{self.field}[{number}]")

    def texts(self) -> tuple[str, ...]:
        """Return a list of texts."""
        return tuple(item.text() for item in self.items())

    def text(self, longest: int = LONGEST_TEXT) -> str:
        """Return a text, which may be empty."""
        if not isinstance(self.data, str):
            raise self.wrong("is not text")
        if len(self.data) > longest:
            raise self.wrong(f"has more than {longest} letters")
        return self._clean(self.data, "is text that cannot be written")

    def filled(self, longest: int = LONGEST_TEXT) -> str:
        """Return a text that is not empty."""
        text = self.text(longest)
        if not text:
            raise self.wrong("is empty")
        return text

    def integer(self, least: int = 0, most: int = MOST) -> int:
        """Return a whole number between two others."""
        if not isinstance(self.data, int) or isinstance(self.data, bool):
            raise self.wrong("is not a whole number")
        if not least <= self.data <= most:
            raise self.wrong(f"is not between {least} and {most}")
        return self.data

    def number(self, least: float = 0.0, most: float = 1e15) -> float:
        """Return a number between two others."""
        if not isinstance(self.data, (int, float)) or isinstance(self.data, bool):
            raise self.wrong("is not a number")
        if not least <= self.data <= most:
            raise self.wrong(f"is not between {least:g} and {most:g}")
        return float(self.data)

    def flag(self) -> bool:
        """Return true or false."""
        if not isinstance(self.data, bool):
            raise self.wrong("is neither true nor false")
        return self.data

    def moment(self) -> datetime:
        """Return a time in ISO 8601, which must say its zone."""
        text = self.text(64)
        try:
            when = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            raise self.wrong("is not a time such as 2026-11-23T04:15:00+00:00") from None
        if when.tzinfo is None:
            raise self.wrong("is a time without a zone")
        if not 1970 < when.year < 9000:
            raise self.wrong("is not a time that a clock can show")
        return when

    def file(self) -> str:
        """Return the name of a file below the document's own folder."""
        text = self.filled(4096)
        path = PurePosixPath(text)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise self.wrong("names a file outside of its folder")
        return text

    def wrong(self, why: str, name: str = "") -> ChapError:
        """Return the error that says what is wrong with this field, or with its member `name`."""
        field = ".".join(filter(None, (self.field, name))) or "the document"
        return self.failure(f"{self.document} cannot be used: {field} {why}.")

    def _object(self) -> dict[str, Any]:
        if not isinstance(self.data, dict):
            raise self.wrong("is not an object")
        return self.data

    def _member(self, name: str) -> Value:
        return Value(self.data[name], self.document, self.failure, f"{self.field}.{name}".lstrip("."))

    def _clean(self, text: str, why: str) -> str:
        # A lone surrogate cannot be encoded, and no file's name holds a NUL.
        try:
            if b"\0" in text.encode():
                raise self.wrong(why)
        except UnicodeEncodeError:
            raise self.wrong(why) from None
        return text


def parse(content: bytes | str, document: str, failure: Failure, limit: int = LARGEST) -> Value:
    """Return a JSON document, called `document` in errors. Raise `failure` when it is invalid or too large."""
    if len(content) > limit:
        raise failure(f"{document} cannot be used: it is larger than {limit} bytes.")
    try:
        data = json.loads(content, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise failure(f"{document} cannot be used: it is nested too deeply.") from None
    except ValueError as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise failure(f"{document} cannot be used: it is not JSON{where}.") from None
    if _depth_exceeds(data, DEEPEST):
        raise failure(f"{document} cannot be used: it is nested too deeply.")
    return Value(data, document, failure)


def read_document(path: Path, failure: Failure, *, limit: int = LARGEST, own: bool = False) -> Value:
    """Return the JSON document in a file (not a link). Raise FileNotFoundError, or `failure` as `parse` does."""
    return parse(read_file(path, limit, failure, own=own), str(path), failure, limit)


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is not a number")


def _finite(word: str) -> float:
    number = float(word)
    return number if math.isfinite(number) else _no_number(word)


def _depth_exceeds(data: Any, most: int) -> bool:
    level = [data]
    for _ in range(most):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
