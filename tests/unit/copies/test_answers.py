"""What restic answers, as versions from 0.14 to 0.18 write it."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest

from compose_chap.copies import answers
from compose_chap.copies.answers import Stored
from compose_chap.errors import CopyError

SNAPSHOT = {
    "time": "2026-11-28T13:22:09.597967379Z",
    "tree": "83c8",
    "id": "9c25" * 16,
    "tags": ["docker-chap", "a=b=c"],
}
NODES: tuple[dict[str, Any], ...] = (
    {"name": "files", "type": "dir", "path": "/files"},
    {"name": "pw", "type": "file", "path": "/files/pw", "size": 3, "mode": 420},
)
OF_0_17 = {"program_version": "restic 0.17.3", "summary": {"backup_start": "2026-11-28T13:22:09Z", "files_new": 2}}


@pytest.mark.parametrize("more", [{}, OF_0_17])
def test_snapshots(more: dict[str, Any]) -> None:
    (snapshot,) = answers.snapshots(json.dumps([SNAPSHOT | more]))
    assert snapshot.id == SNAPSHOT["id"] and snapshot.tags == {"docker-chap": "", "a": "b=c"}
    assert snapshot.at == datetime(2026, 11, 28, 13, 22, 9, 597967, timezone.utc)
    assert answers.snapshots("[]") == []


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-28T13:22:09Z", "2026-11-28T13:22:09+00:00"),
        ("2026-11-28T16:22:09.5+03:00", "2026-11-28T16:22:09.5+03:00"),
        ("2026-11-28T08:22:09.123456789-05:30", "2026-11-28T08:22:09.123456-05:30"),
    ],
)
def test_times(text: str, at: str) -> None:
    (snapshot,) = answers.snapshots(json.dumps([SNAPSHOT | {"time": text}]))
    assert abs((snapshot.at - datetime.fromisoformat(at.replace(".5+", ".500000+"))).total_seconds()) < 1


@pytest.mark.parametrize("text", ["soon", "", "2026-11-28T13:22:09", "99999-01-01T00:00:00Z"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(CopyError, match="time"):
        answers.snapshots(json.dumps([SNAPSHOT | {"time": text}]))


@pytest.mark.parametrize("names", [("struct_type",), ("message_type", "struct_type"), ("message_type",)])
def test_files_of_a_snapshot(names: tuple[str, ...]) -> None:
    def line(kind: str, content: dict[str, Any]) -> str:
        return json.dumps(content | dict.fromkeys(names, kind))

    text = "\n".join([line("snapshot", SNAPSHOT), *(line("node", node) for node in NODES)])
    assert answers.contents(text) == [Stored("/files", 0, "dir"), Stored("/files/pw", 3, "file")]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"struct_type": "node"}', '{"struct_type": "node", "path": 3, "type": "dir"}']
)
def test_files_that_make_no_sense(text: str) -> None:
    with pytest.raises(CopyError):
        answers.contents(text)


def test_the_summary_is_among_other_messages() -> None:
    last = {"message_type": "summary", "snapshot_id": "9c25e759", "data_added": 7}
    lines = [json.dumps({"message_type": "status"}), json.dumps(last), "not JSON"]
    assert answers.summary("\n".join(lines)) == last
    assert answers.summary("nothing") is None
