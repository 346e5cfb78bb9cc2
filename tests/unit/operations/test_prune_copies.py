"""Retention of copies, pure: the rule is that of backups."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from compose_chap.copies.answers import StoredSnapshot
from compose_chap.copies.catalogue import Copy, CopyListing
from compose_chap.model import Origin
from compose_chap.operations import prune_copies
from compose_chap.records.retention import Retention

NOW = datetime(2026, 11, 28, 4, tzinfo=timezone.utc)
LAST_TWO = Retention(2, 0, 0, 0)


def copies(days: int) -> list[Copy]:
    dates = [NOW - timedelta(days=day) for day in reversed(range(days))]
    return [
        Copy(when.strftime("%Y%m%dT%H%M%SZ"), Origin("p"), when, f"last{at}", f"sql{at}", 1, "a")
        for at, when in enumerate(dates)
    ]


def test_the_rule_keeps_and_both_snapshots_of_the_others_go() -> None:
    made = copies(4)
    chosen = prune_copies.plan(CopyListing(made, []), LAST_TWO, (), NOW)
    assert chosen.copies == tuple(made[:2]) and not chosen.empty
    assert chosen.snapshots == ["last0", "sql0", "last1", "sql1"]
    assert list(chosen.kept) == [copy.id for copy in made[2:]]


def test_a_copy_of_a_pinned_backup_stays() -> None:
    made = copies(4)
    chosen = prune_copies.plan(CopyListing(made, []), LAST_TWO, {made[0].id}, NOW)
    assert chosen.copies == (made[1],) and chosen.kept[made[0].id] == "pinned"


def test_what_was_cut_off_goes_when_nobody_works_on_it_any_more() -> None:
    old, new = StoredSnapshot("old", NOW - timedelta(days=2), {}), StoredSnapshot("new", NOW - timedelta(minutes=2), {})
    chosen = prune_copies.plan(CopyListing(copies(1), [old, new]), LAST_TWO, (), NOW)
    assert chosen.snapshots == ["old"] and not chosen.empty


def test_nothing_goes_from_an_empty_repository_and_a_clock_that_was_ahead_is_named() -> None:
    assert prune_copies.plan(CopyListing([], []), LAST_TWO, (), NOW).empty
    ahead = prune_copies.plan(CopyListing(copies(2), []), LAST_TWO, (), NOW - timedelta(days=9))
    assert ahead.empty and ahead.warnings
