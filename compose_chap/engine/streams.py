"""Run a program that takes bytes piece by piece, or whose output goes into a file."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

from compose_chap.engine.process import Finished, end_all, not_started, text_of


def feed(command: Sequence[str], pieces: Iterable[bytes], environment: Mapping[str, str]) -> Finished:
    """Run a command with `pieces` going into its standard input, and return what it did, whatever its status.

    `environment` is all that it gets. Where the command ends before it has taken everything, the rest stays unread.
    What `pieces` raises ends the command, which never sees an end of its input, and passes through. Raise EngineError
    when the program cannot be started.
    """
    with tempfile.TemporaryFile() as out:
        finished = _run(command, pieces, out, environment)
        return Finished(finished.status, text_of(out), finished.stderr)


def write_to(target: BinaryIO, command: Sequence[str], environment: Mapping[str, str]) -> Finished:
    """Run a command with its standard output going into a file, and return what it did, whatever its status.

    `environment` is as for `feed`. Raise EngineError when the program cannot be started.
    """
    return _run(command, (), target, environment)


def _run(command: Sequence[str], pieces: Iterable[bytes], target: BinaryIO, environment: Mapping[str, str]) -> Finished:
    with tempfile.TemporaryFile() as errors:
        try:
            child = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=target,
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            raise not_started(command, error) from None
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
