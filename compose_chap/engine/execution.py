"""Processes inside of containers."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from compose_chap.engine.failures import engine_errors
from compose_chap.engine.http import Http
from compose_chap.engine.link import Link
from compose_chap.errors import EngineError

_CHUNK = 64 * 1024
_STDERR_KEPT = 64 * 1024
# The container that answers may be one that nobody trusts.
_LONGEST_ANSWER = 64 << 20

# Docker leaves a process in a container running when its client dies. So the client keeps the standard input open
# only as a sign of life, and this wrapper ends the process as soon as that input closes. It waits for both of its
# children: an orphan becomes a child of the container's first process. Where that is PostgreSQL, it takes a child
# that was ended by a signal for a crash, and restarts with every session lost.
_WATCHDOG = (
    "exec 3<&0 </dev/null; "
    '"$@" 3<&- & p=$!; '
    "( exec >/dev/null 2>&1; while read -r _; do :; done <&3; kill -TERM $p ) & w=$!; "
    "exec 3<&-; wait $p; rc=$?; kill $w 2>/dev/null; wait $w 2>/dev/null; exit $rc"
)


def watched(command: Sequence[str]) -> list[str]:
    """Return the command that runs another one, which ends as soon as the standard input does."""
    return ["sh", "-c", _WATCHDOG, "docker-chap", *command]


class Execution:
    """A process inside a container, its three standard streams on one connection to the engine."""

    def __init__(self, http: Http, link: Link, identity: str) -> None:
        """Start the process of an exec that was created. Raise Refused, OSError."""
        self._http, self._link, self._identity = http, link, identity
        self._connection, self._answer = http.upgrade(f"/exec/{identity}/start", {"Detach": False, "Tty": False})
        # The client gives up after 60 quiet seconds; pg_restore is often quiet for longer.
        self._connection.sock.settimeout(None)
        self.stderr = b""
        self._cut = False

    def send(self, data: bytes) -> None:
        """Write to the standard input of the process. Raise EngineError when it has ended."""
        try:
            self._connection.sock.sendall(data)
        except OSError as error:
            raise EngineError(f"The process in the container ended early: {error.strerror}.") from None

    def end_input(self) -> None:
        """Close the standard input of the process."""
        try:
            self._connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def feed(self, pieces: Iterable[bytes]) -> bool:
        """Write all pieces and end the input; return whether the process read all of them.

        Errors raised by `pieces` pass through.
        """
        all_taken = True
        for data in pieces:
            try:
                self.send(data)
            except EngineError:
                # It ended early: its stderr says why.
                all_taken = False
                break
        self.end_input()
        return all_taken

    def output(self) -> Iterator[bytes]:
        """Yield the standard output as it comes; standard error collects in `stderr` (its last 64 KiB)."""
        while header := self._read(8):
            stream, left = struct.unpack(">BxxxL", header.ljust(8, b"\0"))
            self._cut |= len(header) < 8

            while left > 0 and (data := self._read(min(left, _CHUNK))):
                left -= len(data)
                if stream == 2:
                    self.stderr = (self.stderr + data)[-_STDERR_KEPT:]
                else:
                    yield data
            self._cut |= left > 0

    def _read(self, size: int) -> bytes:
        try:
            # Not from the socket: the first bytes of the stream may already sit in the buffer behind the headers.
            return self._answer.fp.read(size)
        except OSError:
            self._cut = True
            return b""

    def status(self) -> int:
        """Return the exit status of the process after its output ended.

        Raise EngineError when the engine cannot say: then the stream was cut, and the output read so far is incomplete.
        """
        with engine_errors("ask how the process in the container ended", self._link):
            # It ends a moment after its output. A connection that breaks may look like the end of the output.
            for pause in () if self._cut else (*[0.005] * 20, *[0.05] * 100):
                inspected = self._http.get(f"/exec/{self._identity}/json")
                if not inspected["Running"] and inspected["ExitCode"] is not None:
                    return int(inspected["ExitCode"])
                time.sleep(pause)
        raise EngineError("The connection to the Docker engine was lost while a command ran in a container.")

    def close(self) -> None:
        """Close the connection; this also ends a process that still runs under the watchdog."""
        self.end_input()
        self._answer.close()
        self._connection.close()


def bounded(pieces: Iterable[bytes], on_piece: Callable[[], None]) -> Iterator[bytes]:
    """Yield pieces as they are. Raise EngineError when they become more than 64 MiB. `on_piece` is called for each."""
    size = 0
    for data in pieces:
        on_piece()
        size += len(data)
        if size > _LONGEST_ANSWER:
            raise EngineError("A command in a container wrote far too much.")
        yield data
