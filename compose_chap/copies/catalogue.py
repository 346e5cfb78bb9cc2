"""Which copies a repository holds, and which one an operator means.

A copy is two snapshots. The first holds the dump as SQL, unpacked, because that is what deduplicates: of a packed dump
nothing looks like the night before. The second, made when the first is complete, holds everything else of the backup,
and says in its tags which the first is. So a copy whose second snapshot is missing was cut off, and is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from compose_chap.copies.restic import Restic, Snapshot
from compose_chap.errors import CopyError
from compose_chap.model import Origin

TAG = "docker-chap"
SQL_FILE = "dump.sql"
_LISTED = 5


@dataclass(frozen=True)
class Copy:
    """A complete copy: the backup's id and stack, its two snapshots, and size (bytes) and SHA-256 of the SQL."""

    id: str
    origin: Origin
    snapshot: str
    sql_snapshot: str
    sql_size: int
    sql_sha256: str

    @property
    def created_at(self) -> datetime:
        """When its backup was begun, which is what its id says."""
        return datetime.strptime(self.id, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)

    @property
    def tags(self) -> list[str]:
        """The tags of its second snapshot."""
        return [
            *first_tags(self.id, self.origin),
            f"sql={self.sql_snapshot}",
            f"size={self.sql_size}",
            f"sha256={self.sql_sha256}",
        ]


@dataclass(frozen=True)
class Listing:
    """The copies of a stack, oldest first, and the snapshots of copies that were cut off."""

    copies: list[Copy]
    incomplete: list[str]


def first_tags(backup: str, origin: Origin) -> list[str]:
    """Return the tags of a copy's first snapshot."""
    return [TAG, f"backup={backup}", f"project={origin.project}", f"engine={origin.engine}"]


def look(restic: Restic, origin: Origin = Origin()) -> Listing:
    """Return the copies of a stack, or of all."""
    snapshots = [snapshot for snapshot in restic.snapshots(TAG) if origin.owns(_origin(snapshot))]
    complete = {copy.id: copy for copy in map(_copy, snapshots) if copy}
    used = {id for copy in complete.values() for id in (copy.snapshot, copy.sql_snapshot)}
    incomplete = [snapshot.id for snapshot in snapshots if snapshot.id not in used]
    return Listing(sorted(complete.values(), key=lambda copy: copy.id), incomplete)


def find(asked: str, copies: Sequence[Copy]) -> Copy:
    """Return the copy that `latest` or an id, or its unique beginning, means. Raise CopyError when it means none."""
    if not copies:
        raise CopyError("The repository holds no copy of this stack.", hint="Make one: docker chap copy")
    if asked == "latest":
        return copies[-1]
    fitting = [copy for copy in copies if copy.id.startswith(asked)]
    if len(fitting) != 1:
        newest = ", ".join(copy.id for copy in reversed(copies[-_LISTED:]))
        problem = "means several copies" if fitting else "is not in the repository"
        raise CopyError(f"{asked} {problem}. The newest copies: {newest}.", hint="List them: docker chap copies")
    return fitting[0]


def _copy(snapshot: Snapshot) -> Copy | None:
    tags = snapshot.tags
    if not tags.get("sql") or not tags.get("size", "").isdigit():
        return None
    return Copy(
        tags.get("backup", ""), _origin(snapshot), snapshot.id, tags["sql"], int(tags["size"]), tags.get("sha256", "")
    )


def _origin(snapshot: Snapshot) -> Origin:
    return Origin(snapshot.tags.get("project", ""), snapshot.tags.get("engine", ""))
