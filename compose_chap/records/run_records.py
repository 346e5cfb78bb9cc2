"""What must survive a crash: the journal of a run, and the records of those that ended.

Everything lies in the folder `.docker-chap` beside the main Compose file:

    lock              held by the kernel while a run works; says who, and since when
    journal.json      the run that is open; written ahead of every step, gone when the run has ended
    runs/ID.json      the record of each run that ended
    runs/ID/          evidence that a failed run gathered

Files are 0600 in folders 0700. The folder ignores itself, so a source checkout stays clean.
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
from compose_chap.records import own_folder
from compose_chap.records.steps import Step
from compose_chap.units import moment

FOLDER = ".docker-chap"
LARGEST_JOURNAL = 64 << 20  # bytes: it holds the files that a run changes

_RUN = re.compile(r"\w[\w.-]{0,63}", re.ASCII)

# Enough for the journal, a record and some files, so that a disk that fills up does not stop the way back.
_ROOM = 512 * 1024


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
    def known(self) -> Value:
        """The facts, to be read strictly."""
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
        """Whether a step was begun; it may have been cut off anywhere."""
        return step in self.steps

    def begin(self, step: Step, **facts: Any) -> None:
        """Write down that a step begins, with the facts that undoing it needs, before it has any effect."""
        self.record["facts"].update(facts)
        self.record["steps"].append({"step": step.value, "at": self._clock().isoformat()})
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

    def release_reserve(self) -> None:
        """Free the room on the disk that was set aside for the way back."""
        with suppress(StateError):  # a disk that became read-only
            own_folder.remove(self._directory / FOLDER / "room")

    def end(self, result: str, **more: Any) -> None:
        """Close the run: keep its record under `runs/` and take the open journal away."""
        self.record.update(result=result, ended_at=self._clock().isoformat(), **more)
        self._evidence_folder()
        own_folder.write(undo_file(self._directory, self.id), _document(self.record))
        own_folder.write(report_file(self._directory, self.id), _document(self.report))
        self.release_reserve()
        own_folder.remove(journal_file(self._directory))

    def evidence(self, name: str, content: str | bytes) -> Path:
        """Keep something that explains a failure, and return where."""
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
    """Return the run that was not ended, None where there is none.

    Raise StateError when it cannot be read, or when its journal is another user's: what it says would be done.
    """
    path = journal_file(directory)
    try:
        journal = Journal(directory, _read(path), clock)
        if (directory / FOLDER / "runs" / f"{journal.id}.json").exists():
            # It had ended; only the last step, taking the journal away, was cut off.
            journal.release_reserve()
            own_folder.remove(path)
            return None
        return journal
    except FileNotFoundError:
        return None
    except StateError as error:
        raise error if _own(path.parent) and _own(path) else own_folder.not_obeyed(path.parent, error) from None


def _read(path: Path) -> dict[str, Any]:
    """Return the record of a run as a file of one's own has it. Raise FileNotFoundError, StateError."""
    value = parse(own_folder.read(path, LARGEST_JOURNAL), str(path), StateError, LARGEST_JOURNAL)
    if not _RUN.fullmatch(value.at("id").text(64)):
        raise value.at("id").wrong("is no id of a run")
    _ = value.at("operation").filled(), value.at("facts").members(), value.at("by").text()
    _ = value.at("started_at").moment()
    _ = [(step.at("step").filled(), step.at("at").moment()) for step in value.at("steps").items()]
    for name in ("result", "undoes", "from", "to"):
        _ = text.text() if (text := value.get(name)) else ""
    if stack := value.get("stack"):
        _ = [stack.at(name).text() for name in ("project", "engine", "server")]
    return dict(value.data)


def count(directory: Path) -> bool:
    """Whether the records in a folder, if there are any, are one's own, as far as this user may see."""
    return _own(directory / FOLDER)


def _own(path: Path) -> bool:
    try:
        return not not_own(os.lstat(path))
    except OSError:
        return True


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
    runs, records = directory / FOLDER / "runs", []
    with suppress(FileNotFoundError), own_folder.opened(runs.parent):
        for name in own_folder.names(runs):
            if name.endswith(".json"):
                with suppress(OSError, StateError):
                    records.append(_read(runs / name))
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


def run_id(now: datetime) -> str:
    """Return the id of a run or backup begun at `now`: UTC, sorts by time, fits a file name and an identifier."""
    return now.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def run_began(run: str) -> datetime:
    """Return when a run or backup with such an id began."""
    return datetime.strptime(f"{run}+0000", "%Y%m%dT%H%M%SZ%z")


def undo_record(directory: Path, run: str) -> dict[str, Any]:
    """Return the full journal of an ended run. Raise StateError when it is gone, or cannot be read."""
    try:
        return _read(undo_file(directory, run))
    except FileNotFoundError:
        raise StateError(f"The journal of {run} is gone: {undo_file(directory, run)}.") from None


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
