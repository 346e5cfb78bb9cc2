"""restic, as a program of this machine: its version, its snapshots, and what its failures mean. The door of restic."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from compose_chap import reading
from compose_chap.copies import failures
from compose_chap.copies.failures import NoRepository
from compose_chap.copies.repository import Repository
from compose_chap.engine import process, streams
from compose_chap.errors import CopyError, EngineError
from compose_chap.redact import redact

# The first version that compresses, which is what makes an uncompressed dump cheap to keep.
OLDEST = (0, 14, 0)
_VERSION = re.compile(r"restic (\d+)\.(\d+)\.(\d+)")
# `rebuild-index` has this name from 0.16 on.
_REPAIRS = (0, 16, 0)
# From here on a backup's summary counts what was sent; before, only what that is unpacked.
_COUNTS_PACKED = (0, 17, 0)
_OVER_A_LINK = ("sftp", "rest", "s3", "b2", "azure", "gs", "swift", "rclone")

# Seconds within which a repository has to answer at all. restic itself would try for a quarter of an hour.
_PATIENCE = 90


@dataclass(frozen=True)
class StoredSnapshot:
    """A snapshot of a repository: its id, when it was made, and its tags as `name=value`."""

    id: str
    at: datetime
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Added:
    """What a backup of restic added: its snapshot, and the bytes that were new, packed and encrypted."""

    snapshot: str
    added: int


class Restic:
    """restic on one repository. Every failure is a CopyError that says what it means."""

    def __init__(self, repository: Repository, *, limit_upload: int = 0) -> None:
        self.location = redact(repository.location)
        # Over a slow link a pack of restic's usual 16 MiB takes minutes, and one that was cut off is sent once more.
        # Without a terminal restic writes a line of progress sixty times a second.
        self._environment = {"RESTIC_PACK_SIZE": "4", **repository.variables(), "RESTIC_PROGRESS_FPS": "0.02"}
        self._options = _calm(repository.location)
        self._options += ["--limit-upload", str(limit_upload)] if limit_upload else []
        self._version = _checked_version()

    def check_reachable(self) -> None:
        """Raise CopyError unless there is a repository that the password opens; NoRepository when there is none."""
        self._run("cat", "config", limit=_PATIENCE)

    def make_if_missing(self) -> bool:
        """Make the repository if there is none, and return whether that was so."""
        try:
            self.check_reachable()
            return False
        except NoRepository:
            self._run("init")
            return True

    def snapshots(self, tag: str) -> list[StoredSnapshot]:
        """Return the snapshots with a tag."""
        answer = reading.parse(self._run("snapshots", "--json", "--tag", tag), "the list of snapshots", CopyError)
        return [
            StoredSnapshot(
                item.at("id").filled(),
                _moment(item.at("time").filled()),
                dict(word.partition("=")[::2] for word in tags.texts()) if (tags := item.get("tags")) else {},
            )
            for item in answer.items()
        ]

    def send_stream(self, pieces: Iterable[bytes], name: str, tags: Sequence[str]) -> Added:
        """Make a snapshot of one file, given piece by piece. What `pieces` raises ends it without a snapshot."""
        command = self._command("backup", "--json", "--stdin", "--stdin-filename", name, *_tagged(tags))
        before = self._stored()
        return self._sent(streams.feed(command, pieces, self._environment), before)

    def send_files(self, folder: Path, names: Sequence[str], tags: Sequence[str]) -> Added:
        """Make a snapshot of files and folders below `folder`, under their names in it."""
        command = self._command("backup", "--json", *_tagged(tags), "--", *names)
        before = self._stored()
        return self._sent(process.run(command, folder=folder, environment=self._environment, alone=True), before)

    def restore(self, snapshot: str, target: Path) -> None:
        """Write everything that a snapshot holds into a folder."""
        self._run("restore", snapshot, "--target", str(target))

    def read(self, snapshot: str, name: str, target: BinaryIO) -> None:
        """Write one file of a snapshot into an open file."""
        command = self._command("dump", snapshot, f"/{name}")
        finished = streams.write_to(target, command, self._environment)
        self._check(finished)

    def forget(self, snapshots: Sequence[str]) -> None:
        """Remove snapshots, and the data that no other snapshot needs. Raise CopyError where that is not allowed."""
        self._unlock()
        try:
            self._run("forget", "--prune", *snapshots)
        except failures.Denied as error:
            raise failures.append_only(error, self.location) from None

    def check(self, subset: str = "") -> None:
        """Check the structure of the repository, and read a part of all data back, such as `5%`."""
        self._unlock()
        self._run("check", *([f"--read-data-subset={subset}"] if subset else []))

    def count_everything(self) -> None:
        """Let the repository know what lies in it, also what a run that was cut off has sent."""
        self._unlock()
        self._run(*(("repair", "index") if self._version >= _REPAIRS else ("rebuild-index",)))

    def _unlock(self) -> None:
        """Remove the locks of runs that are gone; restic leaves those alone that somebody may still hold."""
        with suppress(failures.Denied):
            self._run("unlock")

    def _command(self, *words: str) -> list[str]:
        return ["restic", *self._options, *words]

    def _run(self, *words: str, limit: float | None = None) -> str:
        try:
            finished = process.run(self._command(*words), environment=self._environment, alone=True, limit=limit)
        except process.TooLong:
            raise failures.unreachable(f"no answer within {limit:.0f} seconds", self.location) from None
        self._check(finished)
        return finished.stdout

    def _check(self, finished: process.Finished) -> None:
        # Status 3 means that a file could not be read: a copy that lacks one is none.
        if finished.status < 0:
            raise failures.killed(-finished.status)
        if finished.status != 0:
            raise failures.meaning(finished.stderr or finished.stdout, self.location)

    def _stored(self) -> int:
        """Return the bytes that all copies take in the repository, or 0 where restic itself counts what it adds."""
        if self._version >= _COUNTS_PACKED:
            return 0
        answer = reading.parse(self._run("stats", "--mode", "raw-data", "--json"), "restic's statistics", CopyError)
        return answer.at("total_size").integer()

    def _sent(self, finished: process.Finished, before: int) -> Added:
        self._check(finished)
        summary = next(filter(_is_summary, reversed(list(_messages(finished.stdout)))), None)
        if summary is None:
            raise CopyError("restic ended without a summary.", hint="Run the command again.")
        added = summary.get("data_added_packed")
        if added is None:
            # What grew counts also what a run that was cut off had sent; what was new, what packing saved.
            added = min(max(self._stored() - before, 0), int(summary.get("data_added", 0)))
        return Added(str(summary["snapshot_id"]), int(added))


def _checked_version() -> tuple[int, ...]:
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
            hint="Install a newer version: https://restic.readthedocs.io/en/stable/020_installation.html",
        )
    return version


def _calm(location: str) -> list[str]:
    """Return the options to send two packs at a time, not five: over a slow link all that is half sent may be lost."""
    kind = location.partition(":")[0]
    return ["-o", f"{kind}.connections=2"] if kind in _OVER_A_LINK else []


def _moment(text: str) -> datetime:
    """Return a time as restic writes it: with nanoseconds, which Python does not read."""
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*", r"\1", text).replace("Z", "+00:00"))
    except ValueError:
        # Before 3.11 Python wants three or six digits.
        return datetime.fromisoformat(re.sub(r"\.\d+", "", text).replace("Z", "+00:00"))


def _messages(output: str) -> Iterator[Any]:
    for line in output.splitlines():
        if line.startswith("{"):
            with suppress(ValueError):
                yield json.loads(line)


def _is_summary(message: Any) -> bool:
    return isinstance(message, dict) and message.get("message_type") == "summary" and "snapshot_id" in message


def _tagged(tags: Sequence[str]) -> list[str]:
    return [word for tag in tags for word in ("--tag", tag)]
