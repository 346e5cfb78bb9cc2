"""What snapshots mean: which are a copy, which were cut off, and which copy is meant."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from compose_chap.copies import catalogue
from compose_chap.copies.catalogue import CopyListing
from compose_chap.copies.restic import StoredSnapshot
from compose_chap.errors import CopyError
from compose_chap.model import Origin

NOW = datetime(2026, 11, 28, 4, tzinfo=timezone.utc)
NORTH = Origin("chap", "engine-1", "north")
SOUTH = Origin("chap", "engine-2", "south")


def pair(backup: str, origin: Origin = NORTH, order: datetime = NOW, digits: int = 64) -> list[StoredSnapshot]:
    """Return the two snapshots of a copy; the second names the first by some digits of its id."""
    tags = {"backup": backup, "order": order.isoformat(), **origin.to_json()}
    sql = f"{backup}{origin.engine}".encode().hex().ljust(64, "0")
    last = {**tags, "sql": sql[:digits], "size": "70", "sha256": "ab"}
    return [StoredSnapshot(sql, NOW, tags), StoredSnapshot(sql[::-1], NOW, last)]


def listing(*pairs: list[StoredSnapshot]) -> CopyListing:
    return catalogue.sort([snapshot for snapshots in pairs for snapshot in snapshots])


def test_a_copy_is_two_snapshots_also_where_the_id_is_short() -> None:
    for digits in (8, 64):
        only = listing(pair("20261127T010000Z", digits=digits))
        assert [copy.id for copy in only.copies] == ["20261127T010000Z"] and not only.incomplete
    copy = only.copies[0]
    assert (copy.origin, copy.sql_size, copy.sql_sha256) == (NORTH, 70, "ab")


def test_a_copy_that_was_cut_off_does_not_count() -> None:
    first, last = pair("20261127T010000Z")
    assert listing([first]).copies == [] and listing([first]).incomplete == [first]
    assert listing([last]).copies == []


@pytest.mark.parametrize(
    "tags", [{"backup": "../../etc"}, {"backup": ""}, {"order": "soon"}, {"size": "many"}, {"sha256": ""}, {"sql": ""}]
)
def test_tags_of_somebody_else_are_no_copy(tags: dict[str, str]) -> None:
    first, last = pair("20261127T010000Z")
    assert listing([first, StoredSnapshot(last.id, NOW, {**last.tags, **tags})]).copies == []


def test_what_was_cut_off_is_abandoned_after_a_day() -> None:
    first, _ = pair("20261127T010000Z")
    assert listing([first]).abandoned(NOW + timedelta(hours=23)) == []
    assert listing([first]).abandoned(NOW + timedelta(hours=25)) == [first.id]


def test_the_latest_is_by_the_order_they_were_made_in() -> None:
    ahead = pair("20991231T010000Z", order=NOW - timedelta(days=1))
    both = listing(pair("20261128T010000Z"), ahead)
    assert catalogue.find("latest", both, NORTH).id == "20261128T010000Z"
    assert catalogue.find("2099", both, NORTH).id == "20991231T010000Z"


def test_on_a_new_machine_the_copies_of_the_project_are_meant() -> None:
    new = Origin("chap", "engine-9", "new")
    assert catalogue.find("latest", listing(pair("20261127T010000Z")), new).id == "20261127T010000Z"
    assert catalogue.find("latest", listing(pair("20261127T010000Z")), Origin("other")).id == "20261127T010000Z"
    several = listing(pair("20261127T010000Z"), pair("20261128T010000Z", SOUTH))
    with pytest.raises(CopyError, match="several stacks: 'chap' on north, 'chap' on south"):
        catalogue.find("latest", several, new)
    assert catalogue.find("latest", several, NORTH).id == "20261127T010000Z"
    assert catalogue.find("20261128t01", several, new).origin == SOUTH


def test_what_is_not_clear_is_refused_with_the_newest() -> None:
    several = listing(*(pair(f"2026112{day}T010000Z", order=NOW + timedelta(days=day)) for day in range(8)))
    for wanted in ("1999", "", "x"):
        with pytest.raises(CopyError, match="20261127T010000Z, 20261126T010000Z"):
            catalogue.find(wanted, several, NORTH)
    with pytest.raises(CopyError, match="several copies"):
        catalogue.find("2026", several, NORTH)
    with pytest.raises(CopyError, match="holds no copies"):
        catalogue.find("latest", listing(), NORTH)
