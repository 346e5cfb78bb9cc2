"""A private folder in the database's container where a dump is unpacked, read and restored.

The author of the dump is not trusted: everything here runs as the user `nobody`, and in the database as a role
that owns only the side database.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from compose_chap import units
from compose_chap.engine.execution import Execution
from compose_chap.errors import DatabaseError, DumpError, EngineError
from compose_chap.postgres import dump_format
from compose_chap.postgres.pg_tools import LITTLE_MEMORY, MANY_OBJECTS, NOBODY, batched, unreadable
from compose_chap.postgres.reach import WITH_PASSWORD, connection, first_error
from compose_chap.postgres.server import Server
from compose_chap.postgres.untrusted.script_errors import SOME_PRIVILEGES, privileges_of
from compose_chap.processes.process import Finished

_MOST_JOBS = 4
# A small file may hold a table of contents of any length.
_LONGEST_LISTING = 2 << 20
_ALL_ENDED = (
    "/^-- Data for Name: .*; Type: TABLE DATA;/ {tables++} /^COPY .* FROM stdin;$/ {copied++} /^[\\\\][.]$/ {ended++}"
    " END {exit copied && tables != ended}"
)
_FAST = "-c synchronous_commit=off -c maintenance_work_mem=256MB"


class Quarantine:
    """The folder of one run, `/tmp/docker-chap-RUN`."""

    def __init__(self, server: Server, run: str) -> None:
        self.server = server
        self.folder = f"/tmp/docker-chap-{run}"

    def make(self) -> None:
        """Make the folder, for this user alone."""
        self._run_checked(["mkdir", "-m", "700", self.folder])

    def remove(self) -> None:
        """Remove the folder and its content. No error when it is gone."""
        self.server.engine.run(self.server.container, ["rm", "-rf", self.folder])

    def upload(self, file: BinaryIO, name: str, progress: Callable[[int], None] = lambda done: None) -> str:
        """Copy a file into the folder and return its path there. Raise DatabaseError when it arrives incomplete."""
        sent = 0
        with self.receiving(name) as (path, send):
            while data := file.read(1 << 18):
                send(data)
                sent += len(data)
                progress(sent)
        return path

    @contextmanager
    def receiving(self, name: str) -> Iterator[tuple[str, Callable[[bytes], None]]]:
        """Yield the path of a new file in the folder, and a function that appends to it.

        Raise DatabaseError, at the latest at the end of the block, when it arrives incomplete.
        """
        path, sent = f"{self.folder}/{name}", 0
        command = ["sh", "-c", 'umask 077; cat > "$1" && wc -c < "$1"', "sh", path]
        with self.server.engine.execute(self.server.container, command, watched=False, user=NOBODY) as execution:

            def send(data: bytes) -> None:
                nonlocal sent
                try:
                    execution.send(data)
                except EngineError:
                    raise _incomplete(execution) from None
                sent += len(data)

            yield path, send
            execution.end_input()
            arrived = b"".join(execution.output()).strip()
            succeeded = execution.status() == 0
        if not succeeded or arrived != str(sent).encode():
            raise _incomplete(execution)

    def has(self, program: str) -> bool:
        """Whether the database's image has a program."""
        return self._run(["sh", "-c", 'command -v "$1"', "sh", program]).status == 0

    def unpack(self, program: str, path: str) -> str:
        """Unpack a file of the folder with `gzip` or `zstd`, and return the path of the result.

        It may use at most half of the free space: a small file can unpack to any size.
        """
        most = self.server.free_space("/tmp") // 2
        script = 'umask 077; trap "" XFSZ; ulimit -f "$1"; exec "$2" -dc "$3" > "$4"'
        finished = self._run(["sh", "-c", script, "sh", dump_format.blocks(most), program, path, f"{path}.unpacked"])
        if "too large" in finished.stderr:
            raise DumpError(f"The dump unpacks to more than {units.size(most)}, half of what the server has free.")
        if finished.status != 0:
            raise DumpError(f"The dump cannot be unpacked: {first_error(finished.stderr)}")
        return f"{path}.unpacked"

    def unpack_directory(self, archive: str) -> str:
        """Unpack a flat tar archive of the folder, and return the path of the new folder."""
        script = 'mkdir "$2" && exec tar -C "$2" --no-same-owner -xf "$1"'
        self._run_checked(["sh", "-c", script, "sh", archive, f"{archive}.unpacked"])
        return f"{archive}.unpacked"

    def head(self, path: str) -> bytes:
        """Return the first bytes of a file."""
        with self.server.engine.execute(self.server.container, ["head", "-c", "65536", path], user=NOBODY) as execution:
            return b"".join(execution.output())

    def pieces(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file, piece by piece."""
        with self.server.engine.execute(self.server.container, ["cat", path], user=NOBODY) as execution:
            yield from batched(execution.output())
            if execution.status() != 0:
                raise DumpError("The dump could not be read to its end.")

    def listing(self, path: str) -> str:
        """Return the output of `pg_restore --list` for an archive. Raise DumpError when it is not an archive."""
        output: list[bytes] = []
        command = [*WITH_PASSWORD, *LITTLE_MEMORY, "pg_restore", "--list", path]
        with self.server.engine.execute(self.server.container, command, user=NOBODY) as execution:
            for data in execution.output():
                output.append(data)
                if sum(map(len, output)) > _LONGEST_LISTING:
                    raise DumpError(MANY_OBJECTS)
            if execution.status() != 0:
                raise unreadable(execution.stderr.decode(errors="replace"))
        return b"".join(output).decode(errors="replace")

    def sql(self, path: str, entries: str) -> str:
        """Return the SQL of the listed entries of an archive, without running it."""
        chosen = self.upload(io.BytesIO(entries.encode()), "wanted")
        finished = self._run([*LITTLE_MEMORY, "pg_restore", "-f", "-", f"--use-list={chosen}", path])
        if finished.status != 0:
            raise unreadable(finished.stderr)
        return finished.stdout

    def check_tar(self, path: str) -> None:
        """Raise DumpError for a truncated tar archive: pg_restore would try to read its end for ever."""
        # tar accepts an archive that ends between two files. But a complete one ends with two blocks of zeros.
        script = 'tar -tf "$1" >/dev/null && test "$(tail -c 1024 "$1" | tr -d "\\000" | wc -c)" -eq 0'
        finished = self._run(["sh", "-c", script, "sh", path])
        if finished.status != 0:
            reason = first_error(finished.stderr) if finished.stderr.strip() else "its end is missing"
            raise DumpError(f"The dump is cut off: {reason}")

    def read_to_end(self, path: str) -> None:
        """Let pg_restore read an archive from its first byte to its last. Raise DumpError when it cannot."""
        finished = self._run([*LITTLE_MEMORY, "pg_restore", "-f", "/dev/null", path])
        if finished.status != 0:
            raise DumpError(f"The dump is damaged: {first_error(finished.stderr)}")

    def check_directory(self, path: str) -> None:
        """Raise DumpError for a directory in which the rows of a table were truncated.

        The rows of each table are in a file, and pg_restore takes the end of the file for the end of the rows. But
        pg_dump ends them with a line of its own, if it wrote them for COPY.
        """
        finished = self._run(["sh", "-c", f"pg_restore -f - \"$1\" | awk '{_ALL_ENDED}'", "sh", path])
        if finished.status != 0:
            raise DumpError("The dump is cut off: the rows of a table have no end.")

    def restore(
        self,
        path: str,
        entries: str,
        database: str,
        role: str,
        password: str,
        *,
        parallel: bool = True,
        strict: bool = True,
    ) -> None:
        """Restore the listed entries of an archive as `role`, with a process for each processor if `parallel`.

        If `strict`, raise DumpError with pg_restore's message at the first failure; otherwise continue after failures.
        """
        chosen = self.upload(io.BytesIO(entries.encode()), "list")
        jobs = min(_MOST_JOBS, self.server.processors()) if parallel else 1
        options = [f"--jobs={jobs}", *(["--exit-on-error"] if strict else [])]
        finished = self._pg_restore(path, chosen, database, role, password, *options)
        if finished.status != 0 and strict:
            raise DumpError(f"pg_restore could not restore the dump:\n{_without_noise(finished.last_lines)}")

    def restore_privileges(self, path: str, entries: str, database: str, role: str, password: str) -> set[str]:
        """Restore the listed entries of an archive, skip those that fail, and return the skipped ones, for people."""
        chosen = self.upload(io.BytesIO(entries.encode()), "fitting")
        finished = self._pg_restore(path, chosen, database, role, password)
        failed = [line for line in finished.stderr.splitlines() if "ERROR:" in line]
        return {privileges_of(line) for line in failed} or ({SOME_PRIVILEGES} if finished.status else set())

    def analyze(self, database: str, role: str, password: str) -> None:
        """Let PostgreSQL collect its planner's statistics as `role`, with a process for each processor.

        No error when that fails: autovacuum does it later.
        """
        jobs = min(_MOST_JOBS, self.server.processors())
        options = ["--analyze-only", "--quiet", f"--jobs={jobs}", "-U", role, "-d", connection(database)]
        self._run([*LITTLE_MEMORY, "vacuumdb", *options], self._login(password))

    def _pg_restore(self, path: str, entries: str, database: str, role: str, password: str, *options: str) -> Finished:
        command = [*LITTLE_MEMORY, "pg_restore", "-U", role, "-d", connection(database), "--no-owner", *options]
        command += [f"--use-list={entries}", path]
        return self._run(command, self._login(password))

    def _login(self, password: str) -> dict[str, str]:
        return {"PGPASSWORD": password, "PGOPTIONS": f"{self.server.environment['PGOPTIONS']} {_FAST}"}

    def _run_checked(self, command: Sequence[str]) -> None:
        finished = self._run(command)
        if finished.status != 0:
            raise DatabaseError(f"In the database's container: {finished.last_lines}")

    def _run(self, command: Sequence[str], environment: dict[str, str] | None = None) -> Finished:
        return self.server.engine.run(
            self.server.container, [*WITH_PASSWORD, *command], environment=environment, user=NOBODY
        )


def _incomplete(execution: Execution) -> DatabaseError:
    for _ in execution.output():
        pass  # stderr is collected on the way, and says why
    return DatabaseError(
        f"The dump could not be copied into the database's container: {first_error(execution.stderr.decode())}",
        hint="Is its disk full? Look with: docker system df",
    )


def _without_noise(stderr: str) -> str:
    # Do not show the data of the row that failed.
    return re.sub(r"(?m)^(CONTEXT|DETAIL):.*$\n?", "", stderr).strip()
