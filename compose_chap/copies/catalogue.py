"""Which copies a repository holds, and which of them an operator means.

A copy is two snapshots. The first holds the dump as SQL, unpacked, because that is what deduplicates: of a packed dump
nothing looks like the night before. The second, made when the first is complete, holds everything else of the backup,
and its tags name the first. So a copy that was cut off has no second snapshot, and does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from compose_chap.backups.catalogue import Backup
from compose_chap.copies.restic import Restic, StoredSnapshot
from compose_chap.errors import CopyError
from compose_chap.model import Origin

TAG = "docker-chap"
SQL_FILE = "dump.sql"
_LISTED = 5
_FORMAT = "%Y%m%dT%H%M%SZ"


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
        return datetime.strptime(self.id, _FORMAT).replace(tzinfo=timezone.utc)


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
        [snapshot for snapshot in snapshots if snapshot.id not in used],
    )


def find(wanted: str, listing: CopyListing, origin: Origin) -> Copy:
    """Return the copy that `latest` of a stack or an id, or its unique beginning, means.

    On a new machine the stack's engine is another. Then the copies of the same project are meant, or all that there
    are, as long as they are of one stack. Raise CopyError when it is not clear which is meant.
    """
    for wider in (origin, Origin(origin.project), Origin()):
        if copies := listing.of(wider).copies:
            break
    else:
        raise CopyError("The repository holds no copies.", hint="Make one: docker chap copy --to REPOSITORY")
    if wanted == "latest":
        stacks = {copy.origin for copy in copies}
        if len(stacks) > 1:
            raise CopyError(
                f"The repository holds copies of several stacks: {', '.join(sorted(map(str, stacks)))}.",
                hint="Name the copy by its id. To list them: docker chap copies --from REPOSITORY",
            )
        return copies[-1]
    fitting = [copy for copy in listing.copies if copy.id.startswith(wanted.upper())] if wanted else []
    if len(fitting) != 1:
        newest = ", ".join(copy.id for copy in reversed(copies[-_LISTED:]))
        problem = "means several copies" if fitting else "is not in the repository"
        raise CopyError(
            f"'{wanted}' {problem}. The newest copies: {newest}.",
            hint="List them: docker chap copies --from REPOSITORY",
        )
    return fitting[0]


def _copy(snapshot: StoredSnapshot, snapshots: Sequence[StoredSnapshot]) -> Copy | None:
    tags = snapshot.tags
    # Older versions of restic give only the first digits of an id that was just made.
    sql = [other.id for other in snapshots if tags.get("sql") and other.id.startswith(tags["sql"])]
    if len(sql) != 1 or not tags.get("size", "").isdigit() or not tags.get("sha256"):
        return None
    try:
        order = datetime.fromisoformat(tags.get("order", ""))
        datetime.strptime(tags.get("backup", ""), _FORMAT)
    except ValueError:
        return None
    return Copy(tags["backup"], _origin(snapshot), order, snapshot.id, sql[0], int(tags["size"]), tags["sha256"])


def _origin(snapshot: StoredSnapshot) -> Origin:
    tags: Mapping[str, str] = snapshot.tags
    return Origin(tags.get("project", ""), tags.get("engine", ""), tags.get("server", ""))
