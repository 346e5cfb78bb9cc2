"""Which backup an operator means, and what is said when it is none that can be used."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path

import pytest

from compose_chap.backups import catalogue, proof, verdict
from compose_chap.backups.catalogue import Backup
from compose_chap.errors import DumpError, StateError
from compose_chap.model import Origin
from compose_chap.restore import source
from tests.fakes import FakeEngine, disk_dies, world
from tests.unit.operations.test_prune import NOW, write


def whole(folder: Path) -> Backup:
    """Return a backup whose dump and instructions are what its manifest says."""
    path = write(folder, NOW)
    manifest = json.loads((path / "manifest.json").read_bytes())
    for part, name in (("dump", "a.dump"), ("instructions", "RESTORE.txt")):
        content = b"PGDMP" + name.encode()
        (path / name).write_bytes(content)
        manifest[part] = {"file": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return catalogue.load(path)


def test_a_whole_dump_in_a_backup_that_is_not_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "back ups"
    made, here = whole(folder), world(FakeEngine(tmp_path))
    proof.check_sums(here, made)
    (made.folder / "RESTORE.txt").unlink()
    command = f"docker chap restore '{made.dump}'"
    with pytest.raises(DumpError, match="RESTORE.txt") as by_name:
        proof.check_sums(here, made)
    with pytest.raises(DumpError, match="can be relied on") as by_latest:
        source.recognise("latest", [folder])
    assert all(refusal.value.hint.endswith(command) for refusal in (by_name, by_latest))
    assert "name it" not in by_latest.value.hint
    assert source.recognise(str(made.dump), [folder]).backup is None

    made.dump.write_bytes(b"PGDMP, damaged")
    with pytest.raises(DumpError, match="a.dump") as by_name:
        proof.check_sums(here, made)
    with pytest.raises(DumpError, match="can be relied on") as by_latest:
        source.recognise("latest", [folder])
    assert all(command not in refusal.value.hint for refusal in (by_name, by_latest))
    assert by_latest.value.hint.endswith(f"docker chap verify {made.id}")


def test_a_backup_that_is_refused_only_as_latest_can_be_named(tmp_path: Path) -> None:
    made = whole(tmp_path)
    catalogue.amend(made, lost_tables=["public.a"])
    with pytest.raises(DumpError, match="It is missing public.a") as raised:
        source.recognise("latest", [tmp_path])
    assert f"name it instead of latest: {made.id}" in raised.value.hint
    assert source.recognise(made.id, [tmp_path]).backup


def test_backups_that_latest_skips_are_named(tmp_path: Path) -> None:
    old, bad = (catalogue.load(write(tmp_path, NOW + timedelta(days=day))) for day in (0, 1))
    catalogue.record_verdict(bad, NOW, verdict.CHECKSUMS, "It is damaged.")
    [note] = source.skipped_newer("latest", old, [tmp_path], Origin())
    assert note.startswith(f"Backup {bad.id} is newer, but was skipped.") and "It is damaged." in note
    assert not source.skipped_newer(old.id, old, [tmp_path], Origin())


def test_a_missing_file_is_called_a_file_and_backups_are_listed(tmp_path: Path) -> None:
    for day in range(7):
        write(tmp_path, NOW + timedelta(days=day))
    with pytest.raises(DumpError, match="There is no file /no/such.dump, and no backup of that name") as raised:
        source.recognise("/no/such.dump", [tmp_path])
    assert "20261129T040000Z and 2 older." in raised.value.message
    with pytest.raises(DumpError, match="There is no backup 'x'"):
        catalogue.find("x", [tmp_path])
    with pytest.raises(DumpError, match="There is no backup 'latest'. No backups are in "):
        source.recognise("latest", [tmp_path / "empty"])


def test_a_unique_beginning_of_an_id_is_enough(tmp_path: Path) -> None:
    first, second = (catalogue.load(write(tmp_path, NOW + timedelta(days=day))) for day in (0, 1))
    assert catalogue.find(second.id[:8], [tmp_path]).id == second.id
    assert catalogue.find(first.id[:12].lower(), [tmp_path]).id == first.id
    with pytest.raises(DumpError, match=f"Several backups begin with 2026: {first.id}, {second.id}"):
        catalogue.find("2026", [tmp_path])


def test_latest_ids_and_sound_copies_come_from_every_folder(tmp_path: Path) -> None:
    here, usb = tmp_path / "backups", tmp_path / "usb"
    for folder, days in ((here, 30), (usb, 1), (usb, 30)):
        write(folder, NOW - timedelta(days=days))
    old, new = catalogue.list_backups([here])[0], catalogue.list_backups([usb])[-1]
    folders = [catalogue.find(wanted, [here, usb]).folder for wanted in ("latest", new.id, old.id[:8])]
    assert folders == [new.folder, new.folder, old.folder]
    catalogue.record_verdict(old, NOW, verdict.BAD, "damaged")
    assert catalogue.find(old.id, [here, usb]).folder == usb / old.id, "the copy that is sound"
    with pytest.raises(DumpError, match=f"In {here} and {usb}: "):
        catalogue.find("x", [here, usb])


def test_a_folder_of_the_schedule_without_a_backup_is_named(tmp_path: Path) -> None:
    write(tmp_path / "backups", NOW)
    folders = [tmp_path / "backups", tmp_path / "usb"]
    used = catalogue.find("latest", folders)
    [note] = source.skipped_newer("latest", used, folders, Origin())
    assert f"{tmp_path / 'usb'}, but there are none now. Is its disk connected?" in note
    assert not source.skipped_newer(used.id, used, folders, Origin())


@pytest.mark.parametrize("dead", [0, 1])
def test_a_dead_disk_does_not_hide_the_backups_on_another(
    dead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "backups", tmp_path / "usb"]
    newest, older = (write(folders[at], NOW - timedelta(days=days)) for at, days in ((dead, 0), (1 - dead, 1)))
    disk_dies(folders[dead], monkeypatch)
    for wanted in ("latest", older.name, older.name[:13].lower(), str(older)):
        assert catalogue.find(wanted, folders, sound=True).folder == older
    why = f"The backups in {folders[dead]} cannot be read: Input/output error."
    assert catalogue.scan(folders).unusable == [why]
    used = catalogue.find("latest", folders)
    assert source.skipped_newer("latest", used, folders, Origin()) == [f"{why} A newer backup may be there."]
    assert not source.skipped_newer(older.name, used, folders, Origin())
    # What was not found may be in the folder that nobody can read.
    for wanted in (newest.name, "20270101", "x"):
        with pytest.raises(StateError, match=why):
            catalogue.find(wanted, folders)
    catalogue.record_verdict(used, NOW, verdict.CHECKSUMS, "It is damaged.")
    with pytest.raises(StateError, match=why):
        catalogue.find("latest", folders, sound=True)
    assert catalogue.find(older.name, folders, sound=True).folder == older
    # Without any backup nobody can say that none exists.
    older.rename(tmp_path / older.name)
    with pytest.raises(StateError, match=why):
        catalogue.scan(folders)
    # A list that has to be complete is refused.
    with pytest.raises(StateError, match=why):
        catalogue.list_backups(folders)


def test_a_backup_that_is_named_by_its_folder_needs_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = write(tmp_path / "elsewhere", NOW)
    disk_dies(tmp_path / "backups", monkeypatch)
    assert catalogue.find(str(made), [tmp_path / "backups"]).folder == made
    for wanted in ("latest", made.name):
        with pytest.raises(StateError, match="Input/output error"):
            catalogue.find(wanted, [tmp_path / "backups"])


def test_an_id_is_looked_up_before_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, usb = (write(tmp_path / folder, NOW) for folder in ("here", "usb"))
    catalogue.record_verdict(catalogue.load(here), NOW, verdict.CHECKSUMS, "It is damaged.")
    monkeypatch.chdir(here.parent)
    assert catalogue.find(here.name, [here.parent, usb.parent]).folder == usb
    assert catalogue.find(f"./{here.name}", [here.parent, usb.parent]).folder == here
    assert catalogue.find(here.name, [tmp_path / "empty"]).folder == here


def test_the_backups_of_several_folders_make_a_list_by_age(tmp_path: Path) -> None:
    for folder, days in (("here", 3), ("here", 1), ("usb", 2)):
        write(tmp_path / folder, NOW - timedelta(days=days))
    (tmp_path / "usb" / "20260101T000000Z").mkdir()
    listings = [catalogue.scan([tmp_path / folder]) for folder in ("here", "usb", "here")]
    both = catalogue.merged(listings)
    assert [backup.folder.parent.name for backup in both.backups] == ["here", "usb", "here"]
    assert both.unusable == listings[1].unusable
