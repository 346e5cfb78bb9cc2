"""What must survive a crash: the journal of the open run, and the records of ended runs.

Everything is in the folder `.docker-chap` beside the main Compose file:

    lock              locked while a run works; says who runs it, and since when
    journal.json      the open run; written ahead of every step, removed when the run ends
    runs/ID.json      the record of each ended run
    runs/ID/          evidence gathered by a failed run

Files are 0600 in folders 0700. Git ignores the folder, so a source checkout stays clean.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from compose_chap.errors import Interrupted, StateError
from compose_chap.model import Origin
from compose_chap.ownership import not_own
from compose_chap.reading import Value, parse
from compose_chap.records import order
from compose_chap.records.files import own_folder
from compose_chap.records.steps import Step, reached
from compose_chap.units import moment

FOLDER = ".docker-chap"
LARGEST_JOURNAL = 64 << 20  # bytes: it holds the files that a run changes

_RUN = re.compile(r"\w[\w.-]{0,63}", re.ASCII)

# Reserved space for the journal, a record and some files, so that a full disk does not stop the way back.
_ROOM = 512 * 1024


def operator() -> str:
    """Return the user of this process as `user@host`; under sudo the user who called it."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


# The journal


class Journal:
    """The record of one run, on disk before each step begins.

    The record's `facts` are what the way back needs: plain JSON, with bytes as base64 text.
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
    def known(self) -> Value:
        """The facts, for the strict reader."""
        return Value(self.record["facts"], str(journal_file(self._directory)), StateError, "facts")

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that were begun, oldest first."""
        return tuple(event["step"] for event in self.record["steps"])

    @property
    def report(self) -> dict[str, Any]:
        """The record without the bytes of the files, which may hold secrets."""
        return {**self.record, "facts": {key: value for key, value in self.record["facts"].items() if key != "edits"}}

    def began(self, step: Step) -> bool:
        """Whether a step has begun; it may have been interrupted anywhere."""
        return step in self.steps

    def begin(self, step: Step, **facts: Any) -> None:
        """Record that a step begins, with the facts to undo it, before it has any effect."""
        self.record["facts"].update(facts)
        self.record["steps"].append({"step": step.value, "at": self._clock().isoformat()})
        self._write()

    def learn(self, **facts: Any) -> None:
        """Add facts during a step."""
        self.record["facts"].update(facts)
        self._write()

    def note(self, **facts: Any) -> None:
        """Add information for readers of the record, which the way back does not need."""
        self.record.update(facts)
        with suppress(StateError):
            self._write()

    def release_reserve(self) -> None:
        """Free the disk space that was reserved for the way back."""
        with suppress(StateError):  # the disk may have become read-only
            own_folder.remove(self._directory / FOLDER / "room")

    def end(self, result: str, **more: Any) -> None:
        """Close the run: write its record under `runs/` and remove the open journal."""
        self.record.update(result=result, ended_at=self._clock().isoformat(), **more)
        self._evidence_folder()
        own_folder.write(undo_file(self._directory, self.id), _document(self.record))
        own_folder.write(report_file(self._directory, self.id), _document(self.report))
        self.release_reserve()
        own_folder.remove(journal_file(self._directory))

    def evidence(self, name: str, content: str | bytes) -> Path:
        """Save something that explains a failure, and return its path."""
        path = self._evidence_folder() / name
        own_folder.write(path, content if isinstance(content, bytes) else content.encode(errors="replace"))
        return path

    def _evidence_folder(self) -> Path:
        folder = self._directory / FOLDER / "runs" / self.id
        for path in (folder.parent, folder):
            with own_folder.opened(path.parent) as handle, suppress(FileExistsError):
                os.mkdir(path.name, 0o700, dir_fd=handle)
        return folder

    def _write(self) -> None:
        own_folder.write(journal_file(self._directory), json.dumps(self.record).encode())


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
        "order": order.following(now, map(order.of_run, history(directory))).isoformat(),
        **more,
        "facts": facts,
        "steps": [],
    }
    own_folder.make(directory / FOLDER)
    journal = Journal(directory, record, clock)
    try:
        own_folder.write(directory / FOLDER / "room", os.urandom(_ROOM))
        journal._write()
    except BaseException:
        journal.release_reserve()
        own_folder.remove(journal_file(directory))
        raise
    return journal


def open_run(directory: Path, clock: Callable[[], datetime]) -> Journal | None:
    """Return the run that has not ended, None where there is none.

    Raise StateError when its journal cannot be read, or belongs to another user: we would act on what it says.
    """
    path = journal_file(directory)
    try:
        journal = Journal(directory, _read(path), clock)
        if (directory / FOLDER / "runs" / f"{journal.id}.json").exists():
            # It had ended; only the last step, removing the journal, was interrupted.
            journal.release_reserve()
            own_folder.remove(path)
            return None
        return journal
    except FileNotFoundError:
        return None
    except StateError as error:
        raise error if _own(path.parent) and _own(path) else own_folder.untrusted(path.parent, error) from None


def _read(path: Path) -> dict[str, Any]:
    """Return the record of a run from a file of our own. Raise FileNotFoundError, StateError."""
    value = parse(own_folder.read(path, LARGEST_JOURNAL), str(path), StateError, LARGEST_JOURNAL)
    if not _RUN.fullmatch(value.at("id").text(64)):
        raise value.at("id").wrong("is not the id of a run")
    _ = value.at("operation").filled(), value.at("facts").members(), value.at("by").text()
    _ = value.at("started_at").moment()
    _ = [(step.at("step").filled(), step.at("at").moment()) for step in value.at("steps").items()]
    for name in ("result", "undoes", "from", "to"):
        _ = text.text() if (text := value.get(name)) else ""
    for name in ("order", "ended_at"):
        _ = when.moment() if (when := value.get(name)) else None
    if stack := value.get("stack"):
        _ = [stack.at(name).text() for name in ("project", "engine", "server")]
    return dict(value.data)


def records_are_own(directory: Path) -> bool:
    """Whether the records in a folder are our own; also true when there are none, or this user cannot see them."""
    return _own(directory / FOLDER)


def _own(path: Path) -> bool:
    try:
        return not not_own(os.lstat(path))
    except OSError:
        return True


def open_origin(directory: Path) -> Origin | None:
    """Return the origin of the open run in a folder, None where none is open. Raise StateError as `open_run` does."""
    journal = open_run(directory, lambda: datetime.now(timezone.utc))
    return Origin.of(journal.record) if journal else None


def refuse_open_run(directory: Path) -> None:
    """Raise Interrupted when an earlier run was interrupted."""
    journal = open_run(directory, lambda: datetime.now(timezone.utc))
    if journal:
        whose = Origin.of(journal.record)
        of = f" of {whose}" if whose.project else ""
        raise Interrupted(
            f"The {journal.operation}{of} that {journal.record['by']} began at {moment(journal.record['started_at'])}"
            f" was cut off {reached(journal.steps)}.",
            state="The stack may be partly changed. This command changed nothing.",
            hint="Finish or undo it first: docker chap recover",
        )


def history(directory: Path, origin: Origin = Origin()) -> list[dict[str, Any]]:
    """Return the records of a stack's ended runs, oldest first; unreadable records are left out."""
    runs, records = directory / FOLDER / "runs", []
    with suppress(FileNotFoundError), own_folder.opened(runs.parent):
        for name in own_folder.names(runs):
            if name.endswith(".json"):
                with suppress(OSError, StateError):
                    records.append(_read(runs / name))
    own = [record for record in records if origin.owns(Origin.of(record)) and "result" in record]
    return sorted(own, key=lambda record: (order.of_run(record), record["id"]))


def effective_runs(directory: Path, origin: Origin = Origin()) -> list[dict[str, Any]]:
    """Return the records of a stack's runs that succeeded and were not undone since, oldest first, without `pin`."""
    return order.effective(history(directory, origin))


def run_id(now: datetime) -> str:
    """Return the id of a run or backup begun at `now`: UTC, sorts by time, fits a file name and an identifier."""
    return now.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def run_began(run: str) -> datetime:
    """Return when the run or backup of an id began."""
    return datetime.strptime(f"{run}+0000", "%Y%m%dT%H%M%SZ%z")


def undo_record(directory: Path, run: str) -> dict[str, Any]:
    """Return the full journal of an ended run. Raise StateError when it is gone, or cannot be read."""
    try:
        return _read(undo_file(directory, run))
    except FileNotFoundError:
        gone = f"The journal of {run} is gone, so it cannot be undone: {undo_file(directory, run)}."
        hint = "Restore a backup instead. To list them: docker chap backups"
        raise StateError(gone, state="Nothing was changed.", hint=hint) from None


def undo_file(directory: Path, run: str) -> Path:
    """Return the path of an ended run's full journal, which has the edited files and so may hold secrets."""
    return directory / FOLDER / "runs" / run / "journal.json"


def report_file(directory: Path, run: str) -> Path:
    """Return the path of an ended run's report; it holds no secrets, so an auditor may have it."""
    return directory / FOLDER / "runs" / f"{run}.json"


def journal_file(directory: Path) -> Path:
    """Return the path of an open run's journal."""
    return directory / FOLDER / "journal.json"


def _document(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()
