"""The catalogue: which backups there are, how good each one is, and which one an operator means.

What a backup's folder and its manifest hold is told in `backup`. `proof.json` is the last word about it:

    {"at": "2026-11-23T04:15:00+00:00", "how": "test-restored"}
    {"at": "2026-11-24T04:15:00+00:00", "how": "bad", "by": "checksums", "why": ".env is not what was written."}
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any

from compose_chap.backups import dump_file
from compose_chap.errors import DumpError, StackError
from compose_chap.image import release_key
from compose_chap.model import Origin, Stack
from compose_chap.records import durable, lock

FORMAT = 1
PARTIAL = ".partial"
PIN_FILE = "pinned"
PROOF_FILE = "proof.json"

# How a backup was proven, each way better than the one before it; or that it was found to be bad.
CHECKSUMS, READ_BACK, RESTORED = PROOFS = ("checksums", "read back", "test-restored")
BAD = "bad"

_LISTED = 5


@dataclass(frozen=True)
class Proof:
    """When a backup was last looked at, and how that ended; for a bad one `why`, and `by` which proof it failed."""

    at: datetime
    how: str
    by: str = ""
    why: str = ""


@dataclass(frozen=True)
class Backup:
    """A finished backup: its folder and its manifest."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The id, which is when it was begun, in UTC."""
        return str(self.manifest["id"])

    @property
    def project(self) -> str:
        """The Compose project that it was made of."""
        return str(self.manifest["project"]["name"])

    @property
    def origin(self) -> Origin:
        """Which stack it was made of, as far as it says."""
        engine = self.manifest.get("engine") or {"id": "", "name": ""}
        return Origin(self.project, str(engine["id"]), str(engine["name"]))

    @property
    def dump(self) -> Path:
        """The dump of CHAP's database."""
        return self.folder / str(self.manifest["dump"]["file"])

    @property
    def tables(self) -> dict[str, int]:
        """Rows of each table at the moment of the dump."""
        return dict(self.manifest["tables"])

    @property
    def created_at(self) -> datetime:
        """When it was begun."""
        return datetime.fromisoformat(self.manifest["created_at"])

    @property
    def parts(self) -> list[dict[str, Any]]:
        """Every file of it that has a checksum: `file`, `size`, `sha256`."""
        one = self.manifest
        found = [one["dump"], *one["files"], *one.get("volumes", ())]
        found += [one["dhis2"]["dump"]] if one.get("dhis2") else []
        found += [one["checkout"]["diff"]] if one.get("checkout") and one["checkout"]["diff"] else []
        return found + ([one["instructions"]] if "instructions" in one else [])

    @property
    def size(self) -> int:
        """Bytes of everything in it."""
        return sum(int(part["size"]) for part in self.parts)

    @property
    def pinned(self) -> bool:
        """Whether it stays whatever retention says."""
        return (self.folder / PIN_FILE).exists()

    @property
    def proof(self) -> Proof:
        """The last word about it."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads((self.folder / PROOF_FILE).read_bytes())
            said = (str(found.get(part, "")) for part in ("by", "why"))
            return Proof(datetime.fromisoformat(found["at"]), str(found["how"]), *said)
        return Proof(datetime.fromisoformat(self.manifest["proven_at"]), READ_BACK)

    @property
    def lost_tables(self) -> tuple[str, ...]:
        """The tables that the database had lost when it was made."""
        return tuple(self.manifest.get("lost_tables") or ())

    @property
    def fault(self) -> str:
        """Why nobody should rely on it, in words; empty for a sound one."""
        if self.proof.how == BAD:
            return f"The last proof of it failed: {self.proof.why}"
        return f"It lacks {', '.join(self.lost_tables)}." if self.lost_tables else ""


def folder_for(stack: Stack, asked: Path | None, environment: Mapping[str, str]) -> Path:
    """Return where backups of a stack lie: as asked, as DOCKER_CHAP_BACKUPS says, or beside the Compose file."""
    if not (stack.project.here or asked or environment.get("DOCKER_CHAP_BACKUPS")):
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
    """Return the backups below a folder, of one stack or of all, oldest first.

    What has no readable manifest is none. Raise StateError when this user may not look into the folder.
    """
    durable.check_readable(folder)
    found = []
    for path in sorted(folder.glob("*/manifest.json")):
        with suppress(DumpError):
            if not path.parent.name.endswith(PARTIAL):
                found.append(load(path.parent))
    return sorted((one for one in found if origin.owns(one.origin)), key=lambda one: one.id)


def load(folder: Path) -> Backup:
    """Return the backup in a folder. Raise DumpError when there is none, or none that this version can read."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        if manifest["format"] != FORMAT:
            raise DumpError(f"{folder} was written by another version of this tool (format {manifest['format']}).")
        found = Backup(folder, manifest)
        parts = [PROOF_FILE, PIN_FILE, *(str(part["file"]) for part in found.parts)]
        # What every reader takes for granted.
        _ = found.id, found.origin, found.size, found.created_at, found.proof, found.tables, manifest["reason"]
        _ = manifest["chap"]["version"], int(manifest["database"]["size"]), int(manifest["server"]["version"])
    except FileNotFoundError:
        raise DumpError(f"{folder} has no manifest.json: it is not a finished backup.") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DumpError(f"The manifest in {folder} cannot be read: {error}.") from None
    for part in parts:
        # Links are followed here, so that one cannot lead out either.
        if not (folder / part).resolve().is_relative_to(folder.resolve()):
            raise DumpError(f"The manifest in {folder} names a file outside of it: {part}.")
    return found


def amend(made: Backup, **facts: Any) -> Backup:
    """Write into a finished backup's manifest what nobody could be asked when it was made, and return it so."""
    amended = Backup(made.folder, {**made.manifest, **facts})
    durable.write_file(made.folder / "manifest.json", document(amended.manifest))
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
        return load(Path(asked))
    missing = f"file {asked}, and no backup of that name" if or_file and asked != "latest" else f"backup '{asked}'"
    there = ", ".join(backup.id for backup in own[-_LISTED:]) or "none"
    older = f" and {len(own) - _LISTED} older" if len(own) > _LISTED else ""
    raise DumpError(f"There is no {missing}. In {folder}: {there}{older}.", hint="List them: docker chap backups")


def passed_over(asked: str, found: Backup, folder: Path, origin: Origin) -> list[str]:
    """Return a note on each newer backup of a stack that `latest` does not mean; none where one was named."""
    newer = [one for one in list_backups(folder, origin) if one.id > found.id] if asked == "latest" else []
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
        if dump_file.sha256_of(backup.dump) == backup.manifest["dump"]["sha256"]:
            return f"Its dump of CHAP's database is whole. To restore that alone: docker chap restore {file}"
    return ""


def missed_tables(manifest: Mapping[str, Any], earlier: Sequence[Backup]) -> dict[str, list[str]]:
    """Return `lost_tables` and `absent_tables` of a new backup, which was made after the `earlier` ones.

    Lost is what the catalog has lost, and what the last good backup had while CHAP's code still wants it, or cannot
    be asked. Absent is what only one of the two misses: a new version drops tables, a failed migration makes none.
    """
    # After a rollback the newest backups are of a newer CHAP, which had tables of its own.
    good = [one for one in earlier if one.proof.how != BAD and not _newer(one.manifest, manifest)]
    had = {table for one in good[-1:] for table in (*one.tables, *one.lost_tables)} - set(manifest["tables"])
    schema = manifest["chap"]["schema"]
    wanted = {f"public.{name}" for name in schema["missing_tables"]} if schema else had
    lost = set(manifest["lost_tables"]) | (had & wanted)
    return {"lost_tables": sorted(lost), "absent_tables": sorted((had | wanted) - lost)}


def _newer(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a backup is of a newer release of CHAP than another."""
    keys = [release_key(str(manifest["chap"]["version"] or "")) for manifest in (one, other)]
    return bool(keys[0] and keys[1] and keys[0] > keys[1])


def judge(backup: Backup, at: datetime, how: str, why: str = "") -> None:
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
            (backup.folder / PROOF_FILE).unlink()
        return
    else:
        word = {"at": at.isoformat(), "how": how}
    durable.write_file(backup.folder / PROOF_FILE, (json.dumps(word) + "\n").encode())


def pin(backup: Backup, pinned: bool) -> None:
    """Keep a backup whatever retention says, or no longer."""
    if pinned:
        durable.write_file(backup.folder / PIN_FILE, b"")
    else:
        (backup.folder / PIN_FILE).unlink(missing_ok=True)
        durable.sync_folder(backup.folder)


def remove_abandoned(folder: Path) -> None:
    """Remove what backups that were killed left below a folder, and nothing that one is working on."""
    for partial in folder.glob(f"*{PARTIAL}"):
        if partial.is_dir() and lock.abandoned(partial):
            shutil.rmtree(partial, ignore_errors=True)


def document(manifest: Mapping[str, Any]) -> bytes:
    """Return a manifest as its file has it."""
    return (json.dumps(manifest, indent=1) + "\n").encode()
