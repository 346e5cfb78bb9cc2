"""The audit trail of a stack: who did what, when, with which options, and how that ended.

`.docker-chap/audit.jsonl` has a line for each beginning and a line for each end, of whatever works on the stack or on
its backups, also when it is refused. Lines are only added. A file that has grown large becomes `audit.1.jsonl`, the one
before it `audit.2.jsonl`, and so on: ten years of nights. The trail never takes more than `_MOST` times `_LARGEST`.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from compose_chap import reading
from compose_chap.errors import StateError
from compose_chap.model import Origin
from compose_chap.ownership import not_own, user_name
from compose_chap.reading import Value
from compose_chap.records.files import own_folder
from compose_chap.records.run_records import FOLDER, operator, run_id

FILE, OLDER = "audit.jsonl", "audit.{}.jsonl"

# How an attempt ended; one whose process is gone without a word was cut off.
DONE, REFUSED, FAILED, ROLLED_BACK = "done", "refused", "failed", "rolled back"
CANCELLED, NEEDS_PERSON, CUT_OFF, RUNNING = "cancelled", "needs a person", "cut off", "running"
# A foreground command that handed its work on: what goes on writes an entry of its own.
DETACHED = "detached"

_LARGEST = 2 << 20  # bytes, two or three thousand entries
_MOST = 40  # files
_LONGEST = 32 << 10  # bytes of a line
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True)
class AuditEntry:
    """An attempt to do something.

    `by` is who typed it, as `user@host`, and `user` as whom it ran: they differ under sudo. `words` are the command and
    its options as they were typed. `run` is the id of the run that it began, empty for none. `facts` are what else is
    worth knowing: which backup was made, what was removed. `summary` is that in a few words.
    """

    id: str
    operation: str
    words: tuple[str, ...]
    by: str
    user: str
    began_at: datetime
    origin: Origin = Origin()
    process: str = ""
    ended_at: datetime | None = None
    result: str = RUNNING
    exit_status: int | None = None
    message: str = ""
    summary: str = ""
    run: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as scripts and the file have it."""
        return {
            "id": self.id,
            "operation": self.operation,
            "words": list(self.words),
            "by": self.by,
            "user": self.user,
            "stack": self.origin.to_json(),
            "process": self.process,
            "began_at": self.began_at.isoformat(),
            "ended_at": self.ended_at.isoformat() if self.ended_at else None,
            "result": self.result,
            "exit_status": self.exit_status,
            "message": self.message,
            "summary": self.summary,
            "run": self.run,
            "facts": dict(self.facts),
        }


def begin(directory: Path, operation: str, words: Sequence[str], origin: Origin, now: datetime) -> AuditEntry:
    """Write down that an attempt begins on the stack whose main folder is `directory`. Raise StateError."""
    entry = AuditEntry(
        id=f"{run_id(now)}-{secrets.token_hex(3)}",
        operation=operation,
        # A word may be the name of a file in another encoding, and that is no text.
        words=tuple(word.encode(errors="replace").decode() for word in words),
        by=operator(),
        user=user_name(os.geteuid()),
        began_at=now,
        origin=origin,
        process=_process(os.getpid()),
    )
    own_folder.make(directory / FOLDER)
    _append(directory / FOLDER, entry)
    return entry


def end(directory: Path, entry: AuditEntry) -> None:
    """Write down how an attempt ended. Raise StateError."""
    _append(directory / FOLDER, entry)


def entries(directory: Path, origin: Origin = Origin(), *, complete: bool = False) -> list[AuditEntry]:
    """Return the trail of a stack in the order of its lines; one that cannot be read is left out. Raise StateError.

    Without `complete` it is that of the last months: what two files hold. A clock that was set back does not change the
    order.
    """
    folder, contents = directory / FOLDER, []
    # The newest first: a file that is put aside meanwhile is then read twice, and none is missed.
    for name in (FILE, *(OLDER.format(number) for number in range(1, _MOST if complete else 2))):
        with suppress(FileNotFoundError):
            contents.append((name, own_folder.read(folder / name, 2 * _LARGEST)))
    known: dict[str, AuditEntry] = {}
    for name, content in reversed(contents):
        for line in content.splitlines():
            with suppress(StateError):
                entry = _read(reading.parse(line, f"{folder / name}", StateError, _LONGEST))
                known[entry.id] = entry
    own = (entry for entry in known.values() if origin.owns(entry.origin) and entry.result != DETACHED)
    return [_as_it_is(entry) for entry in own]


def exists(directory: Path) -> bool:
    """Whether a folder has records of ours, whatever they say; not where this user may not look."""
    return os.path.isdir(directory / FOLDER)  # a Path would raise where it may not look


def _as_it_is(entry: AuditEntry) -> AuditEntry:
    """Return an entry that has not ended as one that was cut off, when its process is gone."""
    if entry.result != RUNNING or _process(_number(entry.process)) == entry.process:
        return entry
    return replace(entry, result=CUT_OFF)


def _process(number: int) -> str:
    """Return a process so that no other is taken for it: its number, when it began, and this machine's start."""
    with suppress(OSError, IndexError):
        began = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{number} {began} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    return ""


def _number(process: str) -> int:
    first = process.partition(" ")[0]
    return int(first) if first.isdecimal() else 0


def _append(folder: Path, entry: AuditEntry) -> None:
    try:
        line = _line(entry)
        with own_folder.opened(folder) as handle, _newest(handle, folder) as descriptor:
            size = os.fstat(descriptor).st_size
            # A power cut may have left half a line.
            torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, b"\n" * bool(torn) + line)
            os.fsync(descriptor)
    except OSError as error:
        raise own_folder.cannot("write", folder / FILE, error) from None


def _line(entry: AuditEntry) -> bytes:
    """Return the line of an entry; without its facts, which say most, when they are too many."""
    for facts in (entry.facts, {}):
        line = json.dumps({"version": 1, **replace(entry, facts=facts).to_json()}).encode() + b"\n"
        if len(line) <= _LONGEST:
            break
    return line


@contextmanager
def _newest(handle: int, folder: Path) -> Iterator[int]:
    """Hand out the file that lines are added to, for this process alone; one that is full is put aside first."""
    while True:
        descriptor = os.open(FILE, _FLAGS, 0o600, dir_fd=handle)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            status = os.fstat(descriptor)
            if fault := not_own(status):
                raise StateError(f"{folder / FILE} {fault}.")
            if not _is_newest(handle, status):
                continue  # somebody else put it aside while we waited
            if status.st_size < _LARGEST:
                yield descriptor
                return
            _put_aside(handle)
        finally:
            os.close(descriptor)


def _put_aside(handle: int) -> None:
    """Let the file that lines are added to become the first of the older ones; the last of too many goes."""
    names = set(os.listdir(handle))
    free = next((number for number in range(1, _MOST) if OLDER.format(number) not in names), _MOST - 1)
    # From the last to the first, so that a power cut between two of them loses none.
    for number in range(free, 0, -1):
        before = OLDER.format(number - 1) if number > 1 else FILE
        os.replace(before, OLDER.format(number), src_dir_fd=handle, dst_dir_fd=handle)


def _is_newest(handle: int, status: os.stat_result) -> bool:
    with suppress(FileNotFoundError):
        return os.stat(FILE, dir_fd=handle).st_ino == status.st_ino
    return False


def _read(value: Value) -> AuditEntry:
    stack, ended = value.at("stack"), value.get("ended_at")
    status = value.get("exit_status")
    return AuditEntry(
        id=value.at("id").filled(64),
        operation=value.at("operation").filled(64),
        words=value.at("words").texts(),
        by=value.at("by").text(),
        user=value.at("user").text(),
        began_at=value.at("began_at").moment(),
        origin=Origin(*(stack.at(name).text() for name in ("project", "engine", "server"))),
        process=value.at("process").text(),
        ended_at=ended.moment() if ended else None,
        result=value.at("result").filled(64),
        exit_status=status.integer() if status else None,
        message=value.at("message").text(),
        summary=value.at("summary").text(),
        run=value.at("run").text(),
        facts={name: member.data for name, member in value.at("facts").members().items()},
    )
