"""Copies in another place, with a real restic: sent, listed, proven, restored; and everything that can go wrong."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import repositories
from tests.e2e.calls import chap, kill, reach, started, until
from tests.e2e.repositories import Store
from tests.sample.stack import SampleStack

# So much that a copy of it is under way for a while, and does not get smaller by packing.
NOISE = (
    "CREATE TABLE noise AS SELECT i, (SELECT string_agg(md5(random()::text || i || j), '')"
    " FROM generate_series(1, 32) j) AS text FROM generate_series(1, 16000) i"
)


@pytest.fixture(autouse=True)
def needed() -> None:
    """Name what is missing, rather than fail somewhere else."""
    if not shutil.which("restic"):
        pytest.fail("restic is needed: apt-get install restic")


@pytest.fixture(scope="module")
def made(small: SampleStack) -> dict[str, Any]:
    """Make the backup that is copied."""
    return dict(chap(small, "backup")["backup"])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give a folder for copies."""
    with repositories.folder(tmp_path) as store:
        yield store


@pytest.fixture
def copied(small: SampleStack, made: dict[str, Any], store: Store) -> Store:
    """Give a folder with a copy."""
    copy(small, store, "--init")
    return store


def copy(stack: SampleStack, store: Store, *words: str, expect: int = 0, **variables: str) -> Any:
    to = ("--to", store.location, *store.words)
    return chap(stack, "copy", *to, *words, expect=expect, **{**store.variables, **variables})


def call(stack: SampleStack, command: str, store: Store, expect: int = 0) -> Any:
    return chap(stack, command, *from_(store), expect=expect, **store.variables)


def from_(store: Store) -> tuple[str, ...]:
    return ("--from", store.location, *store.words)


def test_a_copy_is_listed_proven_and_restored_where_the_backup_is_gone(
    small: SampleStack, made: dict[str, Any], copied: Store
) -> None:
    again = copy(small, copied)
    assert again["existed"] and again["sent"] == 0
    listed = chap(small, "copies", *from_(copied))
    assert [item["id"] for item in listed["copies"]] == [made["id"]] and not listed["incomplete"]
    proven = chap(small, "verify", *from_(copied))
    assert proven["tables"] == made["tables"] == {f"public.{name}": rows for name, rows in small.counts().items()}

    rows = small.checksum()
    folder = Path(made["folder"])
    kept = folder.rename(folder.parent.with_name("away"))
    small.sql("DELETE FROM observation")
    try:
        chap(small, "restore", "latest", "--yes", *from_(copied))
        assert small.checksum() == rows
        assert json.loads((folder / "proof.json").read_text())["how"] == "test-restored"
        assert {path.name for path in folder.iterdir()} == {path.name for path in kept.iterdir()} | {"proof.json"}
        assert chap(small, "verify", made["id"], "--deep")["proven_by"] == "test-restored"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        kept.rename(folder)
    trail = [entry for entry in chap(small, "history")["entries"] if entry["operation"] == "verify"]
    assert any(entry["facts"].get("repository") == copied.location for entry in trail)


def test_what_an_operator_gets_wrong(small: SampleStack, copied: Store, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("another\n")
    error = copy(small, Store(copied.location, ["--password-file", str(wrong)]), expect=1)["error"]
    assert "password of the repository is wrong" in error["message"]
    error = copy(small, Store(str(tmp_path / "nowhere"), copied.words), expect=1)["error"]
    assert "no repository at this location" in error["message"] and "--init" in error["hint"]
    assert not (tmp_path / "nowhere").exists()
    error = copy(small, Store(copied.location, []), expect=2)["error"]
    assert "password" in error["message"] and "--password-file" in error["hint"]
    error = copy(small, Store("rest:http://me:hunter2@127.0.0.1/x", copied.words), expect=2)["error"]
    assert "hunter2" not in json.dumps(error) and "--keys" in error["hint"]
    keys = tmp_path / "open"
    keys.write_text("AWS_ACCESS_KEY_ID=x\n")
    keys.chmod(0o644)
    error = copy(small, copied, "--keys", str(keys), expect=2)["error"]
    assert f"chmod 600 {keys}" in error["hint"]
    error = copy(small, Store("disk:NOT THERE/chap", copied.words), expect=1)["error"]
    assert "not connected" in error["message"]
    error = chap(small, "verify", "19990101T000000Z", *from_(copied), expect=1)["error"]
    assert "is not in the repository" in error["message"]


def test_restic_is_missing_or_old(small: SampleStack, copied: Store, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("docker", "git", "env", "sh", "readlink"):
        (programs / name).symlink_to(shutil.which(name) or name)
    alone = {"PATH": str(programs), "CHAP_PYTHON": sys.executable}
    error = copy(small, copied, expect=1, **alone)["error"]
    assert "restic is not installed" in error["message"] and "apt install restic" in error["hint"]
    (programs / "restic").write_text("#!/bin/sh\necho 'restic 0.11.0 compiled with go1.15.9 on linux/amd64'\n")
    (programs / "restic").chmod(0o755)
    error = copy(small, copied, expect=1, **alone)["error"]
    assert "0.11.0 is too old" in error["message"]


def test_old_copies_go_by_the_rules_for_backups(small: SampleStack, copied: Store) -> None:
    backups = [chap(small, "backup")["backup"]["id"] for _ in range(2)]
    for identity in backups:
        assert not copy(small, copied, identity)["existed"]
    for identity in backups:
        shutil.rmtree(small.folder / "backups" / identity)
    keep = [word for name in ("daily", "weekly", "monthly") for word in (f"--keep-{name}", "0")]
    prune = ("prune", *from_(copied), "--keep-last", "2", *keep)
    shown = chap(small, *prune, "--dry-run")
    assert not shown["removed"] and len(shown["copies"]) == 1 and set(shown["kept"]) == set(backups)
    assert chap(small, *prune, "--yes")["copies"] == shown["copies"]
    assert [item["id"] for item in chap(small, "copies", *from_(copied))["copies"]] == backups
    assert chap(small, "copies", *from_(copied), "--check", "100")["checked"] == 100
    assert chap(small, "history")["entries"][-1]["summary"] == "read 100% of the repository back"


@pytest.mark.torture  # restic tries for most of a minute
def test_where_nothing_may_be_removed_a_schedule_goes_on(
    small: SampleStack, made: dict[str, Any], tmp_path: Path
) -> None:
    with repositories.rest(tmp_path, "--append-only") as store:
        for identity in (made["id"], chap(small, "backup")["backup"]["id"]):
            chap(small, "copy", identity, "--to", store.location, *store.words, "--init")
        keep = [word for name in ("last", "daily", "weekly", "monthly") for word in (f"--keep-{name}", "0")]
        pruned = chap(small, "prune", *from_(store), *keep, "--yes")
        assert not pruned["removed"] and "append-only" in pruned["notes"][0] and store.location in pruned["notes"][0]
        assert len(chap(small, "copies", *from_(store))["copies"]) == 2
        last = chap(small, "history")["entries"][-1]
        assert last["result"] == "done" and last["summary"].startswith("removed nothing")


@pytest.mark.torture
def test_a_killed_copy_does_not_count_and_the_next_is_complete(
    small: SampleStack, made: dict[str, Any], copied: Store
) -> None:
    """Kill this tool in the middle: restic takes the end of its input for the end of the dump."""
    with noise(small):
        backup = chap(small, "backup")["backup"]
    words = ("copy", "--to", copied.location, *copied.words, "--limit-upload", "3000")
    with started(small, *words) as child:
        reach(child, "copy")
        until(lambda: size_of(Path(copied.location)) > 4 << 20, 60)
        kill(child)
    until(lambda: not any((Path(copied.location) / "locks").iterdir()), 60)
    cut_off = chap(small, "copies", *from_(copied))
    assert [item["id"] for item in cut_off["copies"]] == [made["id"]] and len(cut_off["incomplete"]) == 1
    assert not copy(small, copied)["existed"]
    assert chap(small, "verify", *from_(copied))["tables"]["public.noise"] == 16000
    shutil.rmtree(backup["folder"])


def test_a_damaged_pack_is_reported(small: SampleStack, copied: Store, tmp_path: Path) -> None:
    packs = sorted((tmp_path / "copies" / "data").rglob("*/*"), key=lambda path: path.stat().st_size)
    content = bytearray(packs[-1].read_bytes())
    content[len(content) // 3] ^= 1
    packs[-1].chmod(0o600)
    packs[-1].write_bytes(content)
    error = chap(small, "verify", *from_(copied), expect=1)["error"]
    assert "damaged" in error["message"], error
    last = chap(small, "history")["entries"][-1]
    assert last["operation"] == "verify" and last["result"] == "failed"


@contextmanager
def noise(stack: SampleStack) -> Iterator[None]:
    """Let the database have a table that a copy has to carry while the block runs."""
    stack.sql(NOISE)
    yield
    stack.sql("DROP TABLE noise")


def size_of(folder: Path) -> int:
    """Return the bytes of all finished files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
