"""Single checks that come before an upgrade."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from compose_chap import preflight


def test_the_disk_of_a_folder_that_a_backup_will_make_is_the_one_above_it(tmp_path: Path) -> None:
    subject: Any = SimpleNamespace(
        database=SimpleNamespace(size=1000), server=SimpleNamespace(free_space=lambda: 1 << 40), target="",
        built=False, backups=tmp_path / "usb" / "chap" / "backups",
    )
    assert preflight._room(subject).status == "ok"
