"""What restic answers, of every version: snapshots, the files in one, and what a backup added."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from compose_chap import reading
from compose_chap.errors import CopyError
from compose_chap.reading import Value


@dataclass(frozen=True)
class StoredSnapshot:
    """A snapshot of a repository: its id, when it was made, and its tags as `name=value`."""

    id: str
    at: datetime
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Added:
    """What a backup of restic added: its snapshot, and the bytes that were new, packed and encrypted."""

    snapshot: str
    added: int


@dataclass(frozen=True)
class Stored:
    """A file or folder in a snapshot: its path there, its size in bytes, and its kind as restic has it: file, dir."""

    path: str
    size: int
    kind: str


def snapshots(text: str) -> list[StoredSnapshot]:
    """Return the snapshots that `restic snapshots --json` lists. Raise CopyError."""
    return [
        StoredSnapshot(
            item.at("id").filled(),
            _moment(item.at("time")),
            dict(word.partition("=")[::2] for word in tags.texts()) if (tags := item.get("tags")) else {},
        )
        for item in reading.parse(text, "the list of snapshots", CopyError).items()
    ]


def contents(text: str) -> list[Stored]:
    """Return the files and folders that `restic ls --json` lists. Raise CopyError."""
    lines = (reading.parse(line, "the list of files in a snapshot", CopyError) for line in text.splitlines())
    return [Stored(node.at("path").filled(), _size(node), node.at("type").filled()) for node in lines if _is_node(node)]


def total(text: str) -> int:
    """Return the bytes that `restic stats --json` counts. Raise CopyError."""
    return reading.parse(text, "restic's statistics", CopyError).at("total_size").integer()


def summary(text: str) -> dict[str, Any] | None:
    """Return the last message of `restic backup --json`, None where it has none."""
    return next(filter(_is_summary, reversed(list(_messages(text)))), None)


def _moment(value: Value) -> datetime:
    """Return a time as restic writes it: with nanoseconds, which Python does not read."""
    text = value.filled().replace("Z", "+00:00")
    # Before 3.11 Python wants three or six digits.
    for spelled in (re.sub(r"(\.\d{1,6})\d*", r"\1", text), re.sub(r"\.\d+", "", text)):
        with suppress(ValueError):
            if (when := datetime.fromisoformat(spelled)).tzinfo:
                return when
    raise value.wrong("is not a time")


def _messages(output: str) -> Iterator[Any]:
    for line in output.splitlines():
        if line.startswith("{"):
            with suppress(ValueError):
                yield json.loads(line)


def _is_summary(message: Any) -> bool:
    return isinstance(message, dict) and message.get("message_type") == "summary" and "snapshot_id" in message


def _is_node(line: Value) -> bool:
    # `struct_type` is the older name; 0.17 and 0.18 write both.
    kind = line.get("message_type") or line.get("struct_type")
    return kind is not None and kind.text() == "node"


def _size(node: Value) -> int:
    return size.integer() if (size := node.get("size")) else 0
