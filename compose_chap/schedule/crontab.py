"""Lines in the user's crontab, for a machine without systemd."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from datetime import datetime, timedelta

from compose_chap.errors import EngineError
from compose_chap.processes import process
from compose_chap.schedule.plan import KINDS, MONTHLY, WEEKLY, Schedule

# What cron of Debian, cronie, BusyBox and fcron say.
_NO_CRONTAB = re.compile(r"no f?crontab|no such file", re.IGNORECASE)

_FOLDER = re.compile(r"(?:\S+ ){5}cd (.+?) && env ")


def lines(schedule: Schedule, environment: Mapping[str, str]) -> list[str]:
    """Return the lines for a schedule. Cron mails what they write: nothing unless something goes wrong."""
    written = []
    for kind in KINDS:
        hour, minute = schedule.time(kind)
        days = {WEEKLY: "* * 0", MONTHLY: "1 * *"}.get(kind, "* * *")
        words = ["env", *(f"{name}={value}" for name, value in environment.items()), *schedule.command(kind, "quiet")]
        command = f"cd {shlex.quote(schedule.folder)} && {shlex.join(words)}"
        written.append(f"{minute} {hour} {days} {command} >/dev/null {_mark(schedule.project)}".replace("%", r"\%"))
    return written


def without(text: str, project: str) -> str:
    """Return a crontab without the lines of a project."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.rstrip("\n").endswith(_mark(project)))


class Crontab:
    """The crontab of this user."""

    name = "cron"

    def install(self, schedule: Schedule, environment: Mapping[str, str]) -> list[str]:
        """Add the lines, in the place of those of an earlier schedule, and return them. Raise EngineError."""
        added = lines(schedule, environment)
        rest = without(_read(), schedule.project)
        _write(rest + ("" if not rest or rest.endswith("\n") else "\n") + "".join(f"{line}\n" for line in added))
        return added

    def remove(self, project: str) -> None:
        """Remove the lines of a project. Raise EngineError."""
        text = _read()
        if (rest := without(text, project)) != text:
            _write(rest)

    def folder(self, project: str) -> str:
        """Return the folder in which the lines of a project begin the work, empty where there are none."""
        for line in _read().splitlines():
            if line.endswith(_mark(project)) and (match := _FOLDER.match(line)):
                return shlex.split(match[1].replace(r"\%", "%"))[0]
        return ""

    def next_run(self, schedule: Schedule, kind: str, now: datetime) -> datetime | None:
        """Return when the work of a kind begins next; None when its lines are gone."""
        text = _read()
        if without(text, schedule.project) == text:
            return None
        hour, minute = schedule.time(kind)
        # By the clock on the wall, of which a day in spring has 23 hours.
        when = now.astimezone().replace(hour=hour, minute=minute, second=0, microsecond=0, tzinfo=None)
        days = ((when + timedelta(days=day)).astimezone() for day in range(63))
        return next(day for day in days if day > now and _is_day_of(kind, day))


def _is_day_of(kind: str, day: datetime) -> bool:
    return day.isoweekday() == 7 if kind == WEEKLY else day.day == 1 if kind == MONTHLY else True


def _mark(project: str) -> str:
    return f"# docker-chap schedule {project}"


def _read() -> str:
    finished = process.run(["crontab", "-l"], environment={"LC_ALL": "C"})
    if finished.status == 0:
        return finished.stdout
    # Without a crontab it fails, too. But to write over what could not be read would remove the lines of others.
    if finished.last_lines and not _NO_CRONTAB.search(finished.last_lines):
        raise EngineError(
            f"cron does not show what it has for this user: {finished.last_lines}", state="It was not changed."
        )
    return ""


def _write(text: str) -> None:
    finished = process.run(["crontab", "-"], stdin=text)
    if finished.status != 0:
        raise EngineError(
            f"cron does not take the schedule: {finished.last_lines}",
            hint="Is this user allowed to use cron? See /etc/cron.allow and /etc/cron.deny.",
        )
