"""Retention of copies in another place, by the same rule as for backups."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from compose_chap.copies.catalogue import Copy, CopyListing
from compose_chap.records import order
from compose_chap.records.retention import Retention, kept_by_rule


@dataclass(frozen=True)
class CopyPrunePlan:
    """The copies that would be removed, snapshots of copies that were cut off, and why each other copy stays."""

    copies: tuple[Copy, ...]
    incomplete: tuple[str, ...]
    kept: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not (self.copies or self.incomplete)

    @property
    def snapshots(self) -> list[str]:
        """The ids of all snapshots that would go: of a copy first that which makes it count."""
        pairs = [identity for copy in self.copies for identity in (copy.snapshot, copy.sql_snapshot)]
        return [*pairs, *self.incomplete]


def plan(listing: CopyListing, retention: Retention, pinned: Collection[str], now: datetime) -> CopyPrunePlan:
    """Return the plan for the copies of a stack. Copies of backups that are pinned on this machine stay."""
    dated = {copy.id: copy.created_at for copy in listing.copies}
    kept = kept_by_rule(dated, retention)
    kept |= {identity: "pinned" for identity in dated if identity in pinned}
    return CopyPrunePlan(
        tuple(copy for copy in listing.copies if copy.id not in kept),
        tuple(listing.abandoned(now)),
        {identity: kept[identity] for identity in dated if identity in kept},
        tuple(order.warnings("Copy", dated, now)),
    )
