"""Which copies a repository holds, and which of them an operator means.

A copy is two snapshots. The first holds the dump as SQL, unpacked, because that is what deduplicates: of a packed dump
nothing looks like the night before. The second, made when the first is complete, holds everything else of the backup,
and its tags name the first. So a copy that was cut off has no second snapshot, and does not count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from compose_chap.backups.catalogue import Backup
from compose_chap.copies.answers import StoredSnapshot
from compose_chap.copies.repository import Named, unnamed
from compose_chap.copies.restic import Restic
from compose_chap.errors import CopyError
from compose_chap.model import Origin
from compose_chap.records.run_records import run_began

TAG = "docker-chap"
SQL_FILE = "dump.sql"
_LISTED = 5
_ID = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_YEARS = range(1971, 9000)
_SIZE = re.compile(r"\d{1,18}", re.ASCII)
# The tags that both snapshots of a copy have.
_SHARED = ("backup", "order", "project", "engine")


@dataclass(frozen=True)
class Copy:
    """A complete copy: the backup's id and stack, its two snapshots, and size (bytes) and SHA-256 of the SQL.

    `order` is later than that of every earlier backup, whatever the clock said.
    """

    id: str
    origin: Origin
    order: datetime
    snapshot: str
    sql_snapshot: str
    sql_size: int
    sql_sha256: str

    @property
    def created_at(self) -> datetime:
        """When its backup was begun, which is what its id says."""
        return run_began(self.id)


@dataclass(frozen=True)
class CopyListing:
    """The copies in a repository, oldest first, and the snapshots of copies that were cut off."""

    copies: list[Copy]
    incomplete: list[StoredSnapshot]

    def of(self, origin: Origin) -> CopyListing:
        """Return those of a stack."""
        return CopyListing(
            [copy for copy in self.copies if origin.owns(copy.origin)],
            [snapshot for snapshot in self.incomplete if origin.owns(_origin(snapshot))],
        )

    def abandoned(self, now: datetime) -> list[str]:
        """Return the ids of incomplete snapshots that no run can be working on any more."""
        return [snapshot.id for snapshot in self.incomplete if now - snapshot.at > timedelta(days=1)]


def first_tags(backup: Backup) -> list[str]:
    """Return the tags of a copy's first snapshot."""
    return [TAG, "part=sql", *_common_tags(backup)]


def last_tags(backup: Backup, sql_snapshot: str, size: int, sha256: str) -> list[str]:
    """Return the tags of a copy's second snapshot."""
    return [TAG, "part=files", *_common_tags(backup), f"sql={sql_snapshot}", f"size={size}", f"sha256={sha256}"]


def _common_tags(backup: Backup) -> list[str]:
    origin = backup.origin
    return [
        f"backup={backup.id}",
        f"order={backup.order.isoformat()}",
        f"project={origin.project}",
        f"engine={origin.engine}",
        f"server={origin.server}",
    ]


def scan(restic: Restic) -> CopyListing:
    """Return the copies in a repository, of all stacks."""
    return sort(restic.snapshots(TAG))


def sort(snapshots: Sequence[StoredSnapshot]) -> CopyListing:
    """Return the copies that snapshots make."""
    complete: dict[tuple[str, Origin], Copy] = {}
    for snapshot in snapshots:
        if copy := _copy(snapshot, snapshots):
            # Two machines may have sent the same backup at the same time. Either copy is good; the other goes.
            complete.setdefault((copy.id, copy.origin), copy)
    used = {identity for copy in complete.values() for identity in (copy.snapshot, copy.sql_snapshot)}
    return CopyListing(
        sorted(complete.values(), key=lambda copy: (copy.order, copy.id)),
        [snapshot for snapshot in snapshots if snapshot.id not in used and _is_part(snapshot)],
    )


def find(wanted: str, listing: CopyListing, origin: Origin, named: Named = unnamed) -> Copy:
    """Return the copy that `latest` of a stack or an id, or its unique beginning, means.

    On a new machine the stack's engine is another. Then the copies of the same project are meant, as long as they are
    of one stack. `named` returns the options that name the repository in a command. Raise CopyError when it is not
    clear which is meant.
    """
    copies = meant(listing, origin).copies
    if not copies:
        raise CopyError("The repository holds no copies.", hint=f"Make one: docker chap copy {named('--to')}")
    if wanted == "latest":
        return _latest(copies, origin, named)
    # Two stacks may have made a backup in the same second: then one's own is meant.
    for candidates in (copies, listing.copies):
        fitting = [copy for copy in candidates if copy.id.startswith(wanted.upper())] if wanted else []
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            break
    newest = ", ".join(copy.id for copy in reversed(copies[-_LISTED:]))
    problem = f"means several copies, of {_stacks(fitting)}" if fitting else "is not in the repository"
    raise CopyError(
        f"'{wanted}' {problem}. The newest copies: {newest}.",
        hint=f"List them: docker chap copies {named('--from')}",
    )


def meant(listing: CopyListing, origin: Origin) -> CopyListing:
    """Return the copies of a stack; where it has none, those of its project from other machines, else all."""
    wider = (listing.of(stack) for stack in (origin, Origin(origin.project)))
    return next((fitting for fitting in wider if fitting.copies), listing)


def _latest(copies: Sequence[Copy], origin: Origin, named: Named) -> Copy:
    """Return the last of the copies that are meant. Raise CopyError unless they are of this stack, or of one alone.

    The data of another project are restored only by an id.
    """
    newest = copies[-1]
    if origin.owns(newest.origin) and origin.engine:
        return newest
    # By its engine: that keeps its number when its machine gets another name.
    if len({(copy.origin.project, copy.origin.engine) for copy in copies}) > 1:
        raise CopyError(
            f"The repository holds copies of several stacks: {_stacks(copies)}.",
            hint=f"Name the copy by its id. To list them: docker chap copies {named('--from')}",
        )
    if not Origin(origin.project).owns(newest.origin):
        raise CopyError(
            f"The repository holds no copies of '{origin.project}', only of {newest.origin}.",
            hint=f"To take the newest of these anyway, name it in place of latest: {newest.id}",
        )
    return newest


def _stacks(copies: Sequence[Copy]) -> str:
    return ", ".join(sorted({str(copy.origin) for copy in copies}))


def _copy(snapshot: StoredSnapshot, snapshots: Sequence[StoredSnapshot]) -> Copy | None:
    tags = snapshot.tags
    # Older versions of restic give only the first digits of an id that was just made.
    sql = [other for other in snapshots if tags.get("sql") and other.id.startswith(tags["sql"])]
    # Of another backup, pruning the one would remove the other's.
    if len(sql) != 1 or any(sql[0].tags.get(name) != tags.get(name) for name in _SHARED):
        return None
    if not (_ID.fullmatch(tags.get("backup", "")) and _SIZE.fullmatch(tags.get("size", "")) and tags.get("sha256")):
        return None
    try:
        order = datetime.fromisoformat(tags.get("order", ""))
        created = run_began(tags["backup"])
    except ValueError:
        return None
    # Whoever may write to the repository chose them: what no clock here can count with is no backup of this tool.
    if order.tzinfo is None or not all(moment.year in _YEARS for moment in (order, created)):
        return None
    return Copy(tags["backup"], _origin(snapshot), order, snapshot.id, sql[0].id, int(tags["size"]), tags["sha256"])


def _is_part(snapshot: StoredSnapshot) -> bool:
    """Whether a snapshot was made for a copy, and not by a person who used the same tag."""
    return all(snapshot.tags.get(name) for name in ("backup", "project"))


def _origin(snapshot: StoredSnapshot) -> Origin:
    tags: Mapping[str, str] = snapshot.tags
    return Origin(tags.get("project", ""), tags.get("engine", ""), tags.get("server", ""))
