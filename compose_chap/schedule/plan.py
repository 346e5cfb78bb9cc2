"""The schedule of a stack: when, where copies go, and how docker is called. It is kept beside the stack's records."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compose_chap import reading
from compose_chap.errors import StateError, UsageError
from compose_chap.reading import Value
from compose_chap.records.files import own_folder
from compose_chap.records.run_records import FOLDER

KINDS = NIGHTLY, WEEKLY, MONTHLY = ("nightly", "weekly", "monthly")
# Hours after the nightly work, so that they do not wait for each other.
_LATER = {NIGHTLY: 0, WEEKLY: 3, MONTHLY: 5}

_FILE = "schedule.json"
PASSWORD_FILE = "copies.password"
_LONGEST = 1 << 16  # bytes
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)


@dataclass(frozen=True)
class CopyStore:
    """Where copies go: a repository, the files with its password and keys, and KiB a second, 0 for no limit."""

    repository: str
    password_file: str
    keys_file: str = ""
    limit_upload: int = 0

    @property
    def location(self) -> str:
        """Where copies go, for people."""
        return self.repository or f"the repository that {self.keys_file} names"

    def words(self, option: str) -> list[str]:
        """Return the words that name it to a command, behind `--to` or `--from`."""
        keys = ["--keys", self.keys_file] if self.keys_file else []
        named = [option, self.repository] if self.repository else []
        return [*named, "--password-file", self.password_file, *keys]


@dataclass(frozen=True)
class Schedule:
    """What is done regularly for a stack.

    `hour` and `minute` are those of the nightly work, by this machine's clock. `docker` is the command with its
    own flags, `options` select the stack, and `folder` is where it is called. `user` is who it runs as, and `by` what
    starts it. `output` is the folder of the backups and `metrics_file` what Prometheus reads, empty for the usual one
    and for none. `ping` is the address of a monitor, which only the monitor and we should know. `alarm_file` is the
    file with the addresses of alarms, and `digest` whether they get a summary: `weekly`, or empty for none.
    `with_dhis2` and `with_volumes` say what the backups hold besides. `environment` is what the work is given.
    """

    project: str
    user: str
    by: str
    hour: int
    minute: int
    docker: tuple[str, ...]
    options: tuple[str, ...]
    folder: str
    store: CopyStore | None = None
    output: str = ""
    metrics_file: str = ""
    ping: str = ""
    alarm_file: str = ""
    digest: str = ""
    with_dhis2: bool = False
    with_volumes: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    def time(self, kind: str) -> tuple[int, int]:
        """Return hour and minute at which the work of a kind begins."""
        return (self.hour + _LATER[kind]) % 24, self.minute

    def command(self, kind: str, progress: str = "plain") -> list[str]:
        """Return the command that does the work of a kind, and shows its progress in this way."""
        return [*self.docker, "chap", *self.options, "--progress", progress, "schedule", "run", kind]


def time_of_day(text: str) -> tuple[int, int]:
    """Return hour and minute. Raise UsageError for what is no time of day."""
    match = _TIME.fullmatch(text)
    if not match:
        raise UsageError(f"'{text}' is not a time of day.", hint="Write it like this: --at 01:30")
    return int(match[1]), int(match[2])


def write(directory: Path, schedule: Schedule) -> None:
    """Write down the schedule of the stack whose main folder is `directory`. Raise StateError."""
    own_folder.make(directory / FOLDER)
    own_folder.write(
        directory / FOLDER / _FILE, (json.dumps({"version": 1, **asdict(schedule)}, indent=1) + "\n").encode()
    )


def read(directory: Path) -> Schedule | None:
    """Return the schedule of a stack, None where there is none. Raise StateError when it cannot be read."""
    path = directory / FOLDER / _FILE
    try:
        return _read(reading.parse(own_folder.read(path, _LONGEST), str(path), StateError))
    except FileNotFoundError:
        return None


def remove(directory: Path) -> None:
    """Forget the schedule of a stack."""
    own_folder.remove(directory / FOLDER / _FILE)


def mark(directory: Path, kind: str) -> Path:
    """Return the file that the work of a kind claims while it is under way, made where it is missing."""
    path = own_folder.make(directory / FOLDER) / f"schedule-{kind}.running"
    if not path.exists():
        own_folder.write(path, b"")
    return path


def _read(value: Value) -> Schedule:
    store = value.get("store")
    names = ("output", "metrics_file", "ping", "alarm_file", "digest")
    others: dict[str, Any] = {name: member.text() for name in names if (member := value.get(name))}
    # Schedules of earlier versions lack some.
    others |= {name: member.flag() for name in ("with_dhis2", "with_volumes") if (member := value.get(name))}
    if environment := value.get("environment"):
        others["environment"] = {name: member.text() for name, member in environment.members().items()}
    return Schedule(
        value.at("project").filled(),
        value.at("user").filled(),
        value.at("by").filled(),
        value.at("hour").integer(most=23),
        value.at("minute").integer(most=59),
        value.at("docker").texts(),
        value.at("options").texts(),
        value.at("folder").filled(),
        _store(store) if store else None,
        **others,
    )


def _store(value: Value) -> CopyStore:
    repository, password, keys = (value.at(name).text() for name in ("repository", "password_file", "keys_file"))
    return CopyStore(repository, password, keys, value.at("limit_upload").integer())
