"""Records count only when they are one's own: root runs this in folders that others own, and others lay traps there."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from compose_chap import ownership
from compose_chap.backups import catalogue
from compose_chap.backups.backup import remove_abandoned
from compose_chap.errors import DumpError, StateError
from compose_chap.project import checkout
from compose_chap.records import lock, run_records
from compose_chap.records.files import durable, own_folder
from compose_chap.stack.location import Where
from tests.unit.operations.test_prune import NOW, write

OPS, EVE = 54321, 54322
SECRET = b"root's own file\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can play several users")


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """End a test that waits for a FIFO."""
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """The folder of a stack that belongs to the user ops, in a place that he can reach."""
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        path = Path(top, "srv")
        path.mkdir(mode=0o755)
        give(path, OPS)
        yield path


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of root's elsewhere, which nobody but root may touch."""
    path = tmp_path / "victim"
    path.write_bytes(SECRET)
    return path


def give(path: Path, owner: int) -> None:
    """Give a file or a folder with all in it away; links themselves, not what they lead to."""
    for entry in (path, *path.rglob("*")) if path.is_dir() and not path.is_symlink() else (path,):
        if os.geteuid() == 0:
            os.lchown(entry, owner, owner)


@contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Be another user while the block runs, as far as files are concerned."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def clock() -> datetime:
    return datetime(2026, 11, 23, tzinfo=timezone.utc)


def journal(**more: Any) -> str:
    """Return a journal that would have `recover` write a file."""
    return json.dumps({"version": 1, "id": "1", "operation": "pin", "by": "eve", "facts": {}, "steps": [], **more})


def begin(folder: Path) -> None:
    run_records.begin_run(folder, "upgrade", {}, clock)


def take_lock(folder: Path) -> None:
    with lock.locked(folder, "backup", clock()):
        pass


# The kinds of traps: what stands in the place of a record.


def link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def hard_link(path: Path, victim: Path) -> None:
    os.link(victim, path)


def fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def folder_(path: Path, victim: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("trap", [link, hard_link, fifo, folder_])
@pytest.mark.parametrize("name", ["lock", "journal.json", "room", ".journal.json.docker-chap", ".gitignore", "runs"])
@pytest.mark.parametrize("act", [take_lock, begin])
def test_a_record_that_is_no_file_is_never_followed_emptied_or_waited_for(
    act: Callable[[Path], None], name: str, trap: Callable[[Path, Path], None], folder: Path, victim: Path
) -> None:
    # Even in a folder of one's own, where nobody else can have put it.
    (folder / ".docker-chap").mkdir(mode=0o700)
    trap(folder / ".docker-chap" / name, victim)
    try:
        act(folder)
    except StateError as error:
        assert str(folder) in error.message
    assert victim.read_bytes() == SECRET and victim.stat().st_uid == os.geteuid()


@needs_root
@pytest.mark.parametrize("trap", [link, hard_link, fifo])
def test_the_lock_of_the_folder_s_owner_empties_no_file(
    trap: Callable[[Path, Path], None], folder: Path, victim: Path
) -> None:
    (folder / ".docker-chap").mkdir()
    trap(folder / ".docker-chap" / "lock", victim)
    give(folder / ".docker-chap", OPS)
    os.chown(victim, 0, 0)
    with pytest.raises(StateError, match="belongs to another user .54321.. Only records that belong to you") as refused:
        take_lock(folder)
    assert "chown -R" in refused.value.hint
    assert victim.read_bytes() == SECRET


@needs_root
def test_a_folder_of_records_that_is_a_link_is_not_used(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (folder / ".docker-chap").symlink_to(tmp_path / "etc")
    give(folder / ".docker-chap", OPS)
    for act in (take_lock, begin, lambda path: run_records.open_run(path, clock)):
        with pytest.raises(StateError, match="is a link, not a folder"):
            act(folder)
    assert list((tmp_path / "etc").iterdir()) == []


@needs_root
@pytest.mark.parametrize(("owner", "mode"), [(OPS, 0o600), (0, 0o620), (0, 0o602)])
def test_a_planted_journal_is_not_obeyed(owner: int, mode: int, folder: Path) -> None:
    (folder / ".docker-chap").mkdir(mode=0o700)
    planted = folder / ".docker-chap" / "journal.json"
    planted.write_text(journal())
    planted.chmod(mode)
    os.chown(planted, owner, owner)
    with pytest.raises(StateError, match="belongs to another user|may be written by others"):
        run_records.open_run(folder, clock)
    with pytest.raises(StateError):
        run_records.refuse_open_run(folder)


@needs_root
@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_a_folder_of_records_that_others_may_write_is_not_obeyed(mode: int, folder: Path) -> None:
    (folder / ".docker-chap").mkdir()
    (folder / ".docker-chap").chmod(mode)
    (folder / ".docker-chap" / "journal.json").write_text(journal())
    with pytest.raises(StateError, match="may be written by others"):
        run_records.open_run(folder, clock)


@needs_root
def test_runs_of_others_are_no_history(folder: Path) -> None:
    runs = folder / ".docker-chap" / "runs"
    runs.mkdir(parents=True, mode=0o700)
    for name, owner in (("1", 0), ("2", OPS)):
        (runs / f"{name}.json").write_text(journal(id=name, result="done", started_at=NOW.isoformat()))
        os.chown(runs / f"{name}.json", owner, owner)
    (runs / "3.json").symlink_to("1.json")
    os.mkfifo(runs / "4.json")
    (runs / "5.json").mkdir()
    assert [run["id"] for run in run_records.history(folder)] == ["1"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "7", "[" * 100_000, journal(id=7), journal(id="../../x"), journal(facts=7), journal(steps=[7])),
        *(journal(operation=None), journal(steps=[{"step": "x", "at": "2026-11-23T00:00:00"}]), journal(stack=7)),
        *(journal(stack={"project": 7}), journal(started_at="yesterday"), journal(by=["x"]), '{"id": NaN}'),
    ],
)
def test_an_odd_journal_raises_an_error_with_its_path(text: str, tmp_path: Path) -> None:
    (tmp_path / ".docker-chap").mkdir(mode=0o700)
    (tmp_path / ".docker-chap" / "journal.json").write_text(text)
    with pytest.raises(StateError, match=r"journal\.json cannot be used: "):
        run_records.open_run(tmp_path, clock)


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "7", '{"operation": 7}', '{"operation": "x", "by": "y", "since": "now"}']
)
def test_a_lock_that_says_odd_things_is_held_by_somebody(text: str, tmp_path: Path) -> None:
    with lock.locked(tmp_path, "upgrade", clock()):
        (tmp_path / ".docker-chap" / "lock").write_text(text)
        with pytest.raises(StateError, match="Another run works on this stack: another docker chap"):
            take_lock(tmp_path)


@needs_root
def test_a_compose_file_that_is_a_link_to_a_file_of_another_is_not_written(folder: Path, victim: Path) -> None:
    os.chown(victim, 0, 0)
    (folder / "compose.yml").symlink_to(victim)
    give(folder / "compose.yml", OPS)
    with pytest.raises(StateError, match="is a link of another user .54321. to a file that is not theirs"):
        durable.write_file(folder / "compose.yml", b"x")
    assert victim.read_bytes() == SECRET
    # His own link to a file of his own, and root's link, are what they say.
    (folder / "real.yml").write_bytes(b"old")
    give(folder / "real.yml", OPS)
    (folder / "compose.yml").unlink()
    (folder / "compose.yml").symlink_to("real.yml")
    give(folder / "compose.yml", OPS)
    durable.write_file(folder / "compose.yml", b"new")
    assert (folder / "real.yml").read_bytes() == b"new" and (folder / "real.yml").stat().st_uid == OPS
    os.lchown(folder / "compose.yml", 0, 0)
    durable.write_file(folder / "compose.yml", b"newer")
    assert (folder / "compose.yml").is_symlink()


# What must go on working


@needs_root
def test_root_works_in_a_folder_of_ops_and_ops_reads_what_it_may(folder: Path) -> None:
    take_lock(folder)
    begin(folder)
    open_run = run_records.open_run(folder, clock)
    assert open_run and open_run.id
    with acting_as(OPS):
        with pytest.raises(StateError, match="cannot be read by this user") as refused:
            run_records.open_run(folder, clock)
        assert "root" in refused.value.hint
    open_run.end("done")
    assert [run["result"] for run in run_records.history(folder)] == ["done"]


@needs_root
def test_ops_works_in_a_folder_of_his_own(folder: Path) -> None:
    with acting_as(OPS):
        take_lock(folder)
        begin(folder)
        open_run = run_records.open_run(folder, clock)
        assert open_run
        open_run.end("done")
        assert run_records.history(folder)
    assert {path.stat().st_uid for path in (folder / ".docker-chap").rglob("*")} == {OPS}


@needs_root
def test_ops_may_read_records_of_root_that_everybody_may_read(folder: Path) -> None:
    begin(folder)
    for path in (folder / ".docker-chap", *(folder / ".docker-chap").rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with acting_as(OPS):
        assert run_records.open_origin(folder) is not None


# Looking upwards


def at(folder: Path) -> Where:
    return Where((), "", None, (), folder, {})


@needs_root
def test_a_journal_in_a_folder_above_that_everybody_may_write_captures_nobody(tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "shared" / "mine" / "deeper"
    own.mkdir(parents=True)
    shared.chmod(0o1777)
    (shared / ".docker-chap").mkdir(mode=0o700)
    (shared / ".docker-chap" / "journal.json").write_text(journal())
    give(shared / ".docker-chap", EVE)
    assert at(own).record_folders == (own, own.parent)
    assert shared not in at(shared).record_folders, "not even for one who stands there: the records are another's"


@needs_root
def test_nobody_looks_past_a_folder_of_another(tmp_path: Path) -> None:
    mine, hers = tmp_path / "hers" / "mine", tmp_path / "hers"
    mine.mkdir(parents=True)
    give(hers, EVE)
    os.chown(mine, OPS, OPS)
    assert list(ownership.upwards(mine)) == [mine]
    os.chown(mine, EVE, EVE)
    assert list(ownership.upwards(mine))[:3] == [mine, hers, tmp_path]


@needs_root
def test_a_checkout_that_another_put_into_a_folder_is_none(folder: Path) -> None:
    (folder / ".git").mkdir()
    os.chown(folder / ".git", EVE, EVE)
    assert checkout.find(folder) is None
    give(folder / ".git", OPS)
    assert checkout.find(folder) == checkout.Checkout(folder)
    (folder.parent / ".git").mkdir()
    (folder / ".git").rmdir()
    folder.parent.chmod(0o1777)
    assert checkout.find(folder) is None


# Backups


@needs_root
def test_backups_of_others_do_not_count_and_hide_no_other(folder: Path, victim: Path) -> None:
    backups = folder / "backups"
    mine, his, open_to_all, linked = (write(backups, NOW.replace(day=day)) for day in (1, 2, 3, 4))
    give(his, OPS)
    (open_to_all / "manifest.json").chmod(0o666)
    (linked / "manifest.json").rename(folder / "elsewhere.json")
    (linked / "manifest.json").symlink_to(folder / "elsewhere.json")
    (backups / "link").symlink_to(mine)
    listing = catalogue.scan([backups])
    assert [backup.folder for backup in listing.backups] == [mine]
    assert [
        "belongs to another user" in why or "may be written" in why or "is a link" in why for why in listing.unusable
    ] == [True] * 3
    with pytest.raises(DumpError, match="cannot be used as a backup: .* belongs to another user") as refused:
        catalogue.load(his)
    assert "docker chap restore" in refused.value.hint


@needs_root
def test_nothing_is_written_through_another_user_s_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (folder / "backups").symlink_to(tmp_path / "etc")
    give(folder / "backups", OPS)
    with pytest.raises(StateError, match="is a link that belongs to another user"):
        durable.private_folder(folder / "backups")
    (folder / "backups").unlink()
    (folder / "backups").mkdir()
    (folder / "backups" / ".gitignore").symlink_to(tmp_path / "etc" / "new")
    durable.private_folder(folder / "backups")
    assert list((tmp_path / "etc").iterdir()) == []


@needs_root
def test_a_half_made_backup_that_was_exchanged_for_a_link_is_not_written_through(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    partial = folder / "20261123T040000Z.partial"
    partial.symlink_to(tmp_path / "etc")
    for act in (lambda: own_folder.write(partial / "manifest.json", b"x"), lambda: own_folder.new_file(partial / "x")):
        with pytest.raises(StateError, match="is a link, not a folder"):
            act()
    assert list((tmp_path / "etc").iterdir()) == []


def test_only_our_own_leftovers_are_removed(tmp_path: Path) -> None:
    for name, owner in (("1", os.geteuid()), ("2", OPS)):
        (tmp_path / f"{name}.partial").mkdir()
        give(tmp_path / f"{name}.partial", owner)
    os.mkfifo(tmp_path / "3.partial")
    (tmp_path / "4.partial").symlink_to(tmp_path)
    remove_abandoned(tmp_path)
    assert not (tmp_path / "1.partial").exists()
    assert (tmp_path / "2.partial").exists() or os.geteuid() != 0
    assert (tmp_path / "4.partial").is_symlink() and tmp_path.exists()
