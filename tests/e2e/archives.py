"""Archives that no pg_dump writes: a table of contents of any length, in PostgreSQL's custom format 1.14."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_NULL = b"\1\1\0\0\0"


def huge(entries: int, kind: str = "TABLE", then: str = "") -> Iterator[bytes]:
    """Yield an archive in pieces, with a number of entries of a kind in its table of contents and no rows.

    Each makes a table, and runs the statements in `then`.
    """
    header = b"PGDMP" + bytes([1, 14, 0, 4, 8, 1]) + _number(0)
    header += b"".join(map(_number, (0, 0, 4, 23, 10, 126, 0)))
    yield header + _text("chap_core") + _text("14.0") + _text("14.0") + _number(entries)
    for first in range(1, entries + 1, 1000):
        yield b"".join(_entry(number, kind, then) for number in range(first, min(first + 1000, entries + 1)))


def _entry(number: int, kind: str, then: str) -> bytes:
    name = f"t{number}"
    return b"".join(
        (
            _number(number),
            _number(0),
            *map(_text, ("1259", str(16384 + number), name, kind)),
            _number(2),  # before the data
            *map(
                _text,
                (f"CREATE TABLE public.{name} ();{then}", f"DROP TABLE public.{name};", "", "public", ""),
            ),
            _NULL,  # the access method
            _text("chap"),
            _text("false"),
            _NULL,  # the end of what it depends on
            b"\2" + bytes(8),  # where its data are: it has none
        )
    )


def _number(value: int) -> bytes:
    return struct.pack("<BI", 0, value)


def _text(value: str) -> bytes:
    return _number(len(value)) + value.encode()
