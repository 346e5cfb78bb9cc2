"""The recovery sheet says what the copies hold and what they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from compose_chap.copies.repository import Repository
from compose_chap.schedule import sheet
from compose_chap.schedule.sheet import CopiedData
from compose_chap.stack import observe
from compose_chap.stack.location import Where
from tests.fakes import FakeEngine


@pytest.mark.parametrize(
    ("contents", "held", "absent", "others"),
    [
        (
            CopiedData(),
            "CHAP's database and the Compose files.",
            "the volumes (logs, runs, data of model services) and images.",
            "",
        ),
        (
            CopiedData(dhis2_here=True, volumes=True),
            "CHAP's database, the Compose files and the volumes (logs, runs and the data of model services).",
            "DHIS2's database and files and images.",
            "How to put the volumes back: see /srv/chap-copy/RESTORE.txt",
        ),
        (
            CopiedData(dhis2=True, volumes=True, dhis2_here=True),
            "CHAP's database, the Compose files, DHIS2's database and the volumes (logs, runs and the data of model"
            " services).",
            "DHIS2's files and images.",
            "How to put DHIS2's database and the volumes back: see /srv/chap-copy/RESTORE.txt",
        ),
    ],
)
def test_it_says_what_is_in_the_copies(
    tmp_path: Path, contents: CopiedData, held: str, absent: str, others: str
) -> None:
    (tmp_path / "compose.yml").write_text("chap\n")
    stack = observe.find_stack(FakeEngine(tmp_path), Where((), "", None, (), tmp_path, {}))
    text = sheet.text(stack, Repository("/copies", "/p"), "secret", (), 5432, "chap", contents)
    assert f"\nIn the copies: {held}\nNot in them: {absent}\n" in text
    assert text.rstrip().endswith(others or "and proves it.")
