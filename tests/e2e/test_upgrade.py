"""The upgrade when the world around it is not as it should be: slow migrations, cut links, a full disk."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.e2e.calls import chap
from tests.e2e.conftest import running
from tests.e2e.faults import Picture, Run, assert_old, fill_the_disk, tiny_disk
from tests.sample.stack import SampleStack, registry


class CutLink:
    """A way to the registry that breaks after so many bytes, a number of times."""

    def __init__(self, breaks: int, after: int) -> None:
        self.breaks, self.after, self.open = breaks, after, True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=[near], daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        host, _, port = registry().partition(":")
        with closing(near), suppress(OSError), socket.create_connection((host, int(port))) as far:
            if self.open:
                threading.Thread(target=self._pump, args=[near, far, None], daemon=True).start()
                self._pump(far, near, self.after)

    def _pump(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        passed = 0
        with suppress(OSError):
            while self.open and (data := source.recv(16384)):
                sink.sendall(data)
                passed += len(data)
                if limit and passed > limit and self.breaks > 0:
                    self.breaks -= 1
                    break
            for end in (source, sink):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take the registry away."""
        self.open = False
        self._listener.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """A small stack whose slow release takes 20 seconds to migrate."""
    stack = SampleStack.create(tmp_path_factory.mktemp("upgrade"), settings={"CHAP_TEST_MIGRATION_SECONDS": "20"})
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


def test_a_slow_migration_is_waited_for_as_long_as_it_works(stack: SampleStack) -> None:
    before = Picture.of(stack)
    done = chap(stack, "upgrade", "v2.1.4", "--yes", "--wait", "5")
    assert stack.version() == "2.1.4" and done["downtime_seconds"] > 20
    chap(stack, "rollback", "--yes")
    before.databases = []
    assert_old(stack, before)


def test_a_cut_link_is_taken_up_again_and_images_that_are_here_will_do(
    stack: SampleStack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    link = CutLink(breaks=0, after=20_000)
    for file in stack.files:
        file.write_text(file.read_text().replace(registry(), link.address))
    stack.compose("up", "-d", "--quiet-pull", "chap", "chap-worker")
    stack.wait_ready()
    link.breaks = 3
    for here in (False, True):
        # What follows the pull is not of interest.
        run = Run(stack, "upgrade", "v2.1.0", "--yes", at="backup", hit=lambda run: run.signal(signal.SIGINT))
        assert run.end() == 130 and "pull" in run.steps, run.stderr[-3000:]
        assert link.breaks == 0
        for name in ("chap-core", "chap-worker"):
            stack.docker("image", "inspect", f"{link.address}/docker-chap-test/{name}:v2.1.0")
        if not here:
            # Both images are here now; the registry is not needed.
            link.close()


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
