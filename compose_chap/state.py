"""What must survive a crash: atomic files and the journal of a run.

Everything lies in the folder `.docker-chap` beside the main Compose file:

    lock              held by the kernel while a run works; says who, and since when
    journal.json      the run that is open; written ahead of every step, gone when the run has ended
    runs/ID.json      the record of each run that ended
    runs/ID/          evidence that a failed run gathered

Files are 0600 in folders 0700. The folder ignores itself, so a source checkout stays clean.
"""

from __future__ import annotations

import base64
import getpass
import json
import os
import socket
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from compose_chap.errors import Interrupted, StateError
from compose_chap.stack import Origin
from compose_chap.units import moment

FOLDER = ".docker-chap"

# Enough for the journal, a record and some files, so that a disk that fills up does not stop the way back.
_ROOM = 512 * 1024


@dataclass(frozen=True)
class Edit:
    """A change of one file from exactly these bytes to those; None is no file."""

    path: Path
    before: bytes | None
    after: bytes | None


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes) -> None:
    """Replace a file at once and durably; an existing file keeps its mode and owner, and a symlink keeps pointing.

    A new file gets mode 0600. Raise StateError when it cannot be written; then the old content stands.
    """
    target, draft = Path(os.path.realpath(path)), _draft(path)

    try:
        try:
            draft.unlink(missing_ok=True)
            with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(content)
                with suppress(FileNotFoundError):
                    old = target.stat()
                    os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
                    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                        os.fchown(file.fileno(), old.st_uid, old.st_gid)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
    except OSError as error:
        raise StateError(f"Cannot write {path}: {error.strerror}.", hint="Check owner and free space.") from None


def _draft(path: Path) -> Path:
    # Always the same name, so that the draft of a killed run is found and removed. The lock keeps others away.
    target = Path(os.path.realpath(path))
    return target.with_name(f".{target.name}.docker-chap")


def check_readable(path: Path) -> None:
    """Raise StateError when this user may not look at a file, or into a folder. What is not there hides nothing."""
    try:
        os.scandir(path).close()
    except PermissionError:
        raise StateError(f"{path} cannot be read by this user.", hint="Run it as root, or with sudo.") from None
    except OSError:
        pass


def check_writable(path: Path) -> None:
    """Raise StateError when `write_file` could not replace this file and leave it to its owner."""
    target = Path(os.path.realpath(path))
    for place in (path, target.parent):
        if place.exists() and not os.access(place, os.W_OK):
            raise StateError(f"{place} cannot be written by this user.", hint=f"Check its owner: ls -ld {place}")
    if target.exists() and os.geteuid() != 0:
        old, groups = target.stat(), (os.getegid(), *os.getgroups())
        if old.st_uid != os.geteuid() or old.st_gid not in groups:
            raise StateError(
                f"{path} belongs to another user or group, and only they or root can change it and leave it so.",
                hint=f"Run this as its owner, or with sudo. Its owner: ls -l {path}",
            )


def private_folder(folder: Path) -> Path:
    """Make a folder 0700 that Git ignores, with what is missing above it, and return it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            write_file(ignore, b"*\n")
    except OSError as error:
        hint = "Run it as root, or with sudo." if isinstance(error, PermissionError) else ""
        raise StateError(f"Cannot make the folder {folder}: {error.strerror}.", hint=hint) from None
    return folder


def operator() -> str:
    """Return who runs this, `user@host`; under sudo the user who typed it."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


# The journal


class Journal:
    """The record of one run, on disk before each step begins.

    `facts` is what the way back needs: it holds only what JSON can, and bytes as base64 text.
    """

    def __init__(self, directory: Path, record: dict[str, Any], clock: Callable[[], datetime]) -> None:
        self._directory = directory
        self._clock = clock
        self.record = record

    @property
    def id(self) -> str:
        """The id of the run: its start in UTC."""
        return str(self.record["id"])

    @property
    def operation(self) -> str:
        """What the run does: upgrade, restore, rollback, pin."""
        return str(self.record["operation"])

    @property
    def facts(self) -> dict[str, Any]:
        """What was known when the run began and what it learned on its way."""
        return dict(self.record["facts"])

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that were begun, oldest first."""
        return tuple(event["step"] for event in self.record["steps"])

    def began(self, step: str) -> bool:
        """Whether a step was begun; it may have been cut off anywhere."""
        return step in self.steps

    def begin(self, step: str, **facts: Any) -> None:
        """Write down that a step begins, with the facts that undoing it needs, before it has any effect."""
        self.record["facts"].update(facts)
        self.record["steps"].append({"step": step, "at": self._clock().isoformat()})
        self._write()

    def learn(self, **facts: Any) -> None:
        """Add facts to the step that runs."""
        self.record["facts"].update(facts)
        self._write()

    def note(self, **facts: Any) -> None:
        """Add to the record of the run what a reader wants to know and the way back does not need."""
        self.record.update(facts)
        with suppress(StateError):
            self._write()

    def give_room(self) -> None:
        """Free the room on the disk that was set aside for the way back."""
        with suppress(OSError):  # a disk that became read-only
            (self._directory / FOLDER / "room").unlink(missing_ok=True)

    def end(self, result: str, **more: Any) -> None:
        """Close the run: keep its record under `runs/` and take the open journal away."""
        self.record.update(result=result, ended_at=self._clock().isoformat(), **more)
        report = {key: value for key, value in self.record.items() if key != "facts"}
        report["facts"] = {key: value for key, value in self.record["facts"].items() if key != "edits"}
        (self._runs() / self.id).mkdir(mode=0o700, exist_ok=True)
        write_file(undo_file(self._directory, self.id), _document(self.record))
        write_file(report_file(self._directory, self.id), _document(report))
        self.give_room()
        journal_file(self._directory).unlink(missing_ok=True)
        sync_folder(self._directory / FOLDER)

    def evidence(self, name: str, content: str | bytes) -> Path:
        """Keep something that explains a failure, and return where."""
        folder = self._runs() / self.id
        folder.mkdir(mode=0o700, exist_ok=True)
        write_file(folder / name, content if isinstance(content, bytes) else content.encode(errors="replace"))
        return folder / name

    def _runs(self) -> Path:
        folder = self._directory / FOLDER / "runs"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _write(self) -> None:
        write_file(journal_file(self._directory), json.dumps(self.record).encode())


def begin_run(
    directory: Path, operation: str, facts: dict[str, Any], clock: Callable[[], datetime], **more: Any
) -> Journal:
    """Open the journal of a new run. Raise Interrupted when one is open already."""
    refuse_open_run(directory)
    now = clock()
    while (directory / FOLDER / "runs" / f"{run_id(now)}.json").exists():
        now += timedelta(seconds=1)
    record = {
        "version": 1,
        "id": run_id(now),
        "operation": operation,
        "by": operator(),
        "started_at": now.isoformat(),
        **more,
        "facts": facts,
        "steps": [],
    }
    private_folder(directory / FOLDER)
    journal = Journal(directory, record, clock)
    try:
        write_file(directory / FOLDER / "room", os.urandom(_ROOM))
        journal._write()
    except BaseException:
        journal.give_room()
        journal_file(directory).unlink(missing_ok=True)
        raise
    return journal


def open_run(directory: Path, clock: Callable[[], datetime]) -> Journal | None:
    """Return the run that was not ended, None where there is none. Raise StateError when it cannot be read."""
    check_readable(directory / FOLDER)
    path = journal_file(directory)
    try:
        journal = Journal(directory, json.loads(path.read_bytes()), clock)
        if (directory / FOLDER / "runs" / f"{journal.id}.json").exists():
            # It had ended; only the last step, taking the journal away, was cut off.
            journal.give_room()
            path.unlink()
            return None
        return journal
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StateError(f"The journal {path} cannot be read: {error}.") from None


def open_origin(directory: Path) -> Origin | None:
    """Return which stack the open run of a folder is of, None where none is open. Raise StateError as `open_run`."""
    journal = open_run(directory, lambda: datetime.now(timezone.utc))
    return Origin.of(journal.record) if journal else None


def refuse_open_run(directory: Path) -> None:
    """Raise Interrupted when an earlier run was cut off."""
    journal = open_run(directory, lambda: datetime.now(timezone.utc))
    if journal:
        reached = journal.steps[-1] if journal.steps else "start"
        whose = Origin.of(journal.record)
        of = f" of {whose}" if whose.project else ""
        raise Interrupted(
            f"The {journal.operation}{of} that {journal.record['by']} began at {moment(journal.record['started_at'])}"
            f" was cut off at step '{reached}'.",
            state="The stack may be half changed. Nothing was changed by this command.",
            hint="Finish or undo it first: docker chap recover",
        )


def history(directory: Path, origin: Origin = Origin()) -> list[dict[str, Any]]:
    """Return the records of a stack's runs that ended, oldest first; a record that cannot be read is left out."""
    check_readable(directory / FOLDER)
    records = []
    for path in sorted((directory / FOLDER / "runs").glob("*.json")):
        with suppress(OSError, ValueError):
            records.append(json.loads(path.read_bytes()))
    return [record for record in records if origin.owns(Origin.of(record))]


def standing_runs(directory: Path, origin: Origin = Origin()) -> list[dict[str, Any]]:
    """Return the records of a stack's runs that succeeded and were not undone since, oldest first; none of `pin`."""
    standing: list[dict[str, Any]] = []
    for run in history(directory, origin):
        if run["result"] == "done" and run["operation"] == "rollback":
            standing = [one for one in standing if one["id"] != run.get("undoes")]
        elif run["result"] == "done" and run["operation"] != "pin":
            standing.append(run)
    return standing


def pack_edits(edits: Iterable[Edit]) -> list[dict[str, str | None]]:
    """Return edits as a journal can hold them."""
    return [{"path": str(edit.path), "before": _packed(edit.before), "after": _packed(edit.after)} for edit in edits]


def unpack_edits(packed: Iterable[dict[str, str]]) -> tuple[Edit, ...]:
    """Return the edits that `pack_edits` packed."""
    return tuple(Edit(Path(one["path"]), _unpacked(one["before"]), _unpacked(one["after"])) for one in packed)


def _packed(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _unpacked(content: str | None) -> bytes | None:
    return None if content is None else base64.b64decode(content)


def content_of(path: Path) -> bytes | None:
    """Return the bytes of a file, None where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _put(path: Path, content: bytes | None) -> None:
    """Give a file this content, or take it away. One that is new belongs to the owner of its folder."""
    new = not path.exists()
    if content is not None:
        write_file(path, content)
    try:
        if content is None:
            path.unlink(missing_ok=True)
            sync_folder(path.parent)
        elif new and os.geteuid() == 0:
            os.chown(path, path.parent.stat().st_uid, path.parent.stat().st_gid)
    except OSError as error:
        raise StateError(f"Cannot remove or give away {path}: {error.strerror}.") from None


def apply_edits(edits: Iterable[Edit]) -> None:
    """Write every edit, if every file still is what was read. Raise StateError, with nothing written, otherwise.

    The caller has the edits in an open journal, so a crash between two files is undone by `revert_edits`.
    """
    edits = tuple(edits)
    for edit in edits:
        check_writable(edit.path)
        if content_of(edit.path) != edit.before:
            raise StateError(f"{edit.path} was changed by someone else meanwhile.", hint="Run the command again.")
    for edit in edits:
        _put(edit.path, edit.after)


def revert_edits(edits: Iterable[Edit]) -> list[Path]:
    """Put the old bytes back wherever the new ones stand; return the files that hold neither, left as they are."""
    foreign = []
    for edit in edits:
        _draft(edit.path).unlink(missing_ok=True)
        content = content_of(edit.path)
        if content == edit.after:
            _put(edit.path, edit.before)
        elif content != edit.before:
            foreign.append(edit.path)
    return foreign


def run_id(now: datetime) -> str:
    """Return the id of a run or backup begun at `now`: UTC, sorts by time, fits a file name and an identifier."""
    return now.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def undo_file(directory: Path, run: str) -> Path:
    """Return where the full journal of an ended run lies: with the bytes of the files, which may hold secrets."""
    return directory / FOLDER / "runs" / run / "journal.json"


def report_file(directory: Path, run: str) -> Path:
    """Return where the report of an ended run lies, which an auditor can be given: it holds no secret."""
    return directory / FOLDER / "runs" / f"{run}.json"


def journal_file(directory: Path) -> Path:
    """Return where the journal of an open run lies."""
    return directory / FOLDER / "journal.json"


def _document(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()
