"""Copies in another place, with a real restic: sent, listed, proven, restored; and everything that can go wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import repositories
from tests.e2e.calls import chap, kill, plugin_process, reach, until
from tests.e2e.repositories import Store
from tests.sample.stack import SampleStack, environment

SERVERS = {"rest": repositories.rest, "sftp": repositories.sftp, "s3": repositories.s3}
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
    assert proven["tables"] == made["tables"] == small.counts()

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


@pytest.mark.parametrize("kind", SERVERS)
def test_every_kind_of_server(small: SampleStack, made: dict[str, Any], tmp_path: Path, kind: str) -> None:
    with SERVERS[kind](tmp_path) as store:
        assert "no repository" in copy(small, store, expect=1)["error"]["message"]
        assert copy(small, store, "--init")["sent"] > 0
        assert call(small, "copies", store)["copies"][0]["id"] == made["id"]
        assert call(small, "verify", store)["tables"] == made["tables"]
        store.stop()
        error = call(small, "copies", store, expect=1)["error"]
        assert "cannot be reached" in error["message"] and "link" in error["hint"]


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
    for name in ("docker", "python3", "git", "env", "sh"):
        (programs / name).symlink_to(shutil.which(name) or name)
    error = copy(small, copied, expect=1, PATH=str(programs))["error"]
    assert "restic is not installed" in error["message"] and "apt install restic" in error["hint"]
    (programs / "restic").write_text("#!/bin/sh\necho 'restic 0.11.0 compiled with go1.15.9 on linux/amd64'\n")
    (programs / "restic").chmod(0o755)
    error = copy(small, copied, expect=1, PATH=str(programs))["error"]
    assert "0.11.0 is too old" in error["message"]


def test_the_lock_of_another_host_counts_and_that_of_a_dead_run_does_not(
    small: SampleStack, copied: Store, tmp_path: Path
) -> None:
    """Let another host hold the repository while this one wants to remove something."""
    shutil.rmtree(tmp_path / "copies" / "locks")
    (tmp_path / "copies" / "locks").mkdir()
    hold = "hostname elsewhere; exec restic -r $0 backup --stdin"
    holder = subprocess.Popen(
        ["unshare", "--uts", "sh", "-c", hold, copied.location],
        env={**environment(), "RESTIC_PASSWORD": repositories.PASSWORD}, stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    locks = tmp_path / "copies" / "locks"
    try:
        until(lambda: any(locks.iterdir()))
        backups = [chap(small, "backup")["backup"]["id"] for _ in range(2)]
        assert not copy(small, copied)["existed"], "two may send at the same time"
        prune = ("prune", *from_(copied), "--keep-last", "1", "--keep-daily", "0", "--keep-weekly", "0")
        prune += ("--keep-monthly", "0", "--yes")
        error = chap(small, *prune, expect=1)["error"]
        assert "locked" in error["message"] and "elsewhere" in error["message"], error
    finally:
        holder.kill()
        holder.wait()
    for lock in locks.iterdir():
        lock.unlink()

    # A run on this machine that was killed leaves a lock too.
    holder = subprocess.Popen(
        ["restic", "-r", copied.location, "backup", "--stdin"],
        env={**environment(), "RESTIC_PASSWORD": repositories.PASSWORD}, stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: any(locks.iterdir()))
    holder.kill()
    holder.wait()
    shown = chap(small, *prune, "--dry-run")
    assert not shown["removed"] and len(shown["copies"]) == 1
    assert chap(small, *prune)["copies"] == shown["copies"]
    left = chap(small, "copies", *from_(copied))
    assert [item["id"] for item in left["copies"]] == backups[-1:]
    copied.restic("check")
    for identity in backups:
        shutil.rmtree(small.folder / "backups" / identity)


def test_an_append_only_repository_is_respected(small: SampleStack, made: dict[str, Any], tmp_path: Path) -> None:
    with repositories.rest(tmp_path, "--append-only") as store:
        copy(small, store, "--init")
        newer = chap(small, "backup")["backup"]["id"]
        copy(small, store)
        shutil.rmtree(small.folder / "backups" / newer)
        keep = [word for name in ("daily", "weekly", "monthly") for word in (f"--keep-{name}", "0")]
        error = chap(small, "prune", *from_(store), "--keep-last", "1", *keep, "--yes", expect=1)["error"]
        assert "append-only" in error["message"] and "on the server itself" in error["hint"]
        assert len(chap(small, "copies", *from_(store))["copies"]) == 2


def test_a_full_disk_leaves_what_was_copied_before(small: SampleStack, made: dict[str, Any], tmp_path: Path) -> None:
    full = tmp_path / "disk"
    full.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", full], check=False)
    if mounted.returncode:
        pytest.fail("root is needed, to mount a small disk")
    try:
        with repositories.folder(tmp_path) as store:
            store.location = str(full / "copies")
            copy(small, store, "--init")
            with noise(small):
                backup = chap(small, "backup")["backup"]
            error = copy(small, store, expect=1)["error"]
            assert "no room left" in error["message"] and "prune --from" in error["hint"], error
            shutil.rmtree(backup["folder"])
            assert [item["id"] for item in chap(small, "copies", *from_(store))["copies"]] == [made["id"]]
            store.restic("check", "--no-lock")
    finally:
        subprocess.run(["umount", full], check=True)


@pytest.mark.parametrize("how", ["link", "kill"])
def test_what_was_cut_off_goes_on(small: SampleStack, made: dict[str, Any], tmp_path: Path, how: str) -> None:
    """Cut a copy off when some of it was sent: the next run sends the rest alone."""
    port = 0
    with noise(small):
        backup = chap(small, "backup")["backup"]
    try:
        with repositories.rest(tmp_path) as store:
            port = int(store.location.rpartition(":")[2].partition("/")[0])
            copy(small, store, made["id"], "--init")
            sent = tmp_path / "rest" / "chap" / "data"
            before = size_of(sent)
            words = ["docker", "chap", "copy", "--to", store.location, *store.words, "--limit-upload", "3000"]
            with subprocess.Popen(
                [*words, "--progress", "json"], cwd=small.folder, env=environment(), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            ) as child:  # fmt: skip
                reach(child, "copy")
                until(lambda: size_of(sent) - before > 9 << 20, 60)
                if how == "link":
                    store.stop()
                    assert child.stderr
                    output = child.stderr.read()
                    assert child.wait() == 1 and "cannot be reached" in output, output
                else:
                    restic = children(plugin_process(child))
                    kill(child)
                    for process in restic:
                        os.kill(process, signal.SIGKILL)
        arrived = size_of(sent) - before
        with repositories.rest(tmp_path, port=port) as store:
            assert len(chap(small, "copies", *from_(store))["copies"]) == 1
            again = copy(small, store)
            assert not again["existed"]
            assert size_of(sent) - before - arrived <= again["sent"] + (1 << 20)
            assert again["sent"] < 18 << 20, f"{arrived} bytes were there already"
            assert chap(small, "verify", *from_(store))["tables"]["noise"] == 16000
    finally:
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


def children(process: int) -> list[int]:
    """Return the processes that a process has started."""
    result = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False)
    return [int(word) for word in result.stdout.split()]
