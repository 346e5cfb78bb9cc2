"""Commands on backups that lie in two folders: beside the Compose file, and on a disk that the schedule uses."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compose_chap.backups import catalogue
from compose_chap.cli import app
from compose_chap.cli.call import Call
from compose_chap.copies import send
from compose_chap.errors import ChapError, DatabaseError
from compose_chap.operations import rehearse
from compose_chap.preflight import roads
from tests.fake_server import FakeServer
from tests.fakes import FakeEngine, disk_dies
from tests.unit.cli.test_copies import RESTIC
from tests.unit.operations.test_prune import NOW, write

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def folders(programs: Path, tmp_path: Path, capsys: Captured) -> tuple[Path, Path]:
    """Give the two folders, each with a backup of each of the last 9 days."""
    here, usb = tmp_path / "backups", tmp_path / "usb"
    for folder, hours in ((here, 0), (usb, 1)):
        for day in range(9):
            write(folder, NOW - timedelta(days=day, hours=hours))
    assert app.main(["schedule", "on", "--by", "cron", "-o", str(usb)]) == 0
    (programs / "restic").write_text(RESTIC.replace("version)", f"init) :> {programs}/init; exit;;\nversion)"))
    (programs / "restic").chmod(0o755)
    (tmp_path / "password").write_text("x\n")
    capsys.readouterr()
    return here, usb


def words_of(text: str) -> str:
    return " ".join(text.split())


def test_prune_names_the_folder_of_each_backup(folders: tuple[Path, Path], capsys: Captured) -> None:
    here, usb = folders
    rules = ["--keep-last", "2", "--keep-daily", "0", "--keep-weekly", "0", "--keep-monthly", "0"]
    assert app.main(["prune", "--dry-run", *rules]) == 0
    going, staying = (words_of(part).count for part in capsys.readouterr().out.split("\nKept\n"))
    assert [going(f" {folder} no rule keeps it") for folder in folders] == [7, 7]
    assert [staying(f" {folder} the newest") for folder in folders] == [1, 1]
    assert app.main(["prune", "--dry-run", *rules, "-o", str(usb)]) == 0
    assert str(usb) not in capsys.readouterr().out
    assert app.main(["prune", "--yes", *rules]) == 0
    assert [len(list(folder.iterdir())) for folder in folders] == [2, 2]


def test_a_set_aside_database_that_is_damaged_can_be_removed(
    engine: FakeEngine, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged, sound = (f"chap_core_after_2025010{day}t000000z" for day in (1, 2))
    engine.databases |= dict.fromkeys((damaged, sound), engine.databases["chap_core"])
    counts = FakeServer.counts

    def failing(server: FakeServer, database: str) -> dict[str, int]:
        if database == damaged:
            raise DatabaseError("Counting rows failed: invalid page in block 7 of relation base/5/16402")
        return counts(server, database)

    monkeypatch.setattr(FakeServer, "counts", failing)
    assert app.main(["prune", "--dry-run"]) == 0
    text = words_of(capsys.readouterr().out)
    assert f"{damaged} the newer data, from before a rollback: its rows cannot be counted" in text
    assert f"{sound} the newer data, from before a rollback: 10 rows in 1 table" in text
    monkeypatch.setattr("compose_chap.cli.call.Call.confirm", lambda *_, **__: None)
    assert app.main(["prune"]) == 0 and not {damaged, sound} & set(engine.databases)


def test_the_lists_say_what_a_dead_disk_hides(
    folders: tuple[Path, Path], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, usb = folders
    disk_dies(usb, monkeypatch)
    why = f"The backups in {usb} cannot be read: Input/output error."

    def shown(*words: str) -> Any:
        assert app.main([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    document = shown("backups")
    assert len(document["backups"]) == 9 and document["unusable"] == [why]
    status = shown("status")
    assert why in status["problems"] and status["last_backup"]["id"] == catalogue.find("latest", [here]).id
    assert app.main(["report"]) == 0
    assert why in words_of((tmp_path / "report.html").read_text())
    capsys.readouterr()
    # Where no other backup is, the last one is not known, which is not the same as none.
    shutil.rmtree(here)
    status = shown("status")
    assert why in status["problems"] and status["last_backup"] is None and not status["backups_known"]


def stopped(*_: object, **__: object) -> None:
    raise ChapError("It went as far as this.")


def test_latest_says_that_a_newer_backup_may_be_on_a_dead_disk(
    folders: tuple[Path, Path], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, usb = folders
    disk_dies(usb, monkeypatch)
    why = f"Note: The backups in {usb} cannot be read: Input/output error. A newer backup may be there."
    monkeypatch.setattr(send, "send", stopped)
    monkeypatch.setattr(rehearse, "execute", stopped)
    subject = SimpleNamespace(built=False, images={"chap": "", "worker": ""}, platform="")
    monkeypatch.setattr(Call, "subject", lambda *_: subject)
    monkeypatch.setattr(roads, "between", lambda _: ())
    store = ["--to", str(tmp_path / "copies"), "--password-file", str(tmp_path / "password")]
    for words in (["copy", *store], ["verify"], ["rehearse", "v2.1.0", "--from", "latest"]):
        app.main(words)
        assert why in words_of(capsys.readouterr().err), words
    newest = catalogue.find("latest", [here]).id
    for words in (["copy", newest, *store], ["verify", newest]):
        app.main(words)
        assert "cannot be read: Input/output error" not in words_of(capsys.readouterr().err), words


def test_no_copy_is_removed_while_a_pin_may_be_on_a_dead_disk(
    folders: tuple[Path, Path], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_dies(folders[1], monkeypatch)
    store = ["--from", str(tmp_path / "copies"), "--password-file", str(tmp_path / "password")]
    for chosen in ([], ["-o", str(folders[0])]):
        assert app.main(["prune", *store, "--yes", *chosen]) != 0
        assert f"backups in {folders[1]} cannot be read" in words_of(capsys.readouterr().err)
