"""restic, as a program of this machine: its version, its snapshots, and what its failures mean. The door of restic."""

from __future__ import annotations

import errno
import itertools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import TypeVar

from compose_chap.copies import answers, failures
from compose_chap.copies.answers import Added, Stored, StoredSnapshot
from compose_chap.copies.failures import NoRepository
from compose_chap.copies.repository import Repository, shares_disk
from compose_chap.errors import CopyError, EngineError
from compose_chap.ownership import as_root
from compose_chap.processes import process, streams
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
# Seconds after which a repository that another run has locked is asked again.
_PAUSE = 10

_Result = TypeVar("_Result")


class Restic:
    """restic on one repository. Every failure is a CopyError that says what it means.

    While another run has locked the repository, this waits for up to `patience` seconds.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        limit_upload: int = 0,
        patience: float = 0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.location, self.named = redact(repository.location), repository.named
        self._patience, self._sleep = patience, sleep
        # Over a slow link a pack of restic's usual 16 MiB takes minutes, and one that was cut off is sent once more.
        # Without a terminal restic writes a line of progress sixty times a second.
        self._environment = {"RESTIC_PACK_SIZE": "4", **repository.variables(), "RESTIC_PROGRESS_FPS": "0.02"}
        self._options = _calm(repository.location)
        self._options += ["--limit-upload", str(limit_upload)] if limit_upload else []
        self._version = _checked_version()
        self._read_only = _is_read_only(self._environment["RESTIC_REPOSITORY"])

    def shares_disk(self, folder: Path) -> bool:
        """Return whether the repository is on the disk that holds a folder, so that both are lost at once."""
        return shares_disk(self._environment["RESTIC_REPOSITORY"], folder)

    def check_reachable(self) -> None:
        """Raise CopyError unless there is a repository that the password opens; NoRepository when there is none."""
        self._look("cat", "config", limit=_PATIENCE)

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
        return answers.snapshots(self._look("snapshots", "--json", "--tag", tag))

    def send_stream(self, pieces: Iterable[bytes], name: str, tags: Sequence[str]) -> Added:
        """Make a snapshot of one file, given piece by piece. What `pieces` raises ends it without a snapshot."""
        self._check_writable()
        command = self._command("backup", "--json", "--stdin", "--stdin-filename", name, *_tagged(tags))
        before = self._stored()
        return self._sent(streams.feed(command, pieces, self._environment), before)

    def send_files(self, folder: Path, names: Sequence[str], tags: Sequence[str]) -> Added:
        """Make a snapshot of files and folders below `folder`, under their names in it."""
        self._check_writable()
        command = self._command("backup", "--json", *_tagged(tags), "--", *names)

        def send() -> Added:
            before = self._stored()
            finished = process.run(command, folder=folder, environment=self._environment, alone=True)
            return self._sent(finished, before)

        return self._waiting(send)

    def contents(self, snapshot: str) -> list[Stored]:
        """Return what a snapshot holds, folders too. Whoever has the password may have written it."""
        return answers.contents(self._look("ls", "--json", snapshot))

    def restore(self, snapshot: str, target: Path) -> None:
        """Write everything that a snapshot holds into a folder. Raise OSError when that has no room."""
        try:
            self._look("restore", snapshot, "--target", str(target))
        except failures.NoRoom:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None

    def read(self, snapshot: str, name: str) -> Iterator[bytes]:
        """Yield one file of a snapshot piece by piece. Raise CopyError at its end when it is not all of it."""
        return streams.read(self._command("dump", *self._reading, snapshot, f"/{name}"), self._environment, self._check)

    def forget(self, snapshots: Sequence[str]) -> None:
        """Remove snapshots, and the data that no other snapshot needs. Raise AppendOnly where that is not allowed."""
        self._check_writable()
        try:
            self._run("forget", "--prune", *snapshots)
        except failures.Denied as error:
            raise failures.append_only(error, self.location) from None

    def check(self, subset: str = "") -> None:
        """Check the structure of the repository, and read a part of all data back, such as `5%`."""
        self._look("check", *([f"--read-data-subset={subset}"] if subset else []))

    def count_everything(self) -> None:
        """Let the repository know what lies in it, also what a run that was cut off has sent."""
        # It needs the repository for itself, and is not worth to wait for.
        self._unlock()
        self._once(*(("repair", "index") if self._version >= _REPAIRS else ("rebuild-index",)))

    def _unlock(self) -> None:
        """Remove the locks of runs that are gone; restic leaves those alone that somebody may still hold."""
        with suppress(failures.Denied):
            self._once("unlock")

    def _check_writable(self) -> None:
        if self._read_only:
            folder = quote(self._environment["RESTIC_REPOSITORY"].removeprefix("local:"))
            look = f"ls -ld {folder}; findmnt -T {folder} -o TARGET,OPTIONS"
            raise CopyError(
                f"The repository can only be read: {self.location}.",
                state="Nothing was changed.",
                hint=f"See whose folder it is, and whether its disk is mounted read-only (ro): {look}",
            )

    @property
    def _reading(self) -> list[str]:
        # A lock is a file. A disk that an emergency left read-only has to be enough to get everything back.
        return ["--no-lock"] if self._read_only else []

    def _command(self, *words: str) -> list[str]:
        return ["restic", *self._options, *words]

    def _look(self, name: str, *words: str, limit: float | None = None) -> str:
        return self._run(name, *self._reading, *words, limit=limit)

    def _run(self, *words: str, limit: float | None = None) -> str:
        return self._waiting(lambda: self._once(*words, limit=limit))

    def _waiting(self, do: Callable[[], _Result]) -> _Result:
        """Do what needs a lock: again after the locks of dead runs were removed, then again while it may wait."""
        for waited in itertools.count(0, _PAUSE):
            try:
                return do()
            except failures.InUse:
                if waited > self._patience:
                    raise
            if waited:
                self._sleep(_PAUSE)
            self._unlock()
        raise AssertionError("it counts for ever")

    def _once(self, *words: str, limit: float | None = None) -> str:
        try:
            finished = process.run(self._command(*words), environment=self._environment, alone=True, limit=limit)
        except process.TooLong:
            why = f"no answer within {limit:.0f} seconds"
            raise failures.meaning(why, self.location, named=self.named) from None
        self._check(finished)
        return finished.stdout

    def _check(self, finished: process.Finished) -> None:
        # Status 3 means that a file could not be read: a copy that lacks one is none.
        if finished.status < 0:
            raise failures.killed(-finished.status)
        if finished.status != 0:
            real = self._environment["RESTIC_REPOSITORY"]
            raise failures.meaning(finished.stderr or finished.stdout, self.location, real, self.named)

    def _stored(self) -> int:
        """Return the bytes that all copies take in the repository, or 0 where restic itself counts what it adds."""
        if self._version >= _COUNTS_PACKED:
            return 0
        # It is a number for people: a copy that is made does not fail for it.
        with suppress(CopyError):
            return answers.total(self._once("stats", "--mode", "raw-data", "--json"))
        return 0

    def _sent(self, finished: process.Finished, before: int) -> Added:
        self._check(finished)
        summary = answers.summary(finished.stdout)
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
            hint=f"Install it, version 0.14 or later: {as_root('apt install restic')}",
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


def _is_read_only(location: str) -> bool:
    """Whether this is a repository in a folder of this machine into which this user can write nothing."""
    folder = Path(location.removeprefix("local:"))
    return folder.is_absolute() and os.access(folder / "config", os.R_OK) and not os.access(folder / "locks", os.W_OK)


def _tagged(tags: Sequence[str]) -> list[str]:
    return [word for tag in tags for word in ("--tag", tag)]
