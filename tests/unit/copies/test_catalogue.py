"""What snapshots mean: which are a copy, which were cut off, and which copy is meant."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone

import pytest

from compose_chap.copies import catalogue
from compose_chap.copies.answers import StoredSnapshot
from compose_chap.copies.catalogue import CopyListing
from compose_chap.errors import CopyError
from compose_chap.model import Origin

NOW = datetime(2026, 11, 28, 4, tzinfo=timezone.utc)
NORTH = Origin("chap", "engine-1", "north")
SOUTH = Origin("chap", "engine-2", "south")


def pair(backup: str, origin: Origin = NORTH, order: datetime = NOW, digits: int = 64) -> list[StoredSnapshot]:
    """Return the two snapshots of a copy; the second names the first by some digits of its id."""
    tags = {"backup": backup, "order": order.isoformat(), **origin.to_json()}
    sql = hashlib.sha256(f"{backup}{origin}{origin.engine}".encode()).hexdigest()
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
    "tags",
    [
        *({"backup": text} for text in ("../../etc", "", "2026112T010000Z", "٢٠٢٦١١٢٧T010000Z", "20261399T010000Z")),
        *({"backup": text} for text in ("99991231T235959Z", "00010101T000000Z", "19700101T000000Z")),
        *({"order": text} for text in ("9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+00:00")),
        *({"order": text} for text in ("soon", "2026-11-28", "2026-11-28T01:00:00")),
        *({"size": text} for text in ("many", "²", "-1", "9" * 5000)),
        {"sha256": ""},
        {"sql": ""},
    ],
)
def test_tags_of_somebody_else_are_no_copy(tags: dict[str, str]) -> None:
    first, last = pair("20261127T010000Z")
    changed = [StoredSnapshot(item.id, NOW, {**item.tags, **tags}) for item in (first, last)]
    assert listing(changed, pair("20261128T010000Z")).copies == listing(pair("20261128T010000Z")).copies


@pytest.mark.parametrize("other", [pair("20261126T010000Z"), pair("20261127T010000Z", SOUTH)])
def test_a_copy_has_no_sql_of_another(other: list[StoredSnapshot]) -> None:
    first, last = pair("20261127T010000Z")
    stolen = StoredSnapshot(last.id, NOW, {**last.tags, "sql": other[0].id})
    assert listing([first, stolen], other).copies == listing(other).copies


def test_what_a_person_keeps_under_the_same_tag_is_nobodys_copy() -> None:
    by_hand = StoredSnapshot("ab" * 32, NOW - timedelta(days=9), {"docker-chap": ""})
    assert listing([by_hand]).of(NORTH).abandoned(NOW) == []


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
    assert catalogue.find("latest", listing(pair("20261127T010000Z")), Origin()).id == "20261127T010000Z"
    several = listing(pair("20261127T010000Z"), pair("20261128T010000Z", SOUTH))
    with pytest.raises(CopyError, match="several stacks: 'chap' on north, 'chap' on south"):
        catalogue.find("latest", several, new)
    assert catalogue.find("latest", several, NORTH).id == "20261127T010000Z"
    assert catalogue.find("20261128t01", several, new).origin == SOUTH


def test_another_project_in_the_same_repository_is_never_meant_by_latest() -> None:
    test = Origin("chap-test", "engine-1", "north")
    both = listing(pair("20261127T010000Z"), pair("20261128T010000Z", test))
    assert catalogue.find("latest", both, NORTH).origin == NORTH and both.of(NORTH).copies[0].origin == NORTH
    with pytest.raises(CopyError, match="no copies of 'chap-test', only of 'chap' on north") as caught:
        catalogue.find("latest", listing(pair("20261127T010000Z")), test)
    assert "20261127T010000Z" in caught.value.hint
    assert catalogue.find("20261127", listing(pair("20261127T010000Z")), test).origin == NORTH, "by its id it is"


def test_of_two_backups_of_the_same_second_the_stacks_own_is_meant() -> None:
    test = Origin("chap-test", "engine-1", "north")
    both = listing(pair("20261127T010000Z"), pair("20261127T010000Z", test))
    assert catalogue.find("20261127T010000Z", both, test).origin == test
    with pytest.raises(CopyError, match="several copies, of 'chap' on north, 'chap-test' on north"):
        catalogue.find("20261127T010000Z", both, Origin("other", "engine-1"))


def test_a_machine_that_got_another_name_keeps_its_copies() -> None:
    renamed = Origin("chap", "engine-1", "north-2")
    both = listing(pair("20261127T010000Z"), pair("20261128T010000Z", renamed, NOW + timedelta(days=1)))
    for stack in (renamed, NORTH, Origin("chap", "engine-9"), Origin()):
        assert catalogue.find("latest", both, stack).id == "20261128T010000Z"


def test_what_is_not_clear_is_refused_with_the_newest() -> None:
    several = listing(*(pair(f"2026112{day}T010000Z", order=NOW + timedelta(days=day)) for day in range(8)))
    for wanted in ("1999", "", "x"):
        with pytest.raises(CopyError, match="20261127T010000Z, 20261126T010000Z"):
            catalogue.find(wanted, several, NORTH)
    with pytest.raises(CopyError, match="several copies"):
        catalogue.find("2026", several, NORTH)
    with pytest.raises(CopyError, match="holds no copies"):
        catalogue.find("latest", listing(), NORTH)
