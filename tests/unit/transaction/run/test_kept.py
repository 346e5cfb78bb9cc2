"""What runs keep: by its name alone, and only the names that a run gives."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from compose_chap.transaction.run import kept

RUN = "20260101T000000Z"
NOW = datetime(2026, 11, 23, tzinfo=timezone.utc)
LONG = "a_name_of_a_database_that_is_as_long_as_postgresql_allows_it_to"
WORDS = (kept.BEFORE, kept.AFTER, kept.INCOMING)


@pytest.mark.parametrize("live", ["chap_core", LONG, "chap_before_20260101t000000z", 'odd "name"'])
def test_a_run_knows_the_names_that_it_gives_and_that_are_of_its_own_database(live: str) -> None:
    for word in WORDS:
        name = kept.kept_name(live, word, RUN)
        assert len(kept.failed_name(name).encode()) <= 63
        for kept_name in (name, kept.failed_name(name)):
            assert kept.run_of(kept_name, live) == RUN and kept.kept_since(kept_name, live) == datetime(
                2026, 1, 1, tzinfo=timezone.utc
            )
            assert not kept.run_of(kept_name, "other")
    assert not kept.run_of(live, live)


@pytest.mark.parametrize(
    "name",
    [
        "chap_core_before_migration",
        "chap_core_after_20260101",
        "chap_core_incoming_mail",
        "chap_core_before_20260101t000000z_mine",
        "chap_core_before_20260101t000000z\n",
        "chap_core2_before_20260101t000000z",
        "before_20260101t000000z",
        "chap_core_before_20260101t000000z_side",
    ],
)
def test_a_name_that_a_person_made_up_is_nobodys_to_drop_and_not_called_kept(name: str) -> None:
    assert not kept.databases_of_runs([name], "chap_core") and not kept.kept_databases([name], "chap_core")
    assert not kept.droppable([name], "chap_core", [], timedelta(), NOW) and kept.kept_since(name, "chap_core") is None


def test_what_is_kept_may_go_when_it_is_old_and_no_run_needs_it() -> None:
    before, after, incoming = (kept.kept_name("chap_core", word, RUN) for word in WORDS)
    failed = kept.failed_name(before)
    names = ["chap_core", before, failed, after, incoming, "postgres"]
    assert kept.databases_of_runs(names, "chap_core") == [before, failed, after, incoming]
    assert kept.droppable(names, "chap_core", [], timedelta(days=7), NOW) == [before, failed, after]
    assert kept.droppable(names, "chap_core", [{"facts": {"kept": before}}], timedelta(), NOW) == [failed, after]
    assert not kept.droppable(names, "chap_core", [], timedelta(days=9999), NOW)
