"""Start a process that outlives this one and its terminal, and watch over a child whose output goes into files."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

_SYSTEMD = Path("/run/systemd/system")
_LINGERING = Path("/var/lib/systemd/linger")
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start_apart(command: Sequence[str], environment: Mapping[str, str], unit: str, about: str) -> None:
    """Start a command that no end of this process, its session or its terminal reaches.

    Where systemd is at work it becomes a unit of it, because the end of a login may end all processes of it; elsewhere
    a process in a session of its own, with this `environment`. Raise OSError.
    """
    if (manager := systemd_options()) is not None:
        options = [
            *("--quiet", "--collect", f"--unit={unit}", f"--description={about}", "--property=Type=exec"),
            # Whoever stops it gives it the time to put everything back, and a part that runs out of memory is no reason
            # to end the rest: that has to put everything back too.
            *("--property=KillMode=mixed", "--property=TimeoutStopSec=30min", "--property=OOMPolicy=continue"),
        ]
        request = ["systemd-run", *manager, *options, "--", *command]
        if subprocess.run(request, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0:
            return
    nothing = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    os.posix_spawnp(command[0], list(command), environment, file_actions=nothing, setsid=True)


def systemd_options() -> list[str] | None:
    """Return systemd-run's options for the unit's owner; None where systemd does not run, or ends with the login."""
    if not _SYSTEMD.is_dir() or not shutil.which("systemd-run"):
        return None
    if os.geteuid() == 0:
        return []
    with suppress(KeyError, OSError):
        if (_LINGERING / pwd.getpwuid(os.geteuid()).pw_name).exists():
            return ["--user"]
    return None


def watch_over(
    command: Sequence[str],
    folder: str,
    environment: Mapping[str, str],
    umask: int,
    out: int,
    err: int,
    kept: int,
) -> int:
    """Run a command to its end and return its exit status, 128 + N for one that signal N ended.

    `out` and `err` are the descriptors that it writes to, `kept` is one that it inherits. Whatever asks this process to
    stop is handed on to the command. Raise OSError when it cannot be started.
    """
    child = subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environment),
        umask=umask,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        pass_fds=[kept],
        start_new_session=True,
    )

    def hand_on(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            child.send_signal(number)

    for number in _STOPS:
        signal.signal(number, hand_on)
    status = child.wait()
    return status if status >= 0 else 128 - status
