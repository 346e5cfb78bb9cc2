"""restic, as a program of this machine: its version, its snapshots, and what its failures mean. The door of restic."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from compose_chap import reading
from compose_chap.copies.repository import Repository
from compose_chap.engine import process
from compose_chap.errors import CopyError, EngineError
from compose_chap.redact import redact

# The first version that compresses, which is what makes an uncompressed dump cheap to keep.
OLDEST = (0, 14, 0)
_VERSION = re.compile(r"restic (\d+)\.(\d+)\.(\d+)")
# What restic writes when a repository is not there, is locked, or has another password; exit statuses 10, 11 and 12
# say the same from 0.17 on, but Debian 12 has an older one.
_MEANINGS = (
    (re.compile(r"wrong password|no key found", re.I), "The password of the repository is wrong."),
    (re.compile(r"already locked|unable to create lock", re.I), "The repository is locked by another run of restic."),
    (
        re.compile(
            r"Is there a repository at the following location|repository does not exist|unable to open config file",
            re.I,
        ),
        "There is no repository at this location.",
    ),
    (re.compile(r"no space left on device|quota|insufficient storage|507", re.I), "The repository has no room left."),
    (
        re.compile(
            r"connection (refused|reset|timed out)|no such host|network is unreachable|broken pipe|i/o timeout"
            r"|unexpected EOF|no route to host|subprocess ssh exited|ssh: ",
            re.I,
        ),
        "The repository cannot be reached.",
    ),
)
_HINTS = {
    "The repository is locked by another run of restic.": "Wait until it has ended. Is no other run left? restic unlock",
    "There is no repository at this location.": "Check the location. To make a new repository there, add --init.",
    "The repository has no room left.": "Make room there, or remove old copies: docker chap copies --prune",
    "The repository cannot be reached.": "Run the command again when the link is back: what was sent already stays.",
}


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a repository: its id, and its tags as `name=value`."""

    id: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Sent:
    """What a backup of restic added: its snapshot, and the bytes that were new, packed and encrypted."""

    snapshot: str
    added: int


class Restic:
    """restic on one repository. Every failure is a CopyError that says what it means."""

    def __init__(self, repository: Repository, *, limit_upload: int = 0) -> None:
        self.location = redact(repository.location)
        self._environment = repository.variables()
        self._options = ["--limit-upload", str(limit_upload)] if limit_upload else []
        _check_version()

    def exists(self) -> bool:
        """Whether there is a repository that the password opens. Raise CopyError when it cannot be told."""
        try:
            self._run("cat", "config")
        except CopyError as error:
            if error.message.startswith("There is no repository"):
                return False
            raise
        return True

    def init(self) -> None:
        """Make a new repository."""
        self._run("init")

    def snapshots(self, tag: str) -> list[Snapshot]:
        """Return the snapshots with a tag."""
        answer = reading.parse(self._run("snapshots", "--json", "--tag", tag), "the list of snapshots", CopyError)
        snapshots = [
            Snapshot(
                item.at("id").filled(),
                dict(word.partition("=")[::2] for word in tags.texts()) if (tags := item.get("tags")) else {},
            )
            for item in answer.items()
        ]
        return snapshots

    def send_stream(
        self, pieces: Iterable[bytes], name: str, tags: Sequence[str], notify: Callable[[int], None]
    ) -> Sent:
        """Make a snapshot of one file, given piece by piece. What `pieces` raises ends it without a snapshot."""
        command = self._command("backup", "--json", "--stdin", "--stdin-filename", name, *_tagged(tags))
        finished = process.feed(command, _counted(pieces, notify), environment=self._environment)
        return self._sent(finished)

    def send_files(self, folder: Path, names: Sequence[str], tags: Sequence[str]) -> Sent:
        """Make a snapshot of files and folders below `folder`, under their names there."""
        command = self._command("backup", "--json", *_tagged(tags), "--", *names)
        return self._sent(process.run(command, folder=folder, environment=self._environment))

    def restore(self, snapshot: str, target: Path) -> None:
        """Write everything that a snapshot holds into a folder."""
        self._run("restore", snapshot, "--target", str(target))

    def read(self, snapshot: str, name: str, target: BinaryIO) -> None:
        """Write one file of a snapshot into an open file."""
        command = self._command("dump", snapshot, f"/{name}")
        try:
            process.run_into(command, target, environment=self._environment)
        except EngineError as error:
            raise _meaning(error.message, self.location) from None

    def text(self, snapshot: str, name: str) -> str:
        """Return one small file of a snapshot."""
        return self._run("dump", snapshot, f"/{name}")

    def forget(self, snapshots: Sequence[str], *, prune: bool) -> None:
        """Remove snapshots, and with `prune` the data that no other snapshot needs."""
        self._run("forget", *(["--prune"] if prune else []), *snapshots)

    def check(self, subset: str = "") -> None:
        """Check the structure of the repository, and read a part of all data back, such as `5%`."""
        self._run("check", *([f"--read-data-subset={subset}"] if subset else []))

    def _command(self, *words: str) -> list[str]:
        return ["restic", *self._options, *words]

    def _run(self, *words: str) -> str:
        finished = process.run(self._command(*words), environment=self._environment)
        if finished.status != 0:
            raise _meaning(finished.stderr or finished.stdout, self.location)
        return finished.stdout

    def _sent(self, finished: process.Finished) -> Sent:
        # Status 3 means that a file could not be read: a copy that lacks one is none.
        if finished.status != 0:
            raise _meaning(finished.stderr or finished.stdout, self.location)
        summary = next(filter(_is_summary, reversed(list(_messages(finished.stdout)))), None)
        if summary is None:
            raise CopyError("restic ended without a summary.", hint="Run the command again.")
        # From 0.17 on, what is sent is told apart from what it is unpacked.
        added = summary.get("data_added_packed", summary.get("data_added", 0))
        return Sent(str(summary["snapshot_id"]), int(added))


def _check_version() -> None:
    try:
        text = process.run(["restic", "version"]).stdout
    except EngineError:
        raise CopyError(
            "Copies are kept by restic, and restic is not installed.",
            state="Nothing was changed.",
            hint="Install it, version 0.14 or later: apt install restic",
        ) from None
    match = _VERSION.search(text)
    version = tuple(map(int, match.groups())) if match else ()
    if version < OLDEST:
        raise CopyError(
            f"restic {'.'.join(map(str, version)) or text.strip()[:40]} is too old: copies need 0.14 or later.",
            state="Nothing was changed.",
            hint="Install a newer one: https://restic.readthedocs.io/en/stable/020_installation.html",
        )


def _meaning(text: str, location: str) -> CopyError:
    lines = [line for line in redact(text).strip().splitlines() if line.strip()]
    last = lines[-1] if lines else "it gave no reason"
    for pattern, message in _MEANINGS:
        if pattern.search(text):
            return CopyError(f"{message} ({location})\n{last}", hint=_HINTS.get(message, ""))
    return CopyError(f"restic failed on {location}: {last}")


def _messages(output: str) -> Iterator[Any]:
    for line in output.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def _is_summary(message: Any) -> bool:
    return isinstance(message, dict) and message.get("message_type") == "summary" and "snapshot_id" in message


def _tagged(tags: Sequence[str]) -> list[str]:
    return [word for tag in tags for word in ("--tag", tag)]


def _counted(pieces: Iterable[bytes], notify: Callable[[int], None]) -> Iterator[bytes]:
    sent = 0
    for data in pieces:
        yield data
        sent += len(data)
        notify(sent)
