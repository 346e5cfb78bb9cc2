"""Copies in another place: sent, listed, read back, restored; and what a link that breaks leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.calls import chap
from tests.sample.stack import SampleStack


@pytest.fixture
def place(tmp_path: Path) -> list[str]:
    """Name a folder for copies, and a file with its password."""
    password = tmp_path / "password"
    password.write_text("a pass word'\n")
    return [str(tmp_path / "copies"), "--password-file", str(password)]


def test_a_copy_is_made_listed_proven_and_restored(small: SampleStack, place: list[str]) -> None:
    rows = small.checksum()
    made = chap(small, "backup")["backup"]
    sent = chap(small, "copy", "--to", *place, "--init")
    assert sent["copy"]["id"] == made["id"] and sent["sent"] > 0
    again = chap(small, "copy", "--to", *place)
    assert again["existed"] and again["sent"] == 0
    assert [copy["id"] for copy in chap(small, "copies", "--from", *place)["copies"]] == [made["id"]]
    proven = chap(small, "verify", "latest", "--from", *place)
    assert proven["tables"] == small.counts()

    small.sql("DELETE FROM observation")
    small.inside("true")
    folder = Path(made["folder"])
    kept = folder.rename(folder.with_name("away"))
    restored = chap(small, "restore", "latest", "--yes", "--from", *place)
    assert small.checksum() == rows, restored
    assert json.loads((folder / "proof.json").read_text())["how"] == "test-restored"
    assert {path.name for path in folder.iterdir()} >= {path.name for path in kept.iterdir()} - {"proof.json"}
