"""What starts the work at its time: systemd where it is at work for this user, else cron."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Protocol

from compose_chap.errors import EngineError, StateError, UsageError
from compose_chap.processes import background
from compose_chap.schedule import plan
from compose_chap.schedule.crontab import Crontab
from compose_chap.schedule.plan import Schedule
from compose_chap.schedule.systemd import Systemd

# What `docker chap` needs of the environment that it was called in. Nothing secret: everybody can read a unit.
_HANDED_ON = (
    *("PATH", "HOME", "LANG", "TZ", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"),
    *("DOCKER_CONFIG", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"),
    *("DOCKER_CHAP_BACKUPS", "DOCKER_CHAP_ALLOW_UNMOUNTED"),
)
# Without them a monitor, the services of alarms and the server of copies may be out of reach.
_PROXIES = tuple(spelled for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY") for spelled in (name, name.lower()))
# What an operator sets once, in one shell: it stays until it is set to something else, or to nothing.
_KEPT = (*_PROXIES, "DOCKER_CHAP_BACKUPS", "DOCKER_CHAP_ALLOW_UNMOUNTED")
_FOLDERS = ("DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_CHAP_BACKUPS")


class Timers(Protocol):
    """What starts the work. `name` is for people."""

    @property
    def name(self) -> str:
        """What it is called."""

    def install(self, schedule: Schedule, environment: Mapping[str, str]) -> list[str]:
        """Make the timers of a schedule, in the place of its earlier ones; return what was written."""

    def remove(self, project: str) -> None:
        """Remove the timers of a project."""

    def folder(self, project: str) -> str:
        """Return the folder in which the timers of a project begin the work, empty where there are none."""

    def next_run(self, schedule: Schedule, kind: str, now: datetime) -> datetime | None:
        """Return when the work of a kind begins next; None when nothing will begin it, or nobody knows."""


def timers(wanted: str = "") -> Timers:
    """Return what starts the work for this user: `systemd` or `cron`, or with an empty `wanted` what is here.

    Raise EngineError where that is not on this machine.
    """
    options = background.systemd_options()
    if options is not None and shutil.which("systemctl") and wanted in ("", Systemd.name):
        return Systemd(options)
    if shutil.which("crontab") and wanted in ("", Crontab.name):
        return Crontab()
    raise EngineError(
        f"Nothing on this machine can start the work at its time: {wanted or 'neither systemd nor cron'} is"
        f"{' not' if wanted else ''} at work for this user.",
        state="Nothing was changed.",
        hint="Run it as root, where systemd runs. Or: loginctl enable-linger, or sudo apt install cron",
    )


def refuse_namesake(starter: Timers, schedule: Schedule) -> None:
    """Raise UsageError where timers of this name are another stack's: two engines may have a project of one name."""
    other = starter.folder(schedule.project)
    if not other or other == schedule.folder:
        return
    with suppress(StateError):
        if plan.read(Path(other)):
            raise UsageError(
                f"The timers of a project '{schedule.project}' are there already: those of the stack in {other}.",
                state="Nothing was changed.",
                hint=f"Schedule that stack as another user, or with the other of systemd and cron: --by KIND."
                f"\nOr remove its schedule: cd {quote(other)} && docker chap schedule off",
            )


def environment(own: Mapping[str, str], earlier: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what of this process's environment the work gets; a proxy with a password stays out of it.

    Of an `earlier` schedule's environment the proxies and the folder of the backups stay, unless they are set here.
    """
    handed = {name: own[name] for name in _HANDED_ON if own.get(name)}
    handed |= {name: own[name] for name in _PROXIES if own.get(name) and "@" not in own[name]}
    # The work is done in the stack's folder, wherever this was called.
    handed |= {name: os.path.abspath(handed[name]) for name in _FOLDERS if name in handed}
    kept = {name: value for name, value in (earlier or {}).items() if name in _KEPT and not _is_set(name, own)}
    return kept | handed | ({} if own.get("HOME") else {"HOME": os.path.expanduser("~")})


def _is_set(name: str, own: Mapping[str, str]) -> bool:
    return bool({name, name.upper(), name.lower()} & own.keys())
