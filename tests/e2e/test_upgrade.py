"""The upgrade when the world around it is not as it should be: slow migrations, cut links, a full disk."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.e2e.calls import chap
from tests.e2e.conftest import running
from tests.e2e.faults import Cut, Picture, Run, assert_new, assert_old, fill_the_disk, tiny_disk
from tests.sample.stack import SampleStack, registry

DOCKER, HTTPX = b"User-Agent: docker/", b"User-Agent: python-httpx/"


class CutLink(Cut):
    """A way to the registry that breaks off answers: so often for each client, behind so many bytes."""

    after: Mapping[bytes, int] = {DOCKER: 100_000, HTTPX: 700}

    def __init__(self) -> None:
        self.breaks: dict[bytes, int] = {}
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        host, _, port = registry().partition(":")
        super().__init__(listener, lambda: socket.create_connection((host, int(port))))

    def _carry(self, near: socket.socket) -> None:
        with closing(near), suppress(OSError), closing(self._connect()) as far:
            if self.open:
                far.sendall(request := near.recv(16384))
                client = next((name for name in self.after if name in request), b"")
                threading.Thread(target=self._pump, args=[near, far], daemon=True).start()
                self._pump(far, near, client)

    def _pump(self, source: socket.socket, sink: socket.socket, client: bytes = b"") -> None:
        passed = 0
        with suppress(OSError):
            while self.open and (data := source.recv(16384)):
                if self.breaks.get(client) and passed + len(data) > self.after[client]:
                    self.breaks[client] -= 1
                    sink.sendall(data[: self.after[client] - passed])
                    break
                sink.sendall(data)
                passed += len(data)
            for end in (source, sink):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take the registry away."""
        self.open = False
        self._listener.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """A small stack whose slow release takes 8 seconds to migrate."""
    stack = SampleStack.create(tmp_path_factory.mktemp("upgrade"), settings={"CHAP_TEST_MIGRATION_SECONDS": "8"})
    yield from running(stack)


@pytest.mark.torture
def test_the_digests_are_written_into_the_files(stack: SampleStack) -> None:
    before = Picture.of(stack)
    chap(stack, "upgrade", "v2.1.0", "--yes", "--digest")
    assert stack.version() == "2.1.0"
    for name in ("chap", "chap-worker"):
        assert re.fullmatch(r"\S+:v2\.1\.0@sha256:[0-9a-f]{64}", stack.containers()[name]["image"])
    failure = chap(stack, "upgrade", "v2.2.0", "--yes", expect=1)["error"]
    assert "pinned to the digest" in failure["message"] and "--digest" in failure["hint"]
    chap(stack, "rollback", "--yes")
    before.databases = []
    assert_old(stack, before)


def put_unseen(stack: SampleStack) -> None:
    """Put both versions into a place of their own in the registry; the engine lacks a layer of the newer one."""
    (stack.folder / "layer").write_bytes(os.urandom(300_000))
    for name in ("chap-core", "chap-worker"):
        source, target = (f"{registry()}/docker-chap-test/{prefix}{name}" for prefix in ("", "cut/"))
        stack.docker("tag", stack.containers()[name.replace("chap-core", "chap")]["image"], f"{target}:v2.0.0")
        container = stack.docker("create", f"{source}:v2.1.0").stdout.strip()
        stack.docker("cp", "layer", f"{container}:/layer")
        stack.docker("commit", container, f"{target}:v2.1.0")
        stack.docker("rm", container)
        stack.docker("push", "-q", "--all-tags", target)
        stack.docker("rmi", f"{target}:v2.0.0", f"{target}:v2.1.0")


def test_a_cut_link_is_taken_up_again_and_images_that_are_here_will_do(stack: SampleStack) -> None:
    put_unseen(stack)
    link = CutLink()
    prefix = f"{link.address}/docker-chap-test/cut/"
    [file] = stack.files
    before = file.read_text()
    file.write_text(re.sub(r"image: \S+/(chap-core|chap-worker):", rf"image: {prefix}\1:", before))
    stack.compose("up", "-d", "--quiet-pull", "chap", "chap-worker")
    stack.wait_ready()
    images = [f"{prefix}{name}:v2.1.0" for name in ("chap-core", "chap-worker")]
    link.breaks = {DOCKER: 2, HTTPX: 2}
    for here in (False, True):
        assert here == (not stack.docker("image", "inspect", *images, check=False).returncode)
        # What follows the pull is not of interest.
        run = Run(stack, "upgrade", "v2.1.0", "--yes", at="backup", hit=lambda run: run.signal(signal.SIGINT))
        assert run.end() == 130 and "pull" in run.steps, run.stderr[-3000:]
        assert set(link.breaks.values()) == {0}, link.breaks
        # Both images are here now; the registry is not needed.
        link.close()
    file.write_text(before)
    stack.compose("up", "-d", "chap", "chap-worker")
    stack.docker("rmi", *images)
    stack.wait_ready()


def test_a_slow_migration_is_waited_for_as_long_as_it_works(stack: SampleStack) -> None:
    before = Picture.of(stack)
    done = chap(stack, "upgrade", "v2.1.4", "--yes", "--wait", "3")
    assert done["downtime_seconds"] > 8
    assert_new(stack, before, "v2.1.4")

    # Its backup brings back the version too.
    chap(stack, "restore", "latest", "--with-version", "--yes")
    before.databases = []
    assert_old(stack, before)


@pytest.mark.torture
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a disk")
@pytest.mark.parametrize("step", ["rewrite", "backup", "start api"])
def test_a_full_disk(tmp_path_factory: pytest.TempPathFactory, step: str) -> None:
    folder: Path = tmp_path_factory.mktemp("full")
    with tiny_disk(folder, 8):
        stack = SampleStack.create(folder)
        try:
            stack.up()
            stack.fill(rows=2_000)
            before = Picture.of(stack)
            run = Run(stack, "upgrade", "v2.1.0", "--yes", at=step, hit=fill_the_disk(stack))
            status = run.end()
            assert status in (1, 3), run.stderr[-3000:]
            assert not re.search("Traceback|This is a bug", run.stderr)
            (stack.folder / "filler").unlink()
            assert_old(stack, before)
        finally:
            stack.down()
