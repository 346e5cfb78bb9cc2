"""The forecast of an upgrade's downtime, held against what was measured: 4.8 GiB on a disk that copies 450 MB/s."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from compose_chap.records.downtime import forecast

LARGE, SMALL = 5_154_000_000, 15 << 20
BEGUN = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)


def upgrade(
    downtime: float, keeping: float, size: int | None = LARGE, kept_dump: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return the record of an upgrade that took `keeping` seconds to keep the old data; old records have no `size`."""
    moments = (("stop", 0.0), ("keep", 3.0), ("start api", 3.0 + keeping), ("finish", 60.0))
    steps = [{"step": step, "at": (BEGUN + timedelta(seconds=at)).isoformat()} for step, at in moments]
    facts = {"kept_dump": kept_dump} if kept_dump else {}
    run = {"operation": "upgrade", "downtime": downtime, "facts": facts, "steps": steps, **more}
    return run if size is None else {**run, "database_bytes": size}


def test_the_first_upgrade_of_a_large_database_goes_by_the_speed_of_the_disk() -> None:
    # It took 14.5 s. A short copy went at 1000 MB/s.
    assert forecast(LARGE, [], 0.4, lambda: 1000e6).downtime == pytest.approx(14.5, rel=0.25)
    assert forecast(LARGE, [], 0.4, lambda: 0.0).downtime == pytest.approx(27.9, abs=0.1)  # it cannot be measured


def test_the_first_upgrade_of_a_small_database_goes_by_the_start_of_the_api() -> None:
    # The real CHAP with 15 MiB was down for 5.3 s; importing its models took a processor 1.85 s.
    assert forecast(SMALL, [], 2 * 1.85).downtime == pytest.approx(5.3, rel=0.25)


def test_a_small_database_or_a_known_copy_is_not_measured() -> None:
    def measure() -> float:
        raise AssertionError("it was measured")

    assert forecast(SMALL, [], 5.0, measure).downtime == pytest.approx(6.8, abs=0.1)
    assert forecast(LARGE, [upgrade(14.5, 11.9)], 5.0, measure).downtime == pytest.approx(14.5)
    assert forecast(LARGE, [], 5.0, measure, by_dump=True).preserving == pytest.approx(LARGE / 40e6)


def test_later_upgrades_go_by_the_rate_of_the_earlier_copy_and_the_rest() -> None:
    runs = [upgrade(14.5, 11.9)]
    later = forecast(10 * LARGE, runs)
    assert later.rest == pytest.approx(2.6) and later.preserving == pytest.approx(117.2)
    # What was pruned is not copied, and a small copy tells nothing about the disk.
    assert forecast(SMALL, runs).downtime == pytest.approx(2.8, abs=0.1)
    assert forecast(LARGE, [upgrade(5.3, 0.3, SMALL)], measure=lambda: 900e6).preserving == pytest.approx(
        11.65, abs=0.1
    )


def test_an_odd_upgrade_spoils_nothing() -> None:
    usual, busy = upgrade(14.5, 11.9), upgrade(90.0, 60.0)
    assert forecast(LARGE, [usual, busy, usual]).downtime == pytest.approx(14.5)
    # But what the server was like long ago does not count.
    slow = upgrade(60.0, 50.0)
    assert forecast(LARGE, [slow, slow, slow, usual, usual]).downtime == pytest.approx(14.5)


def test_records_that_know_less_are_read() -> None:
    of_old = [upgrade(14.5, 11.9, None)]
    assert forecast(LARGE, of_old, measure=lambda: 900e6).rest == pytest.approx(2.6)
    assert forecast(LARGE, of_old, measure=lambda: 900e6).preserving == pytest.approx(11.65, abs=0.1)
    # A dump says nothing about copying, and neither does what never came to keeping.
    assert forecast(LARGE, [upgrade(130.0, 120.0, kept_dump="/b/1")]).preserving == pytest.approx(26, abs=0.1)
    assert forecast(SMALL, [{**upgrade(7.5, 0.0), "steps": []}]).rest == 7.5
    others = [{**upgrade(3.0, 0.1), "operation": "restore"}, {**upgrade(0, 0.1), "downtime": None}]
    assert forecast(SMALL, others, 5.0).rest == 6.5


def test_a_start_that_was_seen_says_more_than_those_of_other_versions() -> None:
    seen = forecast(LARGE, [upgrade(14.5, 11.9)], 8.0, rehearsed=True)
    assert seen.rest == 9.5 and seen.preserving == pytest.approx(11.9)
