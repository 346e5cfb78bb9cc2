"""Retention, pure: which backups stay, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compose_chap.backups import backup, catalogue, verdict
from compose_chap.backups.catalogue import Backup
from compose_chap.backups.manifest import ChapFacts
from compose_chap.errors import DumpError, StateError
from compose_chap.model import Origin
from compose_chap.operations.prune import Inventory, PrunePlan, kept_by_retention, plan
from compose_chap.records import lock
from compose_chap.records.retention import Retention
from tests.fakes import disk_dies, manifest, run_record

NOW = datetime(2026, 11, 23, 4, tzinfo=timezone.utc)
HERE = Origin("p", "engine-1", "north")


def made(when: datetime) -> Backup:
    identity = when.strftime("%Y%m%dT%H%M%SZ")
    return Backup(Path("/b") / identity, manifest(id=identity, created_at=when, proven_at=when))


def daily(days: int) -> list[Backup]:
    return [made(NOW - timedelta(days=day)) for day in reversed(range(days))]


def test_the_last_backups_stay() -> None:
    backups = daily(10)
    kept = kept_by_retention(backups, Retention(3, 0, 0, 0))
    assert list(kept) == [backup.id for backup in reversed(backups[-3:])]


def test_never_fewer_than_the_floor() -> None:
    assert len(kept_by_retention(daily(10), Retention(0, 0, 0, 0, floor=2))) == 2
    assert kept_by_retention([], Retention()) == {}


def test_the_newest_of_each_day_week_and_month_stays() -> None:
    backups = daily(400)
    twice = sorted([*backups, made(NOW - timedelta(hours=2))], key=lambda backup: backup.id)
    kept = kept_by_retention(twice, Retention(1, 7, 4, 6))
    assert made(NOW - timedelta(hours=2)).id not in kept
    days = {identity[:8] for identity, why in kept.items() if why in ("the newest", "the newest of its day")}
    assert days == {(NOW - timedelta(days=day)).strftime("%Y%m%d") for day in range(7)}
    months = {identity[:6] for identity in kept}
    assert months == {"202606", "202607", "202608", "202609", "202610", "202611"}
    assert "20261031T040000Z" in kept


def test_each_folder_keeps_what_the_rules_say_whatever_is_in_another(tmp_path: Path) -> None:
    here, usb = tmp_path / "backups", tmp_path / "usb"
    nightly = [write(usb, NOW - timedelta(days=day)) for day in range(30)]
    by_hand = [write(here, NOW - timedelta(days=day, hours=-1)) for day in range(30)]
    apart = [planned(stack_in(tmp_path, "chap_core"), folder, {}, Retention()) for folder in (here, usb)]
    both = planned(stack_in(tmp_path, "chap_core"), [here, usb], {}, Retention())
    assert {backup.folder for backup in both.backups} == {gone.folder for chosen in apart for gone in chosen.backups}
    for chosen, paths in zip(apart, (by_hand, nightly)):
        assert len(chosen.kept) >= 7 and len(chosen.backups) + len(chosen.kept) == len(paths)
    # Nor do newer backups take the last one from a disk, or the good one that its bad one needs.
    none = Retention(0, 0, 0, 0)
    both = planned(stack_in(tmp_path, "chap_core"), [here, usb], {}, none)
    assert dict(both.kept) == {by_hand[0].name: "the newest", nightly[0].name: "the newest"}
    catalogue.record_verdict(catalogue.load(nightly[0]), NOW, verdict.CHECKSUMS, "It is damaged.")
    both = planned(stack_in(tmp_path, "chap_core"), [here, usb], {}, none)
    assert set(dict(both.kept)) == {by_hand[0].name, nightly[0].name, nightly[1].name}


def test_a_backup_that_lies_in_two_folders_stays_in_both_where_it_stays_in_either(tmp_path: Path) -> None:
    here, usb = tmp_path / "backups", tmp_path / "usb"
    copied = [write(folder, NOW - timedelta(days=1)) for folder in (here, usb)]
    write(here, NOW)
    chosen = planned(stack_in(tmp_path, "chap_core"), [here, usb], {}, Retention(0, 0, 0, 0))
    assert chosen.backups == () and dict(chosen.kept)[copied[0].name] == "the newest"


def test_nothing_is_removed_while_a_folder_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / "backups", tmp_path / "usb"]
    for folder, day in ((folders[0], 0), (folders[0], 1), (folders[1], 2)):
        write(folder, NOW - timedelta(days=day))
    disk_dies(folders[1], monkeypatch)
    with pytest.raises(StateError, match=f"backups in {folders[1]} cannot be read"):
        planned(stack_in(tmp_path, "chap_core"), folders, {}, Retention(0, 0, 0, 0))
    # The other one by itself can be pruned: it is named.
    assert len(planned(stack_in(tmp_path, "chap_core"), folders[0], {}, Retention(0, 0, 0, 0)).backups) == 1


def test_a_gap_does_not_cost_a_backup() -> None:
    # Days without a backup do not count: an office that was closed for a month keeps its seven.
    backups = [made(NOW - timedelta(days=30 + day)) for day in reversed(range(7))]
    assert len(kept_by_retention(backups, Retention(0, 7, 0, 0))) == 7


def test_a_bad_backup_does_not_displace_a_sound_backup(tmp_path: Path) -> None:
    backups = [catalogue.load(write(tmp_path, NOW - timedelta(hours=age))) for age in (5, 4, 3, 2, 1)]
    for bad in (backups[1], backups[3], backups[4]):
        catalogue.record_verdict(bad, NOW, verdict.CHECKSUMS, "It is damaged.")
    kept = kept_by_retention(backups, Retention(2, 0, 0, 0))
    assert set(kept) == {backups[0].id, backups[2].id, backups[3].id, backups[4].id}
    # Once there is a newer sound one, the bad ones go.
    backups.append(catalogue.load(write(tmp_path, NOW)))
    assert set(kept_by_retention(backups, Retention(1, 0, 0, 0))) == {backups[5].id}


def test_a_word_against_a_backup_stands_until_as_good_a_proof(tmp_path: Path) -> None:
    proven = catalogue.load(write(tmp_path, NOW))
    assert not proven.fault and proven.proof.how == verdict.READ_BACK
    catalogue.record_verdict(proven, NOW, verdict.RESTORED, "Rows are missing.")
    for weaker in (verdict.CHECKSUMS, verdict.READ_BACK):
        catalogue.record_verdict(proven, NOW, weaker)
        assert proven.proof.how == verdict.BAD and "Rows are missing." in proven.fault
    with pytest.raises(DumpError, match="Rows are missing"):
        catalogue.find("latest", [tmp_path], sound=True)
    assert catalogue.find("latest", [tmp_path]).id == catalogue.find(proven.id, [tmp_path], sound=True).id == proven.id
    catalogue.record_verdict(proven, NOW, verdict.RESTORED)
    assert not proven.fault and catalogue.find("latest", [tmp_path], sound=True).id == proven.id
    catalogue.record_verdict(proven, NOW, verdict.CHECKSUMS, "A file is damaged.")
    catalogue.record_verdict(proven, NOW, verdict.CHECKSUMS)
    assert proven.proof == verdict.Proof(NOW, verdict.RESTORED, restored_at=NOW)


def missed(now: set[str], wanted: tuple[str, ...] | None, *earlier: dict[str, Any]) -> dict[str, list[str]]:
    schema = None if wanted is None else {"missing_tables": wanted}
    new = manifest(tables=dict.fromkeys(now, 1), lost_tables=("public.gone",), chap=ChapFacts("2.1.0", "", schema))
    before = [Backup(Path("/b"), manifest(**fields)) for fields in earlier]
    result = backup.with_missing_tables(new, before)
    return {"lost_tables": list(result.lost_tables), "absent_tables": list(result.absent_tables)}


def test_a_table_is_lost_if_it_existed_and_is_still_needed() -> None:
    earlier = {"tables": {"public.a": 1, "public.b": 1}, "lost_tables": ["public.c"]}
    at_first = {"lost_tables": ["public.gone"], "absent_tables": []}
    assert missed({"public.a"}, None) == at_first
    assert missed({"public.a", "public.b", "public.c"}, (), earlier) == at_first
    # CHAP is down, and nobody can say whether they are wanted. What was lost before still is.
    assert missed({"public.a"}, None, earlier)["lost_tables"] == ["public.b", "public.c", "public.gone"]
    # CHAP runs: it wants one of them, and one that never was there.
    result = missed({"public.a"}, ("b", "new"), earlier)
    assert result == {"lost_tables": ["public.b", "public.gone"], "absent_tables": ["public.c", "public.new"]}


def test_tables_that_only_a_newer_version_had_are_not_missed_after_a_rollback() -> None:
    old: dict[str, Any] = {"tables": {"public.a": 1}, "chap": ChapFacts("2.1.0")}
    tables = {"public.a": 1, "public.alert": 1}
    newer: dict[str, Any] = {"tables": tables, "chap": ChapFacts("2.10.0")}
    nothing = {"lost_tables": ["public.gone"], "absent_tables": []}
    assert missed({"public.a"}, (), old, newer) == missed({"public.a"}, None, old, newer) == nothing
    # Of the same version, or one that does not say, it is missed.
    for version in ("2.1.0", ""):
        same = {"tables": tables, "chap": ChapFacts(version)}
        assert missed({"public.a"}, (), old, same)["absent_tables"] == ["public.alert"]
    # What the older one had is still looked for.
    assert missed(set(), ("a",), old, newer)["lost_tables"] == ["public.a", "public.gone"]


def test_more_backups_never_make_retention_keep_fewer_days() -> None:
    for count in range(1, 60):
        kept = kept_by_retention(daily(count), Retention(1, 5, 0, 0))
        assert len(kept) == min(count, 5)


def test_what_a_failed_run_made_for_itself_goes_before_what_somebody_wanted() -> None:
    nightly, by_hand, failed, newest = (made(NOW - timedelta(hours=hours)) for hours in (6, 5, 4, 3))
    backups, of_failed = [nightly, by_hand, failed, newest], {failed.id, newest.id}
    # The newest one stays whoever made it: nothing else has those rows.
    assert set(kept_by_retention(backups, Retention(2, 0, 0, 0), of_failed)) == {nightly.id, by_hand.id, newest.id}
    assert set(kept_by_retention(backups, Retention(0, 1, 0, 0), of_failed)) == {by_hand.id, newest.id}
    assert set(kept_by_retention(backups, Retention(3, 0, 0, 0), of_failed)) == {nightly.id, by_hand.id, newest.id}
    assert set(kept_by_retention(backups, Retention(4, 0, 0, 0), of_failed)) == {backup.id for backup in backups}


def test_a_test_restored_backup_is_as_good_as_any_whatever_made_it(tmp_path: Path) -> None:
    older, failed, newest = (catalogue.load(write(tmp_path, NOW - timedelta(hours=hours))) for hours in (5, 4, 3))
    assert failed.id not in kept_by_retention([older, failed, newest], Retention(2, 0, 0, 0), {failed.id})
    catalogue.record_verdict(failed, NOW, verdict.RESTORED)
    assert set(kept_by_retention([older, failed, newest], Retention(2, 0, 0, 0), {failed.id})) == {failed.id, newest.id}


def retentions() -> st.SearchStrategy[Retention]:
    few = st.integers(0, 12)
    return st.builds(Retention, few, few, few, few, floor=st.integers(1, 4), databases_days=few)


hours_ago = st.lists(st.integers(0, 24 * 900), unique=True, max_size=60)


@given(hours_ago, retentions())
def test_whatever_was_made_when_the_promises_hold(ages: list[int], retention: Retention) -> None:
    backups = [made(NOW - timedelta(hours=age)) for age in sorted(ages, reverse=True)]
    kept = kept_by_retention(backups, retention)
    newest_first = [kept_backup.id for kept_backup in reversed(backups)]
    last = max(retention.last, retention.floor)
    assert newest_first[:last] == [
        kept_backup
        for kept_backup in newest_first
        if kept.get(kept_backup) in ("the newest", f"one of the last {last}")
    ]
    assert len(kept) >= min(len(backups), retention.floor)
    for count, shape in ((retention.daily, "%Y%m%d"), (retention.weekly, "%G%V"), (retention.monthly, "%Y%m")):
        newest: dict[str, str] = {}
        for kept_backup in reversed(backups):
            newest.setdefault(kept_backup.created_at.strftime(shape), kept_backup.id)
        assert set(list(newest.values())[:count]) <= set(kept)
    # What goes today is not missed tomorrow: to prune twice is to prune once.
    again = [kept_backup for kept_backup in backups if kept_backup.id in kept]
    assert kept_by_retention(again, retention).keys() == kept.keys()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 24 * 400), st.booleans()), unique_by=lambda backup: backup[0], max_size=12),
    retentions(),
    st.data(),
)
def test_pinned_and_needed_backups_stay_whatever_retention_says(
    tmp_path_factory: pytest.TempPathFactory, ages: list[tuple[int, bool]], retention: Retention, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("stack")
    folder = directory / "backups"
    written = [write(folder, NOW - timedelta(hours=age), pinned=pinned) for age, pinned in ages]
    needed = data.draw(st.sampled_from(written)) if written else None
    runs = directory / ".docker-chap" / "runs"
    runs.mkdir(parents=True)
    live, aside = "chap_core", "chap_core_before_20260101t000000z"
    record = run_record(facts={"backup": str(needed), "kept": aside})
    (runs / "1.json").write_text(json.dumps(record))

    databases = sized(live, aside, "postgres", "other_before")
    chosen = planned(stack_in(directory, live), folder, databases, retention)
    going = {backup.folder for backup in chosen.backups}
    assert not going & {path for path in written if (path / "pinned").exists() or path == needed}
    assert len(written) - len(going) >= min(len(written), retention.floor)
    assert going | {folder / identity for identity, _ in chosen.kept} == set(written)
    # The database that a rollback needs stays, however old it is, and so does everything that is not ours.
    assert not chosen.databases
    (runs / "1.json").unlink()
    later = planned(stack_in(directory, live), folder, databases, retention)
    assert not planned(stack_in(directory, live), folder, databases, retention, decided=False).databases
    assert [name for name, _ in later.databases] == [aside]


RUNS = ("20260101T000000Z", "20260102T000000Z", "20260103T000000Z")


def recorded(directory: Path, *operations: str, **facts: str) -> list[str]:
    """Write the records of runs that succeeded, each with a kept database, and return the names of those."""
    runs = directory / ".docker-chap" / "runs"
    runs.mkdir(parents=True)
    names = [f"chap_core_before_{identity.lower()}" for identity in RUNS]
    for identity, operation, kept in zip(RUNS, operations, names):
        record = run_record(id=identity, operation=operation, facts={"kept": kept, **facts})
        (runs / f"{identity}.json").write_text(json.dumps(record))
    return names[: len(operations)]


@pytest.mark.parametrize(
    ("operations", "going"),
    [
        (("upgrade", "restore", "restore"), 0),
        (("restore", "upgrade", "restore"), 1),
        (("upgrade", "restore", "upgrade"), 2),
        (("restore", "restore", "restore"), 2),
    ],
)
def test_what_successive_undos_need_stays(tmp_path: Path, operations: tuple[str, ...], going: int) -> None:
    names = recorded(tmp_path, *operations)
    tags = [f"p-{identity}-{service}" for identity in RUNS for service in ("chap", "worker")]
    none = Retention(0, 0, 0, 0, databases_days=0)
    chosen = planned(stack_in(tmp_path, "chap_core"), tmp_path, sized(*names), none, tags)
    assert [name for name, _ in chosen.databases] == names[:going] and chosen.image_runs == RUNS[:going]


def test_only_a_person_removes_rows_that_may_be_nowhere_else(tmp_path: Path) -> None:
    before_upgrade, before_restore, _ = recorded(tmp_path, "upgrade", "restore", "upgrade")
    after = "chap_core_after_20260101t120000z"
    failed, of_failed_upgrade = (f"chap_core_before_2026010{day}t130000z" for day in (1, 2))
    unknown = "chap_core_before_20250101t000000z"
    (tmp_path / ".docker-chap" / "runs" / "x.json").write_text(
        json.dumps(run_record(id=of_failed_upgrade[-16:].upper(), result="rolled back"))
    )
    held = {
        before_restore: "the data from before the restore",
        after: "the newer data, from before a rollback",
        f"{failed}_failed": "what was written before a run failed",
        of_failed_upgrade: "the data from before the upgrade",
        unknown: "the data from before a run",
    }
    databases = sized("chap_core", "postgres", before_upgrade, *held)
    stack, rules = stack_in(tmp_path, "chap_core"), Retention(databases_days=7)
    nightly = planned(stack, tmp_path, databases, rules, decided=False)
    assert [name for name, _ in nightly.databases] == [before_upgrade]
    assert dict(nightly.set_aside) == held and set(nightly.left) == set(held)
    assert dict(nightly.kept_databases) == dict.fromkeys(held, "its rows may be nowhere else")
    by_hand = planned(stack, tmp_path, databases, rules)
    assert {name for name, _ in by_hand.databases} == {before_upgrade, *held} and by_hand.left == ()
    # What is young, or needed to undo something, nobody has to decide.
    assert not planned(stack, tmp_path, databases, Retention(databases_days=9999), decided=False).left
    recorded_last = sized("chap_core", recorded(tmp_path / "other", "upgrade", "upgrade", "restore")[2])
    assert not planned(stack_in(tmp_path / "other", "chap_core"), tmp_path, recorded_last, rules, decided=False).left


def test_a_needed_backup_is_known_however_its_folder_is_spelled(tmp_path: Path) -> None:
    made, _ = write(tmp_path / "real", NOW - timedelta(days=2)), write(tmp_path / "real", NOW)
    (tmp_path / "link").symlink_to("real")
    recorded(tmp_path, "upgrade", backup=str(tmp_path / "x" / ".." / "link" / made.name))
    chosen = planned(stack_in(tmp_path, "chap_core"), tmp_path / "real", {}, Retention(0, 0, 0, 0))
    assert chosen.backups == () and dict(chosen.kept)[made.name] == "a rollback needs it"


def test_images_of_a_run_that_kept_a_dump_go_when_it_cannot_be_undone(tmp_path: Path) -> None:
    recorded(tmp_path, "upgrade", "upgrade", kept_dump="x")
    tags, stack = [f"p-{identity}-chap" for identity in RUNS[:2]], stack_in(tmp_path, "chap_core")
    assert planned(stack, tmp_path, {}, Retention(), tags).image_runs == RUNS[:1]
    young = Retention(databases_days=9999)
    assert planned(stack, tmp_path, {}, young, tags).image_runs == ()


def test_a_backup_that_is_being_copied_elsewhere_stays(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    older, newer = (write(folder, NOW - timedelta(hours=age)) for age in (2, 1))
    rules, stack = Retention(0, 0, 0, 0), stack_in(tmp_path, "chap_core")
    with lock.claimed(older, shared=True), lock.claimed(older, shared=True):
        chosen = planned(stack, folder, sized("chap_core"), rules)
        assert chosen.backups == () and dict(chosen.kept)[older.name] == "it is being copied"
    assert [backup.folder for backup in planned(stack, folder, sized("chap_core"), rules).backups] == [older]


def write(folder: Path, when: datetime, *, pinned: bool = False) -> Path:
    """Write what is needed of a backup to be listed as one."""
    identity = when.strftime("%Y%m%dT%H%M%SZ")
    (folder / identity).mkdir(parents=True)
    document = {
        **{"format": 1, "id": identity, "created_at": when.isoformat(), "reason": "", "proven_at": when.isoformat()},
        **{"project": {"name": "p"}, "tables": {}, "files": [], "checkout": None, "chap": {"version": "2.0.0"}},
        **{
            "database": {"name": "chap_core", "size": 1},
            "server": {"version": 170006},
            "dump": {"file": "a.dump", "size": 1, "sha256": "0" * 64},
        },
    }
    (folder / identity / "manifest.json").write_text(json.dumps(document))
    if pinned:
        (folder / identity / "pinned").touch()
    return folder / identity


def stack_in(directory: Path, database: str) -> Any:
    project = SimpleNamespace(name="p", directory=directory)
    return SimpleNamespace(project=project, access=SimpleNamespace(name=database))


def sized(*names: str) -> Any:
    return {name: SimpleNamespace(size=1) for name in names}


def planned(
    stack: Any,
    folders: Path | Sequence[Path],
    databases: Any,
    retention: Retention,
    tags: Sequence[str] = (),
    *,
    decided: bool = True,
) -> PrunePlan:
    """Plan for what there is; `decided` says that a person is asked."""
    folders = [folders] if isinstance(folders, Path) else folders
    return plan(stack, Inventory.of(stack, HERE, folders, databases, tags), retention, NOW, with_set_aside=decided)
