"""The catalogue: which backups exist, how good each is, and which one the operator means.

The module `backup` explains the folder of a backup and its manifest, `verdict` the last verdict on it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any

from compose_chap import reading
from compose_chap.backups import dump_file, manifest_reader, verdict
from compose_chap.backups.manifest import FILE, Manifest
from compose_chap.backups.verdict import BAD, CHECKSUMS, Proof
from compose_chap.errors import DumpError, StateError
from compose_chap.model import Origin
from compose_chap.records.files import durable, own_folder

PARTIAL = ".partial"
PIN_FILE = "pinned"

_LISTED = 5
_MOST_TABLES = 300  # that a line of the audit trail has room for


@dataclass(frozen=True)
class Backup:
    """A finished backup: its folder, its manifest, and the last verdict on it."""

    folder: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """The id: its start, in UTC."""
        return self.manifest.id

    @property
    def project(self) -> str:
        """The Compose project that it is a backup of."""
        return self.manifest.project.name

    @property
    def origin(self) -> Origin:
        """The stack that it is a backup of, as far as the manifest says."""
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
        """Its start."""
        return self.manifest.created_at

    @property
    def order(self) -> datetime:
        """When it was made, and later than that of every backup before it, whatever the clock said."""
        return self.manifest.order or self.manifest.created_at

    @property
    def size(self) -> int:
        """The size of all its files, in bytes."""
        return sum(part.size for part in self.manifest.parts)

    @property
    def figures(self) -> dict[str, Any]:
        """What the audit trail keeps of it for longer than the backup lasts: sizes in bytes, and rows of each table."""
        database, tables = self.manifest.database, self.tables
        return {
            "chap_version": self.manifest.chap.version,
            "database_size": database.size,
            "dump_size": self.manifest.dump.size,
            "size": self.size,
            **({"tables": tables} if len(tables) <= _MOST_TABLES else {}),
            **({"fault": self.fault} if self.fault else {}),
        }

    @property
    def pinned(self) -> bool:
        """Whether it is protected from retention."""
        return (self.folder / PIN_FILE).exists()

    @property
    def proof(self) -> Proof:
        """The last word about it."""
        return verdict.read(self.folder, self.manifest.proven_at)

    @property
    def fault(self) -> str:
        """Why nobody should rely on it, for people; empty for a sound backup."""
        if self.proof.how == BAD:
            return f"Its last check failed: {self.proof.why}"
        return f"It is missing {', '.join(lost)}." if (lost := self.manifest.lost_tables) else ""

    @property
    def warning(self) -> str:
        """A sentence for people about its fault."""
        return f"Backup {self.id} cannot be relied on. {self.fault}"


def list_backups(folders: Sequence[Path], origin: Origin = Origin()) -> list[Backup]:
    """Return the backups in all these folders, oldest first. Raise StateError when one of them cannot be read."""
    return merged([_scan(folder, origin) for folder in folders]).backups


@dataclass(frozen=True)
class Listing:
    """Backups, oldest first, and for each unusable backup or folder beside them the reason."""

    backups: list[Backup]
    unusable: list[str]

    @property
    def last_sound(self) -> Backup | None:
        """The newest backup without a fault."""
        return next((backup for backup in reversed(self.backups) if not backup.fault), None)

    @property
    def newer_faulty(self) -> list[Backup]:
        """The backups that are newer than the last sound one."""
        sound = self.last_sound
        return self.backups[self.backups.index(sound) + 1 :] if sound else self.backups


def merged(listings: Sequence[Listing]) -> Listing:
    """Return what several folders hold as one listing, oldest first."""
    backups = {backup.folder: backup for listing in listings for backup in listing.backups}
    return Listing(
        sorted(backups.values(), key=lambda backup: (backup.order, backup.id)),
        [text for listing in listings for text in listing.unusable],
    )


def scan(folders: Sequence[Path], origin: Origin = Origin()) -> Listing:
    """Return the backups in these folders, of one stack or of all.

    An unusable backup never hides the others, nor does a folder whose disk is dead. Raise StateError when a folder
    cannot be read, and no other has backups.
    """
    listings, errors = [], []
    for folder in folders:
        try:
            listings.append(_scan(folder, origin))
        except StateError as error:
            errors.append(error)
    if errors and not any(listing.backups for listing in listings):
        raise errors[0]
    return merged([*listings, Listing([], [error.message for error in errors])])


def _scan(folder: Path, origin: Origin) -> Listing:
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
    """Return the names of the subfolders that may be finished backups; links do not count."""
    try:
        with os.scandir(folder) as entries:
            folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            return sorted(name for name in folders if not name.endswith(PARTIAL))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StateError(
            f"The backups in {folder} cannot be read: {error.strerror}.",
            hint=f"See whose folder it is: ls -ld {quote(str(folder))}",
        ) from None


class Missing(DumpError):
    """A folder is not a finished backup."""


def load(folder: Path) -> Backup:
    """Return the backup in a folder. Raise DumpError when there is none, or this version cannot read it.

    A backup that another user made, or may write, does not count, because a restore does what its manifest says. Its
    dump can be restored like any other dump.
    """
    try:
        with own_folder.opened(folder, DumpError) as handle:
            content = reading.read_file(FILE, reading.LARGEST, DumpError, within=handle, own=True)
    except FileNotFoundError:
        raise Missing(f"{folder} has no {FILE}: it is not a finished backup.") from None
    except DumpError as error:
        own = f"If you trust what is in it, make it your own: {own_folder.how_to_own(folder)}\n"
        alone = "Its dump alone needs no trust: docker chap restore DUMP-FILE"
        raise DumpError(f"{folder} cannot be used as a backup: {error.message}", hint=own + alone) from None
    made = Backup(folder, manifest_reader.read(reading.parse(content, str(folder / FILE), DumpError), folder))
    for file in (verdict.FILE, PIN_FILE, *(part.file for part in made.manifest.parts)):
        # Resolve links, so that none leads out of the folder.
        if not Path(os.path.realpath(folder / file)).is_relative_to(os.path.realpath(folder)):
            raise DumpError(f"The manifest in {folder} names a file outside of it: {file}.")
    return made


def amend(made: Backup, **facts: Any) -> Backup:
    """Add facts to a finished backup's manifest that were not available when it was made, and return it."""
    amended = Backup(made.folder, replace(made.manifest, **facts))
    own_folder.write(made.folder / FILE, amended.manifest.document())
    return amended


def find(
    wanted: str, folders: Sequence[Path], origin: Origin = Origin(), *, sound: bool = False, or_file: bool = False
) -> Backup:
    """Return the backup that the operator means: an id or its unique beginning, `latest` of a stack, or a folder.

    With `sound`, `latest` is the newest without a fault. Raise DumpError with a list of the backups; with `or_file`
    it says that there is no such file either. Raise StateError when it may lie in a folder that cannot be read.
    """
    named = wanted != "latest" and os.path.isdir(wanted)
    if named and os.sep in wanted:
        return load(Path(wanted).resolve())
    listed, places = scan(folders).backups, " and ".join(map(str, folders))
    own = [backup for backup in listed if origin.owns(backup.origin)]
    newest = [candidate for candidate in own if not (sound and candidate.fault)][-1:]
    if wanted == "latest" and newest:
        return newest[0]
    if wanted == "latest" and own:
        list_backups(folders)  # a good one may lie where nothing can be read
        raise DumpError(
            f"No backup in {places} can be relied on. The newest is {own[-1].id}. {own[-1].fault}",
            hint=f"See all: docker chap backups\n{_last_resort(own[-1])}",
        )
    everything: dict[str, Backup] = {}
    for backup in listed:
        # It may lie in two folders, copied by hand.
        if backup.id not in everything or everything[backup.id].fault:
            everything[backup.id] = backup
    if wanted in everything:
        return everything[wanted]
    if named:
        return load(Path(wanted).resolve())
    beginning = [backup for backup in everything.values() if wanted and backup.id.startswith(wanted.upper())]
    if len(beginning) == 1:
        return beginning[0]
    if beginning:
        raise DumpError(
            f"Several backups begin with {wanted}: {', '.join(backup.id for backup in beginning[-_LISTED:])}.",
            hint="Type more of the id, or list them: docker chap backups",
        )
    list_backups(folders)  # as above
    missing = f"file {wanted}, and no backup of that name" if or_file and wanted != "latest" else f"backup '{wanted}'"
    if not own:
        raise DumpError(f"There is no {missing}. No backups are in {places}.", hint="Make one: docker chap backup")
    listing = ", ".join(backup.id for backup in own[-_LISTED:])
    older = f" and {len(own) - _LISTED} older" if len(own) > _LISTED else ""
    raise DumpError(f"There is no {missing}. In {places}: {listing}{older}.", hint="List them: docker chap backups")


def _last_resort(newest: Backup) -> str:
    """Return a hint for a faulty backup. When its checksums fail, it cannot be restored by name either."""
    if newest.proof.by != CHECKSUMS:
        return f"To use this one anyway, name it instead of latest: {newest.id}"
    return f"Prove it once more: docker chap verify {newest.id}\n{dump_alone(newest)}".rstrip()


def dump_alone(backup: Backup) -> str:
    """Return how to restore CHAP's dump from a damaged backup; empty when the dump is damaged too."""
    with suppress(DumpError):
        file = quote(str(backup.dump))
        if dump_file.sha256_of(backup.dump) == backup.manifest.dump.sha256:
            return f"Its dump of CHAP's database is intact. To restore only that: docker chap restore {file}"
    return ""


def record_verdict(backup: Backup, at: datetime, how: str, why: str = "") -> None:
    """Write down that a backup passed the proof `how`, or, with `why`, that it failed it. Raise StateError."""
    verdict.record(backup.folder, backup.proof, at, how, why)


def pin(backup: Backup, pinned: bool) -> None:
    """Protect a backup from retention, or no longer."""
    if pinned:
        own_folder.write(backup.folder / PIN_FILE, b"")
    else:
        own_folder.remove(backup.folder / PIN_FILE)
