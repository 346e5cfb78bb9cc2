"""Copies in another place, as people and scripts are shown them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from compose_chap import units
from compose_chap.cli.screen.layout import paragraph, table
from compose_chap.copies.catalogue import Copy, CopyListing
from compose_chap.copies.send import SentCopy
from compose_chap.operations.prune_copies import CopyPrunePlan

# The password of a repository that was just made is the only way into it.
ON_SAME_DISK = (
    "The repository is on the same disk as the stack. If that disk fails, both are lost: keep copies on another server"
    " or on a USB disk."
)
NEW_REPOSITORY = "The repository is new. Without its password nobody can read it: keep the password somewhere else too."


def sent(copy: SentCopy, repository: str) -> str:
    """Say what was sent."""
    if copy.existed:
        return f"Backup {copy.copy.id} is already copied to {repository}."
    return f"Backup {copy.copy.id} is copied to {repository}. {units.size(copy.added)} were sent."


def intact(identity: str, repository: str, rows: str) -> str:
    """Say that a copy was restored as a test."""
    return f"The copy of {identity} in {repository} is intact: a test restore gave {rows}, exactly what was backed up."


def checked(percent: int) -> str:
    """Say that a part of a repository was read back."""
    return f"The repository is intact: {percent}% of its data were read back."


def listing_text(listing: CopyListing, repository: str, now: datetime, others: int = 0) -> str:
    """Return a line for each copy; of which stack it is only where that is not the same for all.

    `others` is the number of the copies of other stacks, which are not listed.
    """
    mixed = len({copy.origin for copy in listing.copies}) > 1
    rows = [
        [
            copy.id,
            units.short_age(copy.created_at, now),
            units.size(copy.sql_size),
            str(copy.origin) if mixed else "",
        ]
        for copy in listing.copies
    ]
    text = table(rows, ["COPY", "AGE", "AS SQL", "STACK"]) if rows else f"No copies in {repository}."
    if count := len(listing.incomplete):
        text += "\n\n" + paragraph(
            f"Not counted: the data of {count} unfinished copies."
            if count > 1
            else "Not counted: the data of an unfinished copy."
        )
    if others:
        text += "\n\n" + paragraph(f"Not listed: {copies(others)} of other stacks.")
    return text


def copies(count: int) -> str:
    """Return a number of copies: `1 copy`, `2 copies`."""
    return f"{count} {'copy' if count == 1 else 'copies'}"


def prune_text(chosen: CopyPrunePlan) -> str:
    """Return what would go, and what stays and why."""
    going = [["copy", copy.id, "no rule keeps it"] for copy in chosen.copies]
    going += [["snapshot", identity[:8], "its copy was cut off"] for identity in chosen.incomplete]
    staying = [["copy", identity, why] for identity, why in chosen.kept.items()]
    parts = [f"Would be removed\n{table(going)}" if going else "Nothing to remove."]
    parts += [f"Kept\n{table(staying)}"] if staying else []
    return "\n\n".join(parts)


def copy_document(copy: Copy) -> dict[str, Any]:
    """Return a copy for scripts."""
    return {
        "id": copy.id,
        "stack": copy.origin.to_json(),
        "created_at": copy.created_at.isoformat(),
        "snapshot": copy.snapshot,
        "sql_snapshot": copy.sql_snapshot,
        "size": copy.sql_size,
        "sha256": copy.sql_sha256,
    }


def append_only(location: str) -> str:
    """Say that old copies stay where this machine may remove nothing."""
    return (
        f"Old copies in {location} could not be removed: it is append-only. Remove them on that server, with restic"
        " forget."
    )
