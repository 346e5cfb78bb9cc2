"""Watch the free disk space while a process writes an unknown amount of data, and end it before the disk is full."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

from compose_chap.errors import ChapError, DatabaseError
from compose_chap.postgres.server import Server

_LOOK_SECONDS = 0.3
# A look costs what is watched some time. While there is far more room than any disk takes in bytes per second, it is
# looked at less often.
_LONGEST_PAUSE = 5.0
_FASTEST_DISK = 4 << 30
# After more failures than this to read the free space, the process is ended too.
_MOST_FAILURES = 4
_LONG = "It took more than {hours:.0f} hours, and was stopped."


@contextmanager
def asking(server: Server) -> Iterator[Callable[[], int]]:
    """Yield a function that returns the free bytes where a server has its data, quickly, however busy the machine is.

    To start a program in a container for each answer takes a second there, and a disk may be full by then. So a
    single one answers a line for each line that it gets. The function raises ChapError when it does not answer.
    """
    script = 'while read -r _; do df -Pk "${PGDATA:-/var/lib/postgresql/data}" | tail -n 1; done'
    with server.engine.execute(server.container, ["sh", "-c", script], watched=False) as execution:
        output = execution.output()

        def free() -> int:
            execution.send(b"\n")
            line = b""
            while not line.endswith(b"\n") and (data := next(output, b"")):
                line += data
            try:
                return int(line.split()[-3]) * 1024
            except (IndexError, ValueError):
                raise DatabaseError("Cannot tell the free space of the database.") from None

        yield free


@contextmanager
def watched(free: Callable[[], int], least: int, end: Callable[[], None], limit: float) -> Iterator[None]:
    """While the block runs, call `end` once fewer than `least` bytes are `free`, or after `limit` seconds.

    Raise DatabaseError when the block failed because of that.
    """
    done, ended, reason = Event(), Event(), [""]

    def finish(why: str) -> None:
        reason[0] = reason[0] or why
        ended.set()
        try:
            end()
        except ChapError:
            pass  # the next look tries again

    def watch() -> None:
        begun, last, failures = time.monotonic(), free(), 0
        while not done.wait(_pause(last - least)):
            if ended.is_set() or time.monotonic() - begun > limit:
                finish(_LONG.format(hours=limit / 3600))
                continue
            try:
                last, before, failures = free(), last, 0
            except ChapError:
                failures += 1
            # A fast disk fills up between two looks, and ending the process on a busy machine takes one more.
            if failures > _MOST_FAILURES or last - 2 * max(before - last, 0) < least:
                finish("The dump needs more room than the disk has. It was stopped before the disk was full.")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(watch)
        try:
            yield
        except ChapError:
            if ended.is_set():
                raise DatabaseError(
                    reason[0], hint="Make room: docker chap prune, docker image prune Then run the command again."
                ) from None
            raise
        finally:
            done.set()


def _pause(bytes_left: int) -> float:
    return min(_LONGEST_PAUSE, max(_LOOK_SECONDS, bytes_left / _FASTEST_DISK))
