"""restic itself on real repositories: every kind of server, and what can go wrong there."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compose_chap.copies.failures import InUse, NoRepository, Unreachable
from compose_chap.copies.repository import read_password, repository
from compose_chap.copies.restic import Restic
from compose_chap.errors import CopyError
from tests.e2e import repositories
from tests.e2e.calls import until
from tests.e2e.repositories import Store
from tests.sample.stack import environment

SERVERS = {"rest": repositories.rest, "sftp": repositories.sftp, "s3": repositories.s3}
MEGABYTE = 1 << 20


def opened(store: Store, limit_upload: int = 0) -> Restic:
    password, keys = ([*store.words, "", ""][at] for at in (1, 3))
    named = repository(store.location, password, keys, environment() | store.variables)
    return Restic(named, limit_upload=limit_upload)


def content(megabytes: int, seed: int = 1) -> Iterator[bytes]:
    """Yield bytes that do not get smaller by packing, the same ones for the same seed."""
    numbers = random.Random(seed)
    for _ in range(megabytes * 4):
        yield numbers.randbytes(MEGABYTE // 4)


def sent(restic: Restic, megabytes: int = 1, tag: str = "t") -> int:
    return restic.send_stream(content(megabytes), "dump.sql", [tag]).added


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give a folder with a repository."""
    with repositories.folder(tmp_path) as store:
        opened(store).make_if_missing()
        yield store


@pytest.mark.parametrize("kind", ["rest", *(pytest.param(kind, marks=pytest.mark.torture) for kind in ("sftp", "s3"))])
def test_every_kind_of_server(tmp_path: Path, kind: str) -> None:
    with SERVERS[kind](tmp_path) as store:
        restic = opened(store)
        with pytest.raises(NoRepository):
            restic.check_reachable()
        assert restic.make_if_missing() and not restic.make_if_missing()
        assert sent(restic) > MEGABYTE and sent(restic) < MEGABYTE // 10
        first, second = restic.snapshots("t")
        assert b"".join(restic.read(first.id, "dump.sql")) == b"".join(content(1))
        restic.forget([first.id])
        assert restic.snapshots("t") == [second]
        restic.check("100%")
        store.stop()
        with pytest.raises(Unreachable, match="cannot be reached") as caught:
            restic.check_reachable()
        assert "link" in caught.value.hint


def test_what_is_sent_is_counted_as_it_is_sent(store: Store, tmp_path: Path) -> None:
    text = (b"%d rows that pack well\n" % number for number in range(200_000))
    added = opened(store).send_stream(text, "dump.sql", ["t"]).added
    on_disk = size_of(tmp_path / "copies" / "data")
    # restic adds a header to every pack.
    assert on_disk * 0.9 < added <= on_disk < MEGABYTE


def test_files_come_back_below_their_names(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "compose.yml").write_text("services: {}\n")
    (folder / "a b").write_text("x")
    snapshot = opened(store).send_files(folder, ["files", "a b"], ["t"]).snapshot
    opened(store).restore(snapshot, tmp_path / "back")
    assert (tmp_path / "back" / "files" / "compose.yml").read_text() == "services: {}\n"
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["a b", "files"]
    with pytest.raises(CopyError):
        opened(store).send_files(folder, ["not there"], ["t"])


def test_another_password(store: Store, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("another\n")
    with pytest.raises(CopyError, match="password of the repository is wrong"):
        opened(Store(store.location, ["--password-file", str(tmp_path / "wrong")])).check_reachable()


@pytest.mark.torture  # nine seconds for three files
@pytest.mark.parametrize("content", [b"\n\n x \r\n", b"two\nlines\n", b"\xef\xbb\xbfmarked\n"])
def test_the_password_on_paper_is_that_of_restic(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    store = Store(str(tmp_path / "copies"), ["--password-file", str(file)])
    opened(store).make_if_missing()
    store.restic("cat", "config", password=read_password(file))


def test_a_server_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr("compose_chap.copies.restic._PATIENCE", 2)
    with socket.create_server(("127.0.0.1", 0)) as deaf, repositories.folder(tmp_path) as store:
        store.location = f"rest:http://127.0.0.1:{deaf.getsockname()[1]}/"
        with pytest.raises(Unreachable, match="no answer within 2 seconds"):
            opened(store).check_reachable()


def test_what_the_pieces_raise_leaves_no_snapshot(store: Store) -> None:
    def broken() -> Iterator[bytes]:
        yield from content(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        opened(store).send_stream(broken(), "dump.sql", ["t"])
    assert opened(store).snapshots("t") == []


def holder(store: Store, *before: str) -> subprocess.Popen[bytes]:
    """Start a restic that holds a lock of the repository until it gets an end of its input."""
    words = [*before, "restic", "-r", store.location, "backup", "--stdin"]
    variables = environment() | {"RESTIC_PASSWORD": repositories.PASSWORD}
    child = subprocess.Popen(words, env=variables, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    until(lambda: any((Path(store.location) / "locks").iterdir()))
    return child


@pytest.mark.torture  # only root can give a host another name
def test_the_lock_of_another_host_counts(store: Store) -> None:
    child = holder(store, "unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh")
    try:
        sent(opened(store))  # two may send at the same time
        with pytest.raises(CopyError, match="locked(.|\n)*elsewhere") as caught:
            opened(store).check()
        assert "half an hour" in caught.value.hint
    finally:
        child.kill()
        child.wait()
        assert child.stdin
        child.stdin.close()


def test_the_lock_of_a_dead_run_of_this_machine_does_not(store: Store) -> None:
    child = holder(store)
    child.kill()
    child.wait()
    assert child.stdin and any((Path(store.location) / "locks").iterdir())
    child.stdin.close()
    opened(store).check()


@contextmanager
def checked_by_another(store: Store) -> Iterator[subprocess.Popen[bytes]]:
    """Let another restic hold the repository for itself alone while the block runs, as a check or a prune does."""
    sent(opened(store), 8)
    variables = environment() | {"RESTIC_PASSWORD": repositories.PASSWORD}
    # Two bytes a second: it takes longer than any test.
    words = ["restic", "-r", store.location, "check", "--read-data", "--limit-download", "1"]
    child = subprocess.Popen(words, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    locks = Path(store.location) / "locks"
    until(lambda: any(not path.name.endswith("tmp") and "-tmp-" not in path.name for path in locks.iterdir()))
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def test_a_run_that_was_killed_while_it_had_the_repository_for_itself_is_no_obstacle(store: Store) -> None:
    with checked_by_another(store) as child:
        child.kill()
        child.wait()
        assert any((Path(store.location) / "locks").iterdir())
        opened(store).check_reachable()
        sent(opened(store))


def test_while_another_run_has_the_repository_for_itself_this_waits(store: Store) -> None:
    with checked_by_another(store) as child:
        with pytest.raises(InUse, match="locked"):
            opened(store).check_reachable()
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 2:
                child.kill()
                child.wait()

        password = str(store.words[1])
        named = repository(store.location, password, "", environment())
        Restic(named, patience=60, sleep=sleep).check_reachable()
        assert waits == [10, 10]


def test_a_repository_that_can_only_be_read_is_enough_to_get_everything_back(store: Store) -> None:
    sent(opened(store))
    with read_only(Path(store.location)):
        restic = opened(store)
        restic.check_reachable()
        (snapshot,) = restic.snapshots("t")
        assert b"".join(restic.read(snapshot.id, "dump.sql")) == b"".join(content(1))
        assert [item.path for item in restic.contents(snapshot.id)] == ["/dump.sql"]
        for write in (lambda: sent(restic), lambda: restic.forget([snapshot.id])):
            with pytest.raises(CopyError, match="can only be read"):
                write()
    assert opened(store).snapshots("t") == [snapshot]


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write into a folder while the block runs, root included."""
    with pytest.MonkeyPatch.context() as patch:
        asked = os.access
        patch.setattr(os, "access", lambda path, mode: mode != os.W_OK and asked(path, mode))
        folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for path in folders:
            path.chmod(0o500)
        yield
        for path in folders:
            path.chmod(0o700)


@pytest.mark.torture  # restic tries for most of a minute
def test_an_append_only_repository_is_respected(tmp_path: Path) -> None:
    with repositories.rest(tmp_path, "--append-only") as store:
        restic = opened(store)
        restic.make_if_missing()
        sent(restic)
        (snapshot,) = restic.snapshots("t")
        with pytest.raises(CopyError, match="append-only") as caught:
            restic.forget([snapshot.id])
        assert "on the server itself" in caught.value.hint and restic.snapshots("t") == [snapshot]


@pytest.mark.torture  # only root can mount a small disk
def test_a_full_disk_leaves_what_was_sent_before(tmp_path: Path) -> None:
    full = tmp_path / "disk"
    full.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", full], check=False).returncode:
        pytest.fail("root is needed, to mount a small disk")
    try:
        with repositories.folder(tmp_path) as store:
            store.location = str(full / "copies")
            restic = opened(store)
            restic.make_if_missing()
            sent(restic)
            with pytest.raises(CopyError, match="no room left") as caught:
                restic.send_stream(content(20, seed=2), "dump.sql", ["t"])
            assert "prune --from" in caught.value.hint and len(restic.snapshots("t")) == 1
            store.restic("check", "--no-lock", "--read-data")
    finally:
        subprocess.run(["umount", full], check=True)


SEND = """
import random, sys
from tests.integration import test_restic as t
t.opened(t.Store(sys.argv[1], sys.argv[2:]), limit_upload=4000).send_stream(t.content(36), "dump.sql", ["t"])
"""


# restic tries for minutes to reach a server that is gone.
@pytest.mark.parametrize("how", [pytest.param("link", marks=pytest.mark.torture), "kill"])
def test_what_was_cut_off_goes_on(tmp_path: Path, how: str) -> None:
    """Cut it off when half was sent: what arrived counts, and only the rest is sent."""
    data = tmp_path / "rest" / "chap" / "data"
    with repositories.rest(tmp_path) as store:
        port = int(store.location.rpartition(":")[2].partition("/")[0])
        opened(store).make_if_missing()
        child = subprocess.Popen(
            [sys.executable, "-c", SEND, store.location, *store.words], env=environment(),
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        until(lambda: size_of(data) > 20 * MEGABYTE, 60)
        if how == "link":
            store.stop()
            _, output = child.communicate(timeout=180)
            assert child.returncode != 0 and "cannot be reached" in output
        else:
            restic_process = subprocess.run(["pgrep", "-P", str(child.pid)], capture_output=True, text=True, check=True)
            os.kill(int(restic_process.stdout), signal.SIGKILL)
            _, output = child.communicate()
            assert "ended by signal 9" in output
    arrived = size_of(data)
    with repositories.rest(tmp_path, port=port) as store:
        restic = opened(store)
        assert restic.snapshots("t") == []
        restic.count_everything()
        added = restic.send_stream(content(36), "dump.sql", ["t"]).added
        # Two packs may be half sent, and lie there without being of use.
        assert arrived > 11 * MEGABYTE and added < 30 * MEGABYTE, (arrived, added)
        assert arrived + added < 48 * MEGABYTE, (arrived, added)
        restic.check("100%")


def test_a_damaged_pack_is_seen(store: Store, tmp_path: Path) -> None:
    snapshot = opened(store).send_stream(content(8), "dump.sql", ["t"]).snapshot
    packs = sorted((tmp_path / "copies" / "data").rglob("*/*"), key=lambda path: path.stat().st_size)
    damaged = bytearray(packs[-1].read_bytes())
    damaged[len(damaged) // 3] ^= 1
    packs[-1].chmod(0o600)
    packs[-1].write_bytes(damaged)
    with pytest.raises(CopyError, match="is damaged"):
        list(opened(store).read(snapshot, "dump.sql"))
    with pytest.raises(CopyError, match="is damaged"):
        opened(store).check("100%")


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
