"""The catalogue: which backups there are, how good each one is, and which one an operator means.

What a backup's folder and its manifest hold is told in `backup`. `proof.json` is the last word about it:

    {"at": "2026-11-23T04:15:00+00:00", "how": "test-restored"}
    {"at": "2026-11-24T04:15:00+00:00", "how": "bad", "by": "checksums", "why": ".env is not what was written."}
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any

from compose_chap import reading
from compose_chap.backups import dump_file, manifest_reader
from compose_chap.backups.manifest import FILE, Manifest
from compose_chap.errors import DumpError, StackError
from compose_chap.model import Origin, Stack
from compose_chap.records import durable, lock, own_folder

PARTIAL = ".partial"
PIN_FILE = "pinned"
PROOF_FILE = "proof.json"

# How a backup was proven, each way better than the one before it; or that it was found to be bad.
CHECKSUMS, READ_BACK, RESTORED = PROOFS = ("checksums", "read back", "test-restored")
BAD = "bad"

_LISTED = 5
_LONGEST_PROOF = 1 << 20  # bytes


@dataclass(frozen=True)
class Proof:
    """When a backup was last looked at, and how that ended; for a bad one `why`, and `by` which proof it failed."""

    at: datetime
    how: str
    by: str = ""
    why: str = ""


@dataclass(frozen=True)
class Backup:
    """A finished backup: its folder, its manifest, and the last word about it."""

    folder: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """The id, which is when it was begun, in UTC."""
        return self.manifest.id

    @property
    def project(self) -> str:
        """The Compose project that it was made of."""
        return self.manifest.project.name

    @property
    def origin(self) -> Origin:
        """Which stack it was made of, as far as it says."""
        return Origin(self.project, self.manifest.engine.id, self.manifest.engine.name)

    @property
    def dump(self) -> Path:
        """The dump of CHAP's database."""
        return self.folder / self.manifest.dump.file

    @property
    def tables(self) -> dict[str, int]:
        """Rows of each table at the moment of the dump."""
        return dict(self.manifest.tables)

    @property
    def created_at(self) -> datetime:
        """When it was begun."""
        return self.manifest.created_at

    @property
    def order(self) -> datetime:
        """When it was made, and later than that of every backup before it, whatever the clock said."""
        return self.manifest.order or self.manifest.created_at

    @property
    def size(self) -> int:
        """Bytes of everything in it."""
        return sum(part.size for part in self.manifest.parts)

    @property
    def pinned(self) -> bool:
        """Whether it stays whatever retention says."""
        return (self.folder / PIN_FILE).exists()

    @property
    def proof(self) -> Proof:
        """The last word about it. One that cannot be read says nothing."""
        with suppress(FileNotFoundError, DumpError):
            word = reading.read_document(self.folder / PROOF_FILE, DumpError, limit=_LONGEST_PROOF, own=True)
            by, why = (part.text() if (part := word.get(name)) else "" for name in ("by", "why"))
            return Proof(word.at("at").moment(), word.at("how").filled(), by, why)
        return Proof(self.manifest.proven_at, READ_BACK)

    @property
    def fault(self) -> str:
        """Why nobody should rely on it, in words; empty for a sound one."""
        if self.proof.how == BAD:
            return f"The last proof of it failed: {self.proof.why}"
        return f"It lacks {', '.join(lost)}." if (lost := self.manifest.lost_tables) else ""


def folder_for(stack: Stack, asked: Path | None, environment: Mapping[str, str]) -> Path:
    """Return where backups of a stack lie: as asked, as DOCKER_CHAP_BACKUPS says, or beside the Compose file."""
    if not (stack.project.local or asked or environment.get("DOCKER_CHAP_BACKUPS")):
        raise StackError(
            f"Backups of '{stack.project.name}' lie beside its Compose files, which are not on this machine:"
            f" {stack.project.files[0]}.",
            state="Nothing was changed.",
            hint="Name a folder on this machine with -o FOLDER, or in the environment variable DOCKER_CHAP_BACKUPS.",
        )
    return folder_beside(stack.project.directory, asked, environment)


def folder_beside(directory: Path, asked: Path | None, environment: Mapping[str, str]) -> Path:
    """Return where backups of a stack lie whose main folder is `directory`."""
    if asked:
        return asked.absolute()
    if environment.get("DOCKER_CHAP_BACKUPS"):
        return Path(environment["DOCKER_CHAP_BACKUPS"]).absolute()
    return directory / "backups"


def list_backups(folder: Path, origin: Origin = Origin()) -> list[Backup]:
    """Return the backups below a folder, of one stack or of all, oldest first, as `look` finds them."""
    return look(folder, origin).backups


@dataclass(frozen=True)
class Listing:
    """The backups below a folder, oldest first, and why what looks like one there is none that counts."""

    backups: list[Backup]
    unusable: list[str]


def look(folder: Path, origin: Origin = Origin()) -> Listing:
    """Return the backups below a folder, of one stack or of all. One that is bad or another's never hides the others.

    Raise StateError when this user may not look into the folder.
    """
    durable.check_readable(folder)
    backups, unusable = [], []
    for name in _folders(folder):
        try:
            backups.append(load(folder / name))
        except DumpError as error:
            unusable.extend([] if isinstance(error, Missing) else [error.message])
    own = [backup for backup in backups if origin.owns(backup.origin)]
    return Listing(sorted(own, key=lambda backup: (backup.order, backup.id)), unusable)


def _folders(folder: Path) -> list[str]:
    """Return the names of the folders below one that may be finished backups; links are none."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if not entry.name.endswith(PARTIAL) and entry.is_dir(follow_symlinks=False)
        )
    return []


class Missing(DumpError):
    """A folder is no finished backup at all."""


def load(folder: Path) -> Backup:
    """Return the backup in a folder. Raise DumpError when there is none, or none that this version can read.

    One that another user made, or may write, does not count: what it says would be done. Its dump can be restored as
    any other dump.
    """
    try:
        with own_folder.opened(folder, DumpError) as handle:
            content = reading.read_file(FILE, reading.LARGEST, DumpError, within=handle, own=True)
    except FileNotFoundError:
        raise Missing(f"{folder} has no {FILE}: it is not a finished backup.") from None
    except DumpError as error:
        raise DumpError(f"{folder} is no backup that counts: {error.message}", hint=_how_to_own(folder)) from None
    made = Backup(folder, manifest_reader.read(reading.parse(content, str(folder / FILE), DumpError), folder))
    for file in (PROOF_FILE, PIN_FILE, *(part.file for part in made.manifest.parts)):
        # Links are followed here, so that one cannot lead out either.
        if not Path(os.path.realpath(folder / file)).is_relative_to(os.path.realpath(folder)):
            raise DumpError(f"The manifest in {folder} names a file outside of it: {file}.")
    return made


def _how_to_own(folder: Path) -> str:
    return (
        f"If you trust what is in it, make it your own: chown -R $(id -u) {quote(str(folder))} &&"
        f" chmod -R go-w {quote(str(folder))}\nIts dump alone needs no trust: docker chap restore DUMP-FILE"
    )


def amend(made: Backup, **facts: Any) -> Backup:
    """Write into a finished backup's manifest what nobody could be asked when it was made, and return it so."""
    amended = Backup(made.folder, replace(made.manifest, **facts))
    own_folder.write(made.folder / FILE, amended.manifest.document())
    return amended


def find(asked: str, folder: Path, origin: Origin = Origin(), *, sound: bool = False, or_file: bool = False) -> Backup:
    """Return the backup an operator means: an id, `latest` of a stack, or a folder.

    With `sound`, `latest` is the newest one without a fault. Raise DumpError that lists what there is; with `or_file`
    it says that there is no such file either.
    """
    own = list_backups(folder, origin)
    newest = [one for one in own if not (sound and one.fault)][-1:]
    if asked == "latest" and newest:
        return newest[0]
    if asked == "latest" and own:
        raise DumpError(
            f"No backup in {folder} is sound. The newest is {own[-1].id}. {own[-1].fault}",
            hint=f"See all: docker chap backups\n{_last_resort(own[-1])}",
        )
    for backup in list_backups(folder):
        if backup.id == asked:
            return backup
    if asked != "latest" and Path(asked).is_dir():
        return load(Path(asked).resolve())
    missing = f"file {asked}, and no backup of that name" if or_file and asked != "latest" else f"backup '{asked}'"
    there = ", ".join(backup.id for backup in own[-_LISTED:]) or "none"
    older = f" and {len(own) - _LISTED} older" if len(own) > _LISTED else ""
    raise DumpError(f"There is no {missing}. In {folder}: {there}{older}.", hint="List them: docker chap backups")


def passed_over(asked: str, found: Backup, folder: Path, origin: Origin) -> list[str]:
    """Return a note on each newer backup of a stack that `latest` does not mean; none where one was named."""
    newer = [one for one in list_backups(folder, origin) if asked == "latest" and one.order > found.order]
    return [f"Backup {one.id} is newer, and was passed over. {one.fault}" for one in newer]


def _last_resort(newest: Backup) -> str:
    """Return what can be done with a backup that has a fault. One that fails its checksums is refused by name too."""
    if newest.proof.by != CHECKSUMS:
        return f"To take this one all the same, name it instead of latest: {newest.id}"
    return f"Prove it once more: docker chap verify {newest.id}\n{dump_alone(newest)}".rstrip()


def dump_alone(backup: Backup) -> str:
    """Return how to restore the dump of CHAP's database out of a backup that is not whole; empty when that is not."""
    with suppress(DumpError):
        file = quote(str(backup.dump))
        if dump_file.sha256_of(backup.dump) == backup.manifest.dump.sha256:
            return f"Its dump of CHAP's database is whole. To restore that alone: docker chap restore {file}"
    return ""


def record_verdict(backup: Backup, at: datetime, how: str, why: str = "") -> None:
    """Write down that a backup passed the proof `how`, or, with `why`, that it failed it.

    A proof that is passed says nothing against a better one that failed. Raise StateError when it cannot be written.
    """
    last = backup.proof
    if why:
        word = {"at": at.isoformat(), "how": BAD, "by": how, "why": why}
    elif last.how == BAD and last.by in PROOFS[PROOFS.index(how) + 1 :]:
        return
    elif how == CHECKSUMS:
        # The bytes are those that were read back when it was made. That stays the last word, or becomes it again.
        if last.how == BAD:
            own_folder.remove(backup.folder / PROOF_FILE)
        return
    else:
        word = {"at": at.isoformat(), "how": how}
    own_folder.write(backup.folder / PROOF_FILE, (json.dumps(word) + "\n").encode())


def pin(backup: Backup, pinned: bool) -> None:
    """Keep a backup whatever retention says, or no longer."""
    if pinned:
        own_folder.write(backup.folder / PIN_FILE, b"")
    else:
        own_folder.remove(backup.folder / PIN_FILE)


def remove_abandoned(folder: Path) -> None:
    """Remove what backups that were killed left below a folder, and nothing that one is working on."""
    for partial in folder.glob(f"*{PARTIAL}"):
        if partial.is_dir() and lock.abandoned(partial):
            shutil.rmtree(partial, ignore_errors=True)
