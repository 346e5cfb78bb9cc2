"""What `schedule on` changes: only what is given, and only what is taken away."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from compose_chap.errors import UsageError
from compose_chap.schedule import amend
from compose_chap.schedule.amend import REMOVABLE, Given
from compose_chap.schedule.plan import CopyStore, Schedule

STORE = CopyStore("sftp:chap@north:/srv/chap", "/root/password", "/root/keys", 300)
BARE = Schedule("chap", "root", "cron", 1, 30, ("docker",), ("-p", "chap"), "/srv/chap")
FULL = replace(
    BARE,
    store=STORE,
    output="/mnt",
    metrics_file="/m.prom",
    ping="https://hc-ping.com/x",
    alarm_file="/srv/chap/.docker-chap/alarms.addresses",
    digest="weekly",
    with_dhis2=True,
    with_volumes=True,
    environment={"PATH": "/bin"},
)
# What is given, what of the schedule it replaces, and by what.
OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"at": (2, 10)}, {"hour": 2, "minute": 10}),
    ({"at": (0, 0)}, {"hour": 0, "minute": 0}),
    # The keys of one server are not for another.
    ({"repository": "/disk"}, {"store": replace(STORE, repository="/disk", keys_file="")}),
    ({"repository": "/disk", "keys_file": "/k"}, {"store": replace(STORE, repository="/disk", keys_file="/k")}),
    ({"repository": STORE.repository}, {}),
    ({"repository": ""}, {"store": replace(STORE, repository="")}),
    ({"password_file": "/p"}, {"store": replace(STORE, password_file="/p")}),
    ({"keys_file": "/k"}, {"store": replace(STORE, keys_file="/k")}),
    ({"limit_upload": 7}, {"store": replace(STORE, limit_upload=7)}),
    ({"limit_upload": 0}, {"store": replace(STORE, limit_upload=0)}),
    ({"output": "/other"}, {"output": "/other"}),
    ({"metrics_file": "/other"}, {"metrics_file": "/other"}),
    ({"ping": "https://other/x"}, {"ping": "https://other/x"}),
    ({"alarm_file": "/other"}, {"alarm_file": "/other"}),
    ({"digest": "weekly", "with_dhis2": True, "with_volumes": True}, {}),
]
WITHOUT: dict[str, dict[str, Any]] = {
    "copy-to": {"store": None},
    "keys": {"store": replace(STORE, keys_file="")},
    "limit-upload": {"store": replace(STORE, limit_upload=0)},
    "output": {"output": ""},
    "dhis2": {"with_dhis2": False},
    "volumes": {"with_volumes": False},
    "metrics-file": {"metrics_file": ""},
    "ping": {"ping": ""},
    "alarm": {"alarm_file": "", "digest": ""},
    "digest": {"digest": ""},
}


@pytest.mark.parametrize(("given", "replaced"), OPTIONS)
def test_an_option_replaces_its_own_setting_and_nothing_else(given: dict[str, Any], replaced: dict[str, Any]) -> None:
    assert amend.merged(FULL, Given(**given)) == replace(FULL, **replaced)


def test_every_option_is_tried() -> None:
    assert {name for given, _ in OPTIONS for name in given} == set(asdict(Given())) - {"without"}


@pytest.mark.parametrize("name", REMOVABLE)
def test_what_is_taken_away_takes_nothing_else_along(name: str) -> None:
    given = Given(without=frozenset({name}))
    assert amend.merged(FULL, given) == replace(FULL, **WITHOUT[name])
    assert amend.merged(BARE, given) == BARE


def test_a_setting_is_given_that_the_schedule_lacked() -> None:
    given = Given(
        at=(2, 10), repository="/disk", limit_upload=9, ping="https://x/y", alarm_file="/a", digest="weekly",
        with_dhis2=True,
    )  # fmt: skip
    assert amend.merged(BARE, given) == replace(
        BARE, hour=2, minute=10, store=CopyStore("/disk", "", "", 9), ping="https://x/y", alarm_file="/a",
        digest="weekly", with_dhis2=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "given", "message"),
    [
        (BARE, Given(limit_upload=5), "--copy-to"),
        (BARE, Given(digest="weekly"), "--alarm URL"),
        (FULL, Given(digest="weekly", without=frozenset({"alarm"})), "--alarm URL"),
        (FULL, Given(limit_upload=5, without=frozenset({"copy-to"})), "--copy-to"),
        (FULL, Given(repository="/x", without=frozenset({"copy-to"})), "--without copy-to"),
        (FULL, Given(password_file="/x", without=frozenset({"copy-to"})), "--without copy-to"),
        (FULL, Given(limit_upload=0, without=frozenset({"limit-upload"})), "--without limit-upload"),
        (FULL, Given(with_dhis2=True, without=frozenset({"dhis2"})), "--without dhis2"),
    ],
)
def test_what_contradicts_itself(schedule: Schedule, given: Given, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        amend.merged(schedule, given)
    assert message in raised.value.message + raised.value.hint


def test_what_was_changed_taken_away_and_kept() -> None:
    after = amend.merged(FULL, Given(at=(3, 0), without=frozenset({"ping", "keys"})))
    seen = amend.difference(FULL, after, ("json://a/x",), ("json://a/y",))
    assert seen.changed == ("at", "alarm") and seen.removed == ("keys", "ping")
    assert seen.kept == (
        "by", "copy-to", "password-file", "limit-upload", "output", "dhis2", "volumes", "metrics-file", "digest"
    )  # fmt: skip
    seen = amend.difference(FULL, replace(FULL, by="systemd"), (), ())
    assert seen.changed == ("by",) and "alarm" in seen.kept


def test_the_sheet_is_that_of_a_way_into_a_repository() -> None:
    assert amend.same_store(STORE, replace(STORE, limit_upload=0))
    assert not amend.same_store(None, STORE)
    others: list[dict[str, Any]] = [{"repository": "/x"}, {"password_file": "/x"}, {"keys_file": ""}]
    for other in others:
        assert not amend.same_store(STORE, replace(STORE, **other))
