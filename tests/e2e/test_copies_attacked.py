"""Copies killed at any moment, from a hostile repository, two at once, and where their backup is damaged or pruned."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e import repositories
from tests.e2e.calls import chap, kill, plugin_process, reach, started, until
from tests.e2e.repositories import Store
from tests.sample.stack import SampleError, SampleStack, environment

pytestmark = pytest.mark.torture


@pytest.fixture
def store(small: SampleStack, tmp_path: Path) -> Iterator[Store]:
    """Give a folder for copies, with a copy of an earlier backup."""
    with repositories.folder(tmp_path) as store:
        chap(small, "backup")
        chap(small, "copy", *to(store), "--init")
        yield store


def to(store: Store) -> tuple[str, ...]:
    return ("--to", store.location, *store.words)


def from_(store: Store) -> tuple[str, ...]:
    return ("--from", store.location, *store.words)


def killed_after(stack: SampleStack, seconds: float, *words: str) -> bool:
    """Start a command and kill it after some time; return whether it had ended before."""
    with started(stack, *words) as child:
        # Read, or it would stand still when the pipe is full.
        assert child.stderr is not None
        time.sleep(seconds)
        if child.poll() is not None:
            return True
        try:
            plugin_process(child)
        except IndexError:
            return True
        kill(child)
        return False


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """Let a backup be lost while the block runs, and what came in its place be gone after it."""
    kept = folder.rename(folder.parent.with_name("away"))
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        kept.rename(folder)


def test_a_copy_killed_at_any_moment(small: SampleStack, store: Store) -> None:
    backup = chap(small, "backup")["backup"]
    earlier = chap(small, "copies", *from_(store))["copies"]
    ended, moment = False, 0.3
    while not ended:
        ended = killed_after(small, moment, "copy", *to(store))
        listed = chap(small, "copies", *from_(store))["copies"]
        assert listed[:1] == earlier and [item["id"] for item in listed[1:]] in ([], [backup["id"]])
        moment += 0.7
    chap(small, "copy", *to(store))
    assert chap(small, "verify", backup["id"], *from_(store))["tables"] == backup["tables"]
    assert not (Path(backup["folder"]) / "sending").exists()


def test_a_restore_from_a_copy_killed_at_any_moment(small: SampleStack, store: Store) -> None:
    backup = chap(small, "backups")["backups"][-1]
    rows = small.checksum()
    folder = Path(backup["folder"])
    with away(folder):
        ended, moment = False, 3.0
        while not ended:
            shutil.rmtree(folder, ignore_errors=True)
            ended = killed_after(small, moment, "restore", "latest", "--yes", *from_(store))
            subprocess.run(["docker", "chap", "recover"], cwd=small.folder, capture_output=True, check=False)
            until(lambda: answers(small))
            assert small.checksum() == rows
            for listed in chap(small, "backups")["backups"]:
                assert json.loads((Path(listed["folder"]) / "manifest.json").read_text())["id"] == listed["id"]
                assert (Path(listed["folder"]) / "dump.sql").exists() is False
            moment *= 1.8
        chap(small, "verify", *from_(store))
        assert not list(folder.parent.glob("*.partial"))


def answers(stack: SampleStack) -> bool:
    """Whether the database answers. What was killed may have been a child of its server, which then starts again."""
    try:
        return bool(stack.sql("SELECT 1"))
    except SampleError:
        return False


def test_a_damaged_backup_is_not_taken_for_its_copy(small: SampleStack, store: Store) -> None:
    backup = chap(small, "backups")["backups"][-1]
    rows, dump = small.checksum(), next(Path(backup["folder"]).glob("*.dump"))
    content = bytearray(dump.read_bytes())
    content[len(content) // 2] ^= 1
    dump.chmod(0o600)
    dump.write_bytes(content)
    error = chap(small, "restore", "latest", "--yes", *from_(store), expect=1)["error"]
    assert "in the way" in error["message"] and f"mv {backup['folder']} " in error["hint"]
    with away(Path(backup["folder"])):
        chap(small, "restore", "latest", "--yes", *from_(store))
        assert small.checksum() == rows
    shutil.rmtree(backup["folder"])


def test_two_at_once_bring_the_same_copy(small: SampleStack, store: Store) -> None:
    backup = chap(small, "backups")["backups"][-1]
    with away(Path(backup["folder"])), started(small, "verify", *from_(store)) as child:
        chap(small, "restore", "latest", "--yes", *from_(store))
        assert child.stderr is not None and child.stderr.read() and child.wait(120) == 0
        assert chap(small, "backups")["backups"][-1]["tables"] == backup["tables"]


def test_a_backup_under_way_to_a_repository_is_not_pruned(small: SampleStack, store: Store) -> None:
    older, newer = (chap(small, "backup")["backup"]["id"] for _ in range(2))
    none = [word for name in ("last", "daily", "weekly", "monthly") for word in (f"--keep-{name}", "0")]
    with started(small, "copy", older, *to(store), "--limit-upload", "10") as child:
        reach(child, "copy")
        until(lambda: (small.folder / "backups" / older / "sending").exists())
        chosen = chap(small, "prune", "--yes", *none)
        assert chosen["kept"][older] == "it is being copied" and newer not in chosen["backups"]
        assert child.stderr is not None
        child.stderr.read()
        assert child.wait(120) == 0
    assert older in [item["id"] for item in chap(small, "copies", *from_(store))["copies"]]
    assert older in chap(small, "prune", "--yes", *none)["backups"]


def test_a_hostile_repository_is_obeyed_in_nothing(small: SampleStack, store: Store, tmp_path: Path) -> None:
    """Put copies into the repository that hold a link, a device, another's manifest, and other SQL."""
    snapshots = json.loads(store.restic("snapshots", "--json"))
    last = next(item for item in snapshots if any(tag.startswith("sql=") for tag in item["tags"]))
    store.restic("restore", last["id"], "--target", str(tmp_path / "good"))
    manifest = json.loads((tmp_path / "good" / "manifest.json").read_text())
    changes: dict[str, Callable[[Path], object]] = {
        "/files/passwd": lambda folder: (folder / "files" / "passwd").symlink_to("/etc/passwd"),
        "/memory": lambda folder: os.mknod(folder / "memory", 0o600 | stat.S_IFCHR, os.makedev(1, 1)),
        "/pinned": lambda folder: (folder / "pinned").touch(),
        "its manifest": lambda folder: (folder / "manifest.json").write_text(json.dumps(manifest)),
        "its SQL": lambda folder: None,
    }
    for number, (what, change) in enumerate(changes.items()):
        identity = f"20260101T00000{number}Z"
        folder = tmp_path / identity
        shutil.copytree(tmp_path / "good", folder)
        (folder / "manifest.json").write_text(json.dumps({**manifest, "id": identity}))
        change(folder)
        tags = [tag.replace(manifest["id"], identity) for tag in last["tags"] if not tag.startswith(("sql=", "part="))]
        sql = _kept(store, folder, tags, "--stdin", "--stdin-filename", "dump.sql")
        _kept(store, folder, [*tags, f"sql={sql}"], *sorted(path.name for path in folder.iterdir()))
        error = chap(small, "verify", identity, *from_(store), expect=1)["error"]
        assert f"damaged: {what}" in error["message"], error
        assert not list((small.folder / "backups").glob("*.partial"))
    chap(small, "verify", manifest["id"], *from_(store))


def _kept(store: Store, folder: Path, tags: list[str], *words: str) -> str:
    command = ["restic", "-r", store.location, "backup", "--json", *words, *(f"--tag={tag}" for tag in tags)]
    variables = environment() | {"RESTIC_PASSWORD": repositories.PASSWORD}
    done = subprocess.run(
        command, cwd=folder, env=variables, input="SELECT 1;", capture_output=True, text=True, check=True
    )
    return str(json.loads(done.stdout.splitlines()[-1])["snapshot_id"])
