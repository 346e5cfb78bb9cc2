"""Run a program on this machine: `docker`, `docker compose`, `git`."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from compose_chap import timeline
from compose_chap.errors import CommandFailed, EngineError
from compose_chap.redact import without_content

# The last lines of a failed child name the cause; the rest is noise on a slow terminal.
_LAST_LINES = 25

# Variables that Compose reads, and their values in our own calls. Compose takes them from the shell and from every
# `.env` alike. Our calls say everything with options; a variable that would make Compose do more, or print something
# that we do not parse, is set here, which overrides both.
# Not set here: COMPOSE_FILE, COMPOSE_PATH_SEPARATOR, COMPOSE_PROJECT_NAME and COMPOSE_PROFILES, which our options
# override; COMPOSE_DISABLE_ENV_FILE, COMPOSE_CONVERT_WINDOWS_PATHS, COMPOSE_COMPATIBILITY and COMPOSE_EXPERIMENTAL*,
# with which the operator's own `docker compose` reads the same project; COMPOSE_PARALLEL_LIMIT and COMPOSE_BAKE,
# which change how fast something is done, not what.
FOR_COMPOSE: Mapping[str, str | None] = {
    # Containers of the project that no file names are left alone, without a warning.
    "COMPOSE_REMOVE_ORPHANS": "false",
    "COMPOSE_IGNORE_ORPHANS": "true",
    # The env files are those that the stack was started with; the shell's may belong to another project.
    "COMPOSE_ENV_FILES": None,
    # We parse what it prints.
    "COMPOSE_ANSI": "never",
    "COMPOSE_MENU": "false",
    "COMPOSE_PROGRESS": "plain",
    "COMPOSE_STATUS_STDOUT": "false",
}


class TooLong(EngineError):
    """A program did not end in time."""


@dataclass(frozen=True)
class Finished:
    """A finished process: its exit status and output."""

    status: int
    stdout: str
    stderr: str

    @property
    def last_lines(self) -> str:
        """The last lines of stderr or, where that is empty, of stdout."""
        text = self.stderr.strip() or self.stdout.strip()
        return "\n".join(text.splitlines()[-_LAST_LINES:])

    def without_content(self) -> Finished:
        """Return it without what a failed Compose quotes from its files, which may be a password."""
        if self.status == 0:
            return self
        return Finished(self.status, without_content(self.stdout), without_content(self.stderr))


def run(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str | None] | None = None,
    on_line: Callable[[str], None] | None = None,
    stdin: str | None = None,
    owner: int | None = None,
    alone: bool = False,
    limit: float | None = None,
) -> Finished:
    """Run a command to its end and return its status and output, whatever the status.

    `environment` is added to the process's own; a value of None removes a variable. `on_line` gets each line as it
    comes, of stdout and stderr alike, and the result has the last lines of both as `stdout`. `stdin` is written to its
    standard input. `owner` is the user that root runs it as. With `alone` the child has `environment` and
    nothing of this process. The child gets a session of its own, so that Ctrl-C on the terminal reaches only this
    process, which then ends the child in order. Raise EngineError when the program cannot be started, TooLong when it
    has not ended after `limit` seconds.
    """
    with timeline.during("question", timeline.program(command)):
        return _run(command, folder, environment, on_line, stdin, owner, alone, limit)


def _run(
    command: Sequence[str],
    folder: Path | None,
    environment: Mapping[str, str | None] | None,
    on_line: Callable[[str], None] | None,
    stdin: str | None,
    owner: int | None,
    alone: bool,
    limit: float | None,
) -> Finished:
    try:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment({} if alone else os.environ, environment or {}, owner),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            # With two pipes read one after the other, a child that fills the second would hang.
            stderr=subprocess.PIPE if on_line is None else subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            # The child may inherit the lock, and nothing else: while it works, the stack stays locked.
            close_fds=alone,
            **_as_user(owner),
        )
    except OSError as error:
        raise not_started(command, error) from None

    try:
        if on_line is None:
            stdout, stderr = child.communicate(stdin, limit)
        else:
            stdout, stderr = _follow(child, on_line), ""
            child.wait()
    except subprocess.TimeoutExpired:
        _end(child)
        for stream in filter(None, (child.stdin, child.stdout, child.stderr)):
            stream.close()
        raise TooLong(f"{command[0]} has not ended after {limit:.0f} seconds.") from None
    except BaseException:
        _end(child)
        raise
    return Finished(child.returncode, stdout, stderr)


def run_together(commands: Sequence[Sequence[str]], limit: float) -> list[Finished | None]:
    """Run commands in parallel and return their results in order; None for a command that took over `limit` seconds.

    Commands over the limit are ended, with their children. Raise EngineError when a program cannot be started.
    """
    end = time.monotonic() + limit
    running: list[tuple[subprocess.Popen[bytes], BinaryIO, BinaryIO]] = []
    with contextlib.ExitStack() as files:
        try:
            for command in commands:
                out, err = (files.enter_context(tempfile.TemporaryFile()) for _ in range(2))
                running.append((_start(command, out, err), out, err))
            for child, _, _ in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(end - time.monotonic(), 0))
            in_time = [child.returncode for child, _, _ in running]
        finally:
            end_all([child for child, _, _ in running])
        return [
            None if status is None else Finished(status, text_of(out), text_of(err))
            for status, (_, out, err) in zip(in_time, running)
        ]


def _start(command: Sequence[str], out: BinaryIO, err: BinaryIO) -> subprocess.Popen[bytes]:
    try:
        # Without a terminal, nothing in it can prompt.
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
    except OSError as error:
        raise not_started(command, error) from None


def text_of(file: BinaryIO) -> str:
    """Return what was written into a file, as text."""
    file.seek(0)
    return file.read().decode(errors="replace")


def end_all(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End programs and their children: in order, or by force after two seconds."""
    late = [child for child in children if child.poll() is None]
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, None)):
        for child in late:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)
        for child in late:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(patience)
        late = [child for child in late if child.returncode is None]


def run_into(
    command: Sequence[str],
    target: BinaryIO,
    stdin: BinaryIO | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    owner: int | None = None,
) -> None:
    """Run a command with its standard output going into a file, and its input coming from another, byte for byte.

    An `environment` replaces that of this process.

    Raise EngineError when the command is missing or fails.
    """
    try:
        finished = subprocess.run(
            command,
            env={**(os.environ if environment is None else environment), **_home(owner)},
            stdin=stdin or subprocess.DEVNULL,
            stdout=target,
            stderr=subprocess.PIPE,
            check=False,
            **_as_user(owner),
        )
    except OSError as error:
        raise not_started(command, error) from None
    if finished.returncode != 0:
        raise EngineError(f"{command[0]} failed: {finished.stderr.decode(errors='replace').strip()}")


def check(finished: Finished, doing: str, *, hint: str = "") -> str:
    """Return the standard output of a command that succeeded. Raise CommandFailed with its last lines otherwise."""
    if finished.status != 0:
        raise CommandFailed(
            f"{doing} failed (exit status {finished.status}).\n{finished.last_lines}".rstrip(), hint=hint
        )
    return finished.stdout


def not_started(command: Sequence[str], error: OSError) -> EngineError:
    """Return the error for a program that cannot be started."""
    return EngineError(f"Cannot run {command[0]}: {error.strerror}.", hint="Is it installed and on PATH?")


def _as_user(owner: int | None) -> dict[str, Any]:
    if owner is None:
        return {}
    user = _user(owner)
    groups = os.getgrouplist(user.pw_name, user.pw_gid) if user else []
    return {"user": owner, "group": user.pw_gid if user else owner, "extra_groups": groups}


def _environment(own: Mapping[str, str], more: Mapping[str, str | None], owner: int | None) -> dict[str, str]:
    merged = {**own, **more, **_home(owner)}
    return {name: value for name, value in merged.items() if value is not None}


def _home(owner: int | None) -> dict[str, str]:
    if owner is None:
        return {}
    user = _user(owner)
    return {"HOME": user.pw_dir if user else "/nonexistent"}


def _user(owner: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(owner)
    except KeyError:
        return None


def _follow(child: subprocess.Popen[str], on_line: Callable[[str], None]) -> str:
    assert child.stdout is not None
    last: deque[str] = deque(maxlen=1000)
    with child.stdout as lines:
        for line in lines:
            last.append(line)
            on_line(line.rstrip("\n"))
    return "".join(last)


def _end(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
