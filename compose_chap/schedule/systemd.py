"""Timers of systemd: a service and a timer for each kind of work."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from compose_chap.errors import EngineError, StateError
from compose_chap.processes import process
from compose_chap.records.files import durable
from compose_chap.schedule.plan import KINDS, MONTHLY, NIGHTLY, WEEKLY, Schedule

_SYSTEM = Path("/etc/systemd/system")
_SERVICE = """\
# Made by `docker chap schedule on`; `docker chap schedule off` removes it.
[Unit]
Description=docker chap: {kind} work on {project}
After=docker.service network-online.target
Wants=network-online.target

[Service]
Type=oneshot
WorkingDirectory={folder}
Environment={environment}
ExecStart={command}
Nice=10
# Whoever stops it gives it the time to put everything back.
KillMode=mixed
TimeoutStopSec=30min
TimeoutStartSec=20h
OOMPolicy=continue
"""
_TIMER = """\
# Made by `docker chap schedule on`; `docker chap schedule off` removes it.
[Unit]
Description=docker chap: {kind} work on {project}

[Timer]
OnCalendar={when}
RandomizedDelaySec=10min
# A machine that was off at that time does it when it is on again.
Persistent=true

[Install]
WantedBy=timers.target
"""


def unit_name(project: str, kind: str) -> str:
    """Return the name of the units of a kind of work, without what says which unit it is."""
    return f"docker-chap-{kind}-{project}"


def files(schedule: Schedule, kind: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the names of the two units of a kind of work, and what is in them."""
    name, about = unit_name(schedule.project, kind), {"kind": kind, "project": schedule.project.replace("%", "%%")}
    service = _SERVICE.format(
        **about,
        folder=_escaped(schedule.folder),
        environment=" ".join(_quoted(f"{name}={value}") for name, value in environment.items()),
        command=" ".join(_quoted(word).replace("$", "$$") for word in schedule.command(kind)),
    )
    return {f"{name}.service": service, f"{name}.timer": _TIMER.format(**about, when=_when(schedule, kind))}


class Systemd:
    """The timers of this user's systemd; `options` are ["--user"] where that is not the system's own."""

    name = "systemd"

    def __init__(self, options: Sequence[str]) -> None:
        self._options = list(options)
        home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        self.units = Path(home) / "systemd/user" if options else _SYSTEM

    def install(self, schedule: Schedule, environment: Mapping[str, str]) -> list[str]:
        """Make the timers and start them, and return their files.

        Raise StateError or EngineError; then all is as before.
        """
        texts = {
            self.units / name: text.encode()
            for kind in KINDS
            for name, text in files(schedule, kind, environment).items()
        }
        timers = [f"{unit_name(schedule.project, kind)}.timer" for kind in KINDS]
        earlier = {path: _content(path) for path in texts}
        try:
            self._write(texts)
            self._start(timers)
        except BaseException:
            self._put_back(earlier, timers)
            raise
        return list(map(str, texts))

    def _write(self, texts: Mapping[Path, bytes]) -> None:
        try:
            self.units.mkdir(parents=True, exist_ok=True)
            for path, content in texts.items():
                durable.write_file(path, content)
                path.chmod(0o644)
        except OSError as error:
            raise StateError(f"Cannot write the timers in {self.units}: {error.strerror}.") from None

    def _start(self, timers: Sequence[str]) -> None:
        self._call("daemon-reload")
        self._call("enable", "--now", "--quiet", *timers)
        # A timer that was there before goes by its old time until then.
        self._call("restart", *timers)

    def _put_back(self, earlier: Mapping[Path, bytes | None], timers: Sequence[str]) -> None:
        """Put the units back as they were, as far as that can be done: what failed is reported by what failed first."""
        before = [timer for timer in timers if earlier[self.units / timer] is not None]
        if added := [timer for timer in timers if timer not in before]:
            with suppress(EngineError):
                self._call("disable", "--now", "--quiet", *added)
        with suppress(StateError):
            self._write({path: content for path, content in earlier.items() if content is not None})
        for path, content in earlier.items():
            if content is None:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        with suppress(EngineError):
            self._start(before) if before else self._call("daemon-reload")

    def remove(self, project: str) -> None:
        """Stop the timers and remove them. What a timer has begun goes on. Raise StateError or EngineError."""
        units = [unit_name(project, kind) for kind in KINDS]
        present = [f"{unit}.timer" for unit in units if (self.units / f"{unit}.timer").exists()]
        if present:
            self._call("disable", "--now", "--quiet", *present)
        try:
            for unit in units:
                for suffix in ("timer", "service"):
                    (self.units / f"{unit}.{suffix}").unlink(missing_ok=True)
        except OSError as error:
            raise StateError(f"Cannot remove the timers in {self.units}: {error.strerror}.") from None
        self._call("daemon-reload")

    def folder(self, project: str) -> str:
        """Return the folder in which the timers of a project begin the work, empty where there are none."""
        with suppress(OSError):
            for line in (self.units / f"{unit_name(project, NIGHTLY)}.service").read_text().splitlines():
                name, _, value = line.partition("=")
                if name == "WorkingDirectory":
                    return value.replace("%%", "%")
        return ""

    def next_run(self, schedule: Schedule, kind: str, _now: datetime) -> datetime | None:
        """Return when the work of a kind begins next; None when systemd does not say."""
        unit = f"{unit_name(schedule.project, kind)}.timer"
        finished = process.run(["systemctl", *self._options, "list-timers", "--all", "--output=json", unit])
        with suppress(ValueError, KeyError, IndexError, TypeError, OverflowError):
            micro = json.loads(finished.stdout)[0]["next"]
            return datetime.fromtimestamp(micro / 1e6, timezone.utc) if micro else None
        return None

    def _call(self, *words: str) -> None:
        finished = process.run(["systemctl", *self._options, *words])
        if finished.status != 0:
            raise EngineError(
                f"systemd refuses to {words[0]} the timers: {finished.last_lines}",
                hint=f"See what it says: {shlex.join(['journalctl', *self._options, '-n', '20'])}",
            )


def _content(path: Path) -> bytes | None:
    with suppress(OSError):
        return path.read_bytes()
    return None


def _when(schedule: Schedule, kind: str) -> str:
    hour, minute = schedule.time(kind)
    day = {WEEKLY: "Sun *-*-*", MONTHLY: "*-*-01"}.get(kind, "*-*-*")
    return f"{day} {hour:02}:{minute:02}:00"


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """Return a word as a unit file has it, in which a percent sign has a meaning of its own."""
    return '"' + _escaped(word).replace("\\", "\\\\").replace('"', '\\"') + '"'
