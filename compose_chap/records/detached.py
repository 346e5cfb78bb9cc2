"""Runs that go on without the terminal that began them: the order of each, its output, and how it ended.

Everything of a run lies in `.docker-chap/detached/ID`:

    order.json    what to run, with the environment, which may hold passwords: taken away as soon as it was read
    about.json    the same for readers, without the environment; locked by the kernel while the run goes on
    taken.json    which process, and which unit of systemd, took the order
    out, err      what the run writes
    ended.json    its exit status, once it has ended
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from compose_chap.errors import StateError
from compose_chap.reading import parse
from compose_chap.records import lock
from compose_chap.records.files import own_folder
from compose_chap.records.run_records import FOLDER, operator, run_id

OUT, ERR = "out", "err"

_ORDER, _ABOUT, _TAKEN, _ENDED = "order.json", "about.json", "taken.json", "ended.json"
_LARGEST = 4 << 20  # bytes
_KEPT = 10
_ORDER_AGE = 60.0  # seconds


@dataclass(frozen=True)
class Invocation:
    """What to run: the command in full, in which folder, with which environment and umask."""

    command: tuple[str, ...]
    folder: str
    umask: int
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Detached:
    """A detached run. `unit` is systemd's name for it, empty where it has none; `process` watches over it.

    `exit_status` is None while it goes on, and for one that was killed before it could leave a status.
    """

    folder: Path
    id: str
    words: tuple[str, ...]
    by: str
    began_at: datetime
    unit: str
    process: int
    running: bool
    exit_status: int | None = None
    ended_at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {
            **asdict(self),
            "folder": str(self.folder),
            "words": list(self.words),
            "began_at": self.began_at.isoformat(),
            "ended_at": self.ended_at.isoformat() if self.ended_at else None,
        }


def prepare(directory: Path, order: Invocation, words: tuple[str, ...], now: datetime) -> Path:
    """Write an order down and return the folder of the run that will be. Raise StateError."""
    above = own_folder.make(own_folder.make(directory / FOLDER) / "detached")
    _remove_old(above, now)
    folder = _new_folder(above, run_id(now))
    try:
        about = {"version": 1, "id": folder.name, "words": words, "by": operator(), "began_at": now.isoformat()}
        own_folder.write(folder / _ABOUT, json.dumps(about).encode())
        own_folder.write(folder / _ORDER, json.dumps({"version": 1, **asdict(order)}).encode())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def unit_of(folder: Path) -> str:
    """Return how systemd is to call a run."""
    return f"docker-chap-{folder.name}"


def taken(folder: Path) -> bool:
    """Whether somebody has taken the order of a run."""
    return (folder / _TAKEN).exists()


def forget(folder: Path) -> None:
    """Remove a run that never began."""
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def claimed(folder: Path) -> Iterator[int]:
    """Hold a run for this process and for its children that inherit the descriptor which is handed out."""
    with own_folder.opened(folder) as handle:
        descriptor = os.open(_ABOUT, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def take(folder: Path) -> Invocation:
    """Return the order of a run, and take it away with its passwords. Raise StateError, also when it was taken.

    It is written down who took it: this process, and the unit of systemd that it is in.
    """
    try:
        value = parse(own_folder.read(folder / _ORDER, _LARGEST), str(folder / _ORDER), StateError, _LARGEST)
    except FileNotFoundError:
        raise StateError(f"{folder} has no order: it was taken already.") from None
    own_folder.remove(folder / _ORDER)
    unit = unit_of(folder)
    inside = (
        f"{unit}.service" in Path("/proc/self/cgroup").read_text() if os.path.exists("/proc/self/cgroup") else False
    )
    taken_by = {"process": os.getpid(), "unit": unit if inside else ""}
    own_folder.write(folder / _TAKEN, json.dumps(taken_by).encode())
    environment = {name: member.text() for name, member in value.at("environment").members().items()}
    return Invocation(
        value.at("command").texts(), value.at("folder").filled(), value.at("umask").integer(), environment
    )


def end(folder: Path, status: int, now: datetime) -> None:
    """Write down how a run ended. Raise StateError."""
    own_folder.write(folder / _ENDED, json.dumps({"exit_status": status, "ended_at": now.isoformat()}).encode())


def runs(directory: Path) -> list[Detached]:
    """Return the detached runs of a stack, oldest first; one that cannot be read is left out.

    Raise StateError when this user may not look.
    """
    parent, records = directory / FOLDER / "detached", []
    for name in own_folder.names(parent):
        with suppress(OSError, StateError):
            records.append(look(parent / name))
    return records


def look(folder: Path) -> Detached:
    """Return the run in a folder as it stands. Raise FileNotFoundError, StateError."""
    # In this order: one that ends in between has left its status.
    running = not lock.abandoned(folder / _ABOUT)
    about = parse(own_folder.read(folder / _ABOUT, _LARGEST), str(folder / _ABOUT), StateError)
    status, ended_at, unit, process = None, None, "", 0
    with suppress(FileNotFoundError):
        by = parse(own_folder.read(folder / _TAKEN, _LARGEST), str(folder / _TAKEN), StateError)
        unit, process = by.at("unit").text(), by.at("process").integer()
    with suppress(FileNotFoundError):
        ended = parse(own_folder.read(folder / _ENDED, _LARGEST), str(folder / _ENDED), StateError)
        status, ended_at = ended.at("exit_status").integer(), ended.at("ended_at").moment()
    return Detached(
        folder,
        about.at("id").filled(),
        about.at("words").texts(),
        about.at("by").text(),
        about.at("began_at").moment(),
        unit,
        process,
        running and status is None,
        status,
        ended_at,
    )


def _new_folder(above: Path, name: str) -> Path:
    with own_folder.opened(above) as handle:
        for number in range(1, 100):
            folder = above / (name if number == 1 else f"{name}-{number:02}")
            with suppress(FileExistsError):
                os.mkdir(folder.name, 0o700, dir_fd=handle)
                return folder
    raise StateError(f"Cannot make a folder for the run in {above}.")


def _remove_old(above: Path, now: datetime) -> None:
    names = own_folder.names(above)
    ended = [name for name in names if (above / name / _ENDED).exists()]
    # An order holds the whole environment. Nobody takes it later.
    left = [name for name in names if _age(above / name / _ORDER, now) > _ORDER_AGE and not taken(above / name)]
    for name in (*ended[: -_KEPT + 1], *left):
        forget(above / name)


def _age(file: Path, now: datetime) -> float:
    """Return how many seconds ago a file was written, 0 where it is not there."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return now.timestamp() - file.lstat().st_mtime
    return 0.0
