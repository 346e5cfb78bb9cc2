"""What was made last is the last, whatever the clock said when it was made."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from compose_chap import units
from compose_chap.backups import catalogue
from compose_chap.cli.screen import metrics, render
from compose_chap.cli.screen.status import status_document, status_text
from compose_chap.model import Origin
from compose_chap.operations import prune, rollback, status
from compose_chap.records import order, run_records
from compose_chap.records.retention import Retention
from compose_chap.restore.source import skipped_newer
from compose_chap.stack.observe import find_stack
from compose_chap.transaction.run import kept
from tests.fakes import FakeEngine, manifest, world
from tests.unit.operations.test_prune import planned, sized, stack_in
from tests.unit.stack.test_observe import at

NOW = datetime(2026, 11, 23, 4, tzinfo=timezone.utc)
DAY = timedelta(days=1)
AHEAD = NOW.replace(year=2038)


def back_up(folder: Path, clock: datetime, **facts: Any) -> str:
    """Write a backup as this tool does at this time of the clock, and return its id."""
    earlier = [backup.order for backup in catalogue.list_backups([folder])]
    made = manifest(
        id=run_records.run_id(clock),
        created_at=clock,
        proven_at=clock,
        **{"order": order.following(clock, earlier), **facts},
    )
    (folder / made.id).mkdir(parents=True)
    (folder / made.id / "manifest.json").write_bytes(made.document())
    return made.id


def run(folder: Path, operation: str, clock: datetime, **facts: Any) -> str:
    """Begin and end a run at this time of the clock, and return its id."""
    journal = run_records.begin_run(folder, operation, {"kept": ""}, lambda: clock, **facts)
    journal.end("done")
    return journal.id


@pytest.mark.parametrize("off", [timedelta(minutes=10), timedelta(days=4000), -timedelta(days=4000)])
def test_latest_is_the_backup_that_was_made_last(tmp_path: Path, off: timedelta) -> None:
    clocks = [NOW - DAY, NOW + off, NOW, NOW + timedelta(seconds=30), NOW + DAY]
    made = [back_up(tmp_path, clock) for clock in clocks]
    assert [backup.id for backup in catalogue.list_backups([tmp_path])] == made
    latest = catalogue.find("latest", [tmp_path])
    assert latest.id == made[-1] and not skipped_newer("latest", latest, [tmp_path], Origin())
    # The ids are what the clock said.
    assert made[-1] == run_records.run_id(NOW + DAY)


def test_records_without_an_order_go_by_their_time(tmp_path: Path) -> None:
    old = [back_up(tmp_path, clock, order=None) for clock in (NOW - DAY, AHEAD, NOW)]
    assert [backup.id for backup in catalogue.list_backups([tmp_path])] == [old[0], old[2], old[1]]
    new = back_up(tmp_path, NOW + DAY)
    assert catalogue.find("latest", [tmp_path]).id == new


def test_a_manifest_without_an_order_is_read_and_so_is_the_last_of_times(tmp_path: Path) -> None:
    last = datetime(8999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc)
    old = tmp_path / back_up(tmp_path, last, order=None) / "manifest.json"
    document = json.loads(old.read_text())
    assert document.pop("order") is None
    old.write_text(json.dumps(document))
    back_up(tmp_path, NOW)
    assert len(catalogue.scan([tmp_path]).backups) == 2 and not catalogue.scan([tmp_path]).unusable


def test_a_run_is_undone_although_an_earlier_run_is_dated_later(tmp_path: Path) -> None:
    first = run(tmp_path, "upgrade", AHEAD)
    second = run(tmp_path, "upgrade", NOW)
    assert [record["id"] for record in run_records.history(tmp_path)] == [first, second]
    assert rollback.last_undoable(tmp_path, "upgrade")["id"] == second
    run(tmp_path, "rollback", NOW + DAY, undoes=second)
    assert rollback.last_undoable(tmp_path, "upgrade")["id"] == first
    run(tmp_path, "rollback", NOW + 2 * DAY, undoes=first)
    assert not run_records.effective_runs(tmp_path)


def test_a_run_that_was_undone_stays_undone_whatever_the_dates_say(tmp_path: Path) -> None:
    # As records were written before they had an order.
    first = run(tmp_path, "upgrade", AHEAD)
    run(tmp_path, "rollback", NOW, undoes=first)
    for file in (tmp_path / ".docker-chap" / "runs").glob("*.json"):
        record = json.loads(file.read_text())
        del record["order"]
        file.write_text(json.dumps(record))
    assert not run_records.effective_runs(tmp_path)


def test_retention_goes_by_the_order(tmp_path: Path) -> None:
    ahead = back_up(tmp_path, AHEAD)
    made = [back_up(tmp_path, NOW + DAY * day) for day in range(3)]
    backups = catalogue.list_backups([tmp_path])
    assert set(prune.kept_by_retention(backups, Retention(2, 0, 0, 0))) == set(made[1:])
    # It takes no day's place for ever.
    assert ahead not in prune.kept_by_retention(backups, Retention(0, 3, 0, 0))


def test_a_backup_and_a_database_from_the_future_are_named_and_stay_until_asked_for(tmp_path: Path) -> None:
    ahead, _ = back_up(tmp_path / "backups", AHEAD), back_up(tmp_path / "backups", NOW)
    database = kept.kept_name("chap_core", kept.BEFORE, run_records.run_id(AHEAD))
    stack, databases = stack_in(tmp_path, "chap_core"), sized(database)
    for days, going in ((7, []), (0, [database])):
        retention = Retention(0, 0, 0, 0, databases_days=days)
        chosen = planned(stack, tmp_path / "backups", databases, retention)
        assert [name for name, _ in chosen.databases] == going
        assert [warning.split(" is dated")[0] for warning in chosen.warnings] == [
            f"Backup {ahead}",
            f"Database {database}",
        ]


def test_a_status_names_it_and_gives_it_no_age(tmp_path: Path) -> None:
    (tmp_path / "compose.yml").touch()
    engine = FakeEngine(tmp_path)
    here = world(engine)
    ahead = back_up(tmp_path / "backups", AHEAD)
    seen = status.look(here, find_stack(engine, at(tmp_path)))
    assert [text for text in seen.problems if text.startswith(f"Backup {ahead} is dated in the future (2038")]
    assert "in the future" in status_text(seen, NOW)
    assert status_document(seen, NOW)["last_backup"]["age_seconds"] is None
    # An alarm on the age of the last backup must not be silent until 2038.
    lines = metrics.text(seen, None, NOW).splitlines()
    assert [
        line for line in lines if line.startswith("docker_chap_last_backup_timestamp_seconds") and line.endswith(" 0")
    ]

    right = back_up(tmp_path / "backups", NOW)
    seen = status.look(here, find_stack(engine, at(tmp_path)))
    assert status_document(seen, NOW)["last_backup"]["id"] == right
    assert f"}} {NOW.timestamp():.0f}" in metrics.text(seen, None, NOW)


def test_clocks_that_differ_a_little_are_nothing_to_speak_of() -> None:
    assert units.age(NOW + timedelta(minutes=4), NOW) == "just now"
    assert units.age(NOW + timedelta(minutes=6), NOW) == "in the future"
    assert not order.warnings("Backup", {"x": NOW + timedelta(minutes=4)}, NOW)


def test_the_time_that_a_command_goes_by_is_not_set_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Jumped:
        @staticmethod
        def now(zone: timezone) -> datetime:
            return AHEAD

    before = render.now()
    monkeypatch.setattr(render, "datetime", Jumped)
    assert timedelta(0) <= render.now() - before < timedelta(minutes=1)
