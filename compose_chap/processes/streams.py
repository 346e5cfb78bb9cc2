"""Run a program that takes bytes piece by piece, or gives them."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from compose_chap.processes.process import Finished, end_all, not_started, text_of

_PIECE = 1 << 18  # bytes


def feed(command: Sequence[str], pieces: Iterable[bytes], environment: Mapping[str, str]) -> Finished:
    """Run a command with `pieces` going into its standard input, and return what it did, whatever its status.

    `environment` is all that it gets. Where the command ends before it has taken everything, the rest stays unread.
    What `pieces` raises ends the command, which never sees an end of its input, and passes through. Raise EngineError
    when the program cannot be started.
    """
    with tempfile.TemporaryFile() as out:
        finished = _run(command, pieces, out, environment)
        return Finished(finished.status, text_of(out), finished.stderr)


def read(command: Sequence[str], environment: Mapping[str, str], check: Callable[[Finished], None]) -> Iterator[bytes]:
    """Run a command and yield its standard output piece by piece. `check` gets what it did, and may raise.

    Whoever stops reading ends the command. `environment` is as for `feed`. Raise EngineError when the program cannot
    be started.
    """
    with tempfile.TemporaryFile() as errors:
        child = _start(command, environment, subprocess.DEVNULL, subprocess.PIPE, errors)
        assert child.stdout is not None
        with child.stdout as output:
            try:
                while data := output.read(_PIECE):
                    yield data
                child.wait()
            except BaseException:
                end_all([child])
                raise
        check(Finished(child.returncode, "", text_of(errors)))


def _start(
    command: Sequence[str], environment: Mapping[str, str], stdin: int, stdout: int | BinaryIO, stderr: BinaryIO
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, env=dict(environment), stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
    except OSError as error:
        raise not_started(command, error) from None


def _run(command: Sequence[str], pieces: Iterable[bytes], target: BinaryIO, environment: Mapping[str, str]) -> Finished:
    with tempfile.TemporaryFile() as errors:
        child = _start(command, environment, subprocess.PIPE, target, errors)
        assert child.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                for data in pieces:
                    child.stdin.write(data)
                child.stdin.close()
            child.wait()
        except BaseException:
            end_all([child])
            raise
        finally:
            with contextlib.suppress(OSError):
                child.stdin.close()
        return Finished(child.returncode, "", text_of(errors))
