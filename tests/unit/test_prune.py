"""Retention, pure: which backups stay, and why."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from compose_chap.backup import Backup
from compose_chap.prune import Retention, keep

NOW = datetime(2026, 11, 23, 4, tzinfo=timezone.utc)


def made(when: datetime) -> Backup:
    identity = when.strftime("%Y%m%dT%H%M%SZ")
    return Backup(Path("/b") / identity, {"id": identity, "created_at": when.isoformat()})


def daily(days: int) -> list[Backup]:
    return [made(NOW - timedelta(days=day)) for day in reversed(range(days))]


def test_the_last_ones_stay() -> None:
    backups = daily(10)
    kept = keep(backups, Retention(3, 0, 0, 0))
    assert list(kept) == [one.id for one in reversed(backups[-3:])]


def test_never_fewer_than_the_floor() -> None:
    assert len(keep(daily(10), Retention(0, 0, 0, 0, floor=2))) == 2
    assert keep([], Retention()) == {}


def test_the_newest_of_each_day_week_and_month_stays() -> None:
    backups = daily(400)
    twice = sorted([*backups, made(NOW - timedelta(hours=2))], key=lambda one: one.id)
    kept = keep(twice, Retention(1, 7, 4, 6))
    assert made(NOW - timedelta(hours=2)).id not in kept
    days = {identity[:8] for identity, why in kept.items() if why in ("one of the last", "newest of its day")}
    assert days == {(NOW - timedelta(days=day)).strftime("%Y%m%d") for day in range(7)}
    months = {identity[:6] for identity in kept}
    assert months == {"202606", "202607", "202608", "202609", "202610", "202611"}
    assert "20261031T040000Z" in kept


def test_a_gap_does_not_cost_a_backup() -> None:
    # Days without a backup do not count: an office that was closed for a month keeps its seven.
    backups = [made(NOW - timedelta(days=30 + day)) for day in reversed(range(7))]
    assert len(keep(backups, Retention(0, 7, 0, 0))) == 7


def test_more_backups_never_make_retention_keep_fewer_days() -> None:
    for count in range(1, 60):
        kept = keep(daily(count), Retention(1, 5, 0, 0))
        assert len(kept) == min(count, 5)
