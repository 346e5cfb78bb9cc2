"""pg_dump and pg_restore inside the database's container; the dump is streamed, never a file there."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from compose_chap.engine.execution import Execution
from compose_chap.errors import DatabaseError, DumpError
from compose_chap.postgres.psql import counted
from compose_chap.postgres.reach import WITH_PASSWORD, connection, first_error
from compose_chap.postgres.server import Server
from compose_chap.postgres.statements import COUNT

_PIECE = 256 * 1024
NOBODY = "nobody"
# Memory limit for reading an untrusted archive in the container of the live server.
LITTLE_MEMORY = ("sh", "-c", 'ulimit -v 393216; exec "$@"', "sh")  # KiB
MANY_OBJECTS = "The dump holds more tables and other objects than any database of CHAP."
_NEWER = re.compile(r"unsupported version \(([\d.]+)\)")


def unreadable(stderr: str) -> DumpError:
    """Return the error for an archive that pg_restore cannot read, from its stderr."""
    if newer := _NEWER.search(stderr):
        return DumpError(
            f"The dump was made by a newer pg_dump (archive format {newer[1]}) than this server's tools can read.",
            hint="Make it again with the pg_dump of this server's version, or as plain SQL: pg_dump -Fp.",
        )
    if "out of memory" in stderr:
        return DumpError(MANY_OBJECTS)
    return DumpError(f"pg_restore cannot read the dump: {first_error(stderr)}")


def compression(server: Server) -> str:
    """Return the fastest compression that the server's pg_dump knows: `zstd:1` or `gzip:1`, else `1`. Asked once."""
    return server.engine.once(("compression", server.container), lambda: _compression(server))


def _compression(server: Server) -> str:
    # Zstandard is optional when PostgreSQL is built; only pg_dump itself can tell.
    probe = server.tool(
        "pg_dump", "-U", server.admin, "-d", server.home, "-Fc", "-Z", "zstd:1", "-s", "--no-sync", "-f", "/dev/null"
    )
    if probe.status == 0:
        return "zstd:1"
    output = server.engine.run(server.container, ["pg_dump", "--version"]).stdout
    major = re.search(r"(\d+)", output)
    return "gzip:1" if major and int(major[1]) >= 16 else "1"


class Snapshot:
    """An open transaction: its exported snapshot id for pg_dump, and the row counts at that moment."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._output = execution.output()
        execution.send(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();\n")
        self.id = self._first_line()
        # The server counts while pg_dump runs. The transaction stays open until the answer is read.
        execution.send(COUNT.encode())

    def counts(self) -> dict[str, int]:
        """Return the rows of every table at the moment of the snapshot, and end the transaction."""
        self._execution.end_input()
        # A letter may lie in two pieces.
        text = b"".join(self._output).decode()
        if self._execution.status() != 0:
            raise DatabaseError(f"Counting rows failed: {first_error(self._execution.stderr.decode())}")
        return counted(text)

    def _first_line(self) -> str:
        text = ""
        for data in self._output:
            text += data.decode()
            if "\n" in text:
                return text.strip()
        raise DatabaseError(f"PostgreSQL gave no snapshot: {first_error(self._execution.stderr.decode())}")


@contextmanager
def snapshot(server: Server, database: str) -> Iterator[Snapshot]:
    """Hold a snapshot of a database: the dump and the row counts in the block see the same data."""
    with server.session(database) as execution:
        yield Snapshot(execution)


def dump(server: Server, database: str, moment: Snapshot, packing: str) -> Generator[bytes, None, None]:
    """Yield a dump in custom format, of a snapshot and compressed with `packing`, piece by piece.

    Raise DatabaseError after the last piece unless pg_dump succeeded; then the pieces are not a dump.
    """
    options = ["-U", server.admin, "-d", connection(database), "-Fc", "-Z", packing, f"--snapshot={moment.id}"]
    command = [*WITH_PASSWORD, "pg_dump", *options]
    with server.engine.execute(server.container, command, environment=server.environment) as execution:
        yield from batched(execution.output())
        status = execution.status()
    if status != 0:
        raise DatabaseError(
            f"pg_dump failed (exit status {status}): {first_error(execution.stderr.decode())}",
            hint="Check the database: docker chap check",
        )


def batched(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in larger pieces, which are cheaper to pass on: pg_dump writes 4 KiB at a time."""
    batch, size = [], 0
    for data in pieces:
        batch.append(data)
        size += len(data)
        if size >= _PIECE:
            yield b"".join(batch)
            batch, size = [], 0
    if batch:
        yield b"".join(batch)


def read_to_end(server: Server, pieces: Iterable[bytes]) -> None:
    """Let pg_restore read an archive from its first byte to its last. Errors raised by `pieces` pass through.

    Listing is not enough: the list is at the start, and a truncated archive still has it. Raise DumpError
    when the archive cannot be read, DatabaseError when this pg_restore cannot do it.
    """
    command = [*LITTLE_MEMORY, "pg_restore", "-f", "/dev/null"]
    with server.engine.execute(server.container, command, watched=False, user=NOBODY) as execution:
        succeeded = _fed(execution, pieces)
    if not succeeded:
        stderr = execution.stderr.decode(errors="replace")
        # The tools of an older server do not know a newer format. Without a message, pg_restore was killed.
        if "pg_restore:" not in stderr or _NEWER.search(stderr):
            raise DatabaseError(unreadable(stderr).message, hint=unreadable(stderr).hint)
        raise unreadable(stderr)


def _fed(execution: Execution, pieces: Iterable[bytes]) -> bool:
    """Write all pieces, wait for the end, and return whether the process read all of them and exited with 0."""
    all_taken = execution.feed(pieces)
    for _ in execution.output():
        pass
    return execution.status() == 0 and all_taken


def as_sql(server: Server, archive: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the SQL of an archive of our own, which comes piece by piece. Nothing runs it.

    Raise DumpError after the last piece unless pg_restore read the archive to its end.
    """
    command = [*LITTLE_MEMORY, "pg_restore", "-f", "-"]
    # The process ends before the thread is waited for, so that neither waits for the other when nobody reads on.
    with (
        ThreadPoolExecutor(1) as pool,
        server.engine.execute(server.container, command, watched=False, user=NOBODY) as execution,
    ):
        # In parallel: pg_restore blocks when nobody reads its output.
        writing = pool.submit(execution.feed, archive)
        yield from batched(execution.output())
        if not writing.result() or execution.status() != 0:
            raise unreadable(execution.stderr.decode(errors="replace"))


def fill(server: Server, database: str, pieces: Iterable[bytes]) -> None:
    """Restore an archive of our own, given in pieces, into an empty database: all of it or nothing.

    It needs no disk space but for the rows. Raise DatabaseError with pg_restore's message when it fails.
    """
    command = ["pg_restore", "-U", server.admin, "-d", connection(database), "--exit-on-error", "--single-transaction"]
    command = [*WITH_PASSWORD, *command]
    with server.engine.execute(server.container, command, watched=False, environment=server.environment) as execution:
        succeeded = _fed(execution, pieces)
    if not succeeded:
        reason = first_error(execution.stderr.decode(errors="replace"))
        raise DatabaseError(f"pg_restore could not restore the dump: {reason}")
