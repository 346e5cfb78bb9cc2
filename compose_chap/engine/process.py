"""Run a program on this machine: `docker`, `docker compose`, `git`. The only door of `subprocess`."""

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

# What a failed child wrote last is what names the cause; the rest is noise on a slow terminal.
_LAST_LINES = 25

# The variables that Compose itself obeys, and what they are for our own calls of it. Compose takes them from the shell
# and from every `.env` alike. Our calls say all they mean with options; a variable that would make them do more, or
# write something else than what is read, is given here, which beats both places.
# Left as they are: COMPOSE_FILE, COMPOSE_PATH_SEPARATOR, COMPOSE_PROJECT_NAME and COMPOSE_PROFILES, which our options
# beat; COMPOSE_DISABLE_ENV_FILE, COMPOSE_CONVERT_WINDOWS_PATHS, COMPOSE_COMPATIBILITY and COMPOSE_EXPERIMENTAL*, by
# which the operator's own `docker compose` reads the same project; COMPOSE_PARALLEL_LIMIT and COMPOSE_BAKE, which
# change how fast something is done, and not what.
FOR_COMPOSE: Mapping[str, str | None] = {
    # Containers of the project that no file names are nobody's business here: they are not removed, nor spoken of.
    "COMPOSE_REMOVE_ORPHANS": "false",
    "COMPOSE_IGNORE_ORPHANS": "true",
    # The env files are those that the stack was started with. Where it had none, a shell's are another project's.
    "COMPOSE_ENV_FILES": None,
    # What it prints is read by a program.
    "COMPOSE_ANSI": "never",
    "COMPOSE_MENU": "false",
    "COMPOSE_PROGRESS": "plain",
    "COMPOSE_STATUS_STDOUT": "false",
}


@dataclass(frozen=True)
class Finished:
    """A process that ended: its exit status and what it wrote."""

    status: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """The last lines it wrote, errors before results."""
        text = self.stderr.strip() or self.stdout.strip()
        return "\n".join(text.splitlines()[-_LAST_LINES:])


def run(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str | None] | None = None,
    on_line: Callable[[str], None] | None = None,
    given: str | None = None,
    owner: int | None = None,
    alone: bool = False,
) -> Finished:
    """Run a command to its end and return what it did, whatever its status.

    `environment` is added to the process's own; what is None there is taken away. `on_line` is given each line as it
    comes, of standard output and error alike, and what is returned then has the last of both as `stdout`. `given` goes
    into its standard input. `owner` is the user that root runs it as. With `alone` the child has `environment` and
    nothing of this process. The child gets a session of its own, so that Ctrl-C on the terminal reaches only this
    process, which then ends the child in order. Raise EngineError when the program cannot be started.
    """
    with timeline.during("question", timeline.program(command)):
        return _run(command, folder, environment, on_line, given, owner, alone)


def _run(
    command: Sequence[str],
    folder: Path | None,
    environment: Mapping[str, str | None] | None,
    on_line: Callable[[str], None] | None,
    given: str | None,
    owner: int | None,
    alone: bool,
) -> Finished:
    try:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment({} if alone else os.environ, environment or {}, owner),
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Two pipes, read one after the other, stop a child that fills the second one.
            stderr=subprocess.PIPE if on_line is None else subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            # The lock is the only thing that can be inherited: while a child works, the stack is not free.
            close_fds=alone,
            **_as_user(owner),
        )
    except OSError as error:
        raise EngineError(f"Cannot run {command[0]}: {error.strerror}.", hint="Is it installed and on PATH?") from None

    try:
        if on_line is None:
            stdout, stderr = child.communicate(given)
        else:
            stdout, stderr = _follow(child, on_line), ""
            child.wait()
    except BaseException:
        _end(child)
        raise
    return Finished(child.returncode, stdout, stderr)


def run_together(commands: Sequence[Sequence[str]], limit: float) -> list[Finished | None]:
    """Run commands side by side and return what each did, in their order; None for one that took over `limit` seconds.

    What has not ended then is ended, with what it had started. Raise EngineError when a program cannot be started.
    """
    end = time.monotonic() + limit
    running: list[tuple[subprocess.Popen[bytes], BinaryIO, BinaryIO]] = []
    with contextlib.ExitStack() as files:
        try:
            for command in commands:
                out, said = (files.enter_context(tempfile.TemporaryFile()) for _ in range(2))
                running.append((_alone(command, out, said), out, said))
            for child, _, _ in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(end - time.monotonic(), 0))
            in_time = [child.returncode for child, _, _ in running]
        finally:
            _end_all([child for child, _, _ in running])
        return [
            None if status is None else Finished(status, _text(out), _text(said))
            for status, (_, out, said) in zip(in_time, running)
        ]


def _alone(command: Sequence[str], out: BinaryIO, said: BinaryIO) -> subprocess.Popen[bytes]:
    try:
        # Without a terminal of its own nothing in it can ask.
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=said, start_new_session=True)
    except OSError as error:
        raise EngineError(f"Cannot run {command[0]}: {error.strerror}.", hint="Is it installed and on PATH?") from None


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _end_all(children: Sequence[subprocess.Popen[bytes]]) -> None:
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
    *,
    environment: Mapping[str, str] | None = None,
    owner: int | None = None,
) -> None:
    """Run a command with its standard output going into a file; with an `environment`, it has nothing but that.

    Raise EngineError when it is not there or fails.
    """
    try:
        finished = subprocess.run(
            command,
            env={**(os.environ if environment is None else environment), **_home(owner)},
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=subprocess.PIPE,
            check=False,
            **_as_user(owner),
        )
    except OSError as error:
        raise EngineError(f"Cannot run {command[0]}: {error.strerror}.", hint="Is it installed and on PATH?") from None
    if finished.returncode != 0:
        raise EngineError(f"{command[0]} failed: {finished.stderr.decode(errors='replace').strip()}")


def check(finished: Finished, doing: str, *, hint: str = "") -> str:
    """Return the standard output of a command that succeeded. Raise CommandFailed with its last words otherwise."""
    if finished.status != 0:
        raise CommandFailed(
            f"{doing} failed (exit status {finished.status}).\n{finished.said}".rstrip(),
            status=finished.status,
            output=finished.said,
            hint=hint,
        )
    return finished.stdout


def _as_user(owner: int | None) -> dict[str, Any]:
    if owner is None:
        return {}
    user = _user(owner)
    groups = os.getgrouplist(user.pw_name, user.pw_gid) if user else []
    return {"user": owner, "group": user.pw_gid if user else owner, "extra_groups": groups}


def _environment(own: Mapping[str, str], more: Mapping[str, str | None], owner: int | None) -> dict[str, str]:
    found = {**own, **more, **_home(owner)}
    return {name: value for name, value in found.items() if value is not None}


def _home(owner: int | None) -> dict[str, str]:
    user = _user(owner) if owner is not None else None
    if owner is None:
        return {}
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
