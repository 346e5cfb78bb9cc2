"""How old the newest copy and the last drill are, by the audit trail, and what is wrong with the schedule."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from compose_chap.model import Origin
from compose_chap.records import audit
from compose_chap.schedule import crontab, plan, routine, timers
from compose_chap.schedule.crontab import Crontab
from compose_chap.schedule.folders import folders_beside
from compose_chap.schedule.plan import Schedule

NOW = datetime(2026, 11, 28, 4, tzinfo=timezone.utc)
HERE, OTHER = Origin("chap", "e1"), Origin("chap", "e2")


def ended(directory: Path, operation: str, origin: Origin = HERE, result: str = audit.DONE, **facts: Any) -> None:
    entry = audit.begin(directory, operation, (operation,), origin, NOW)
    summary = str(facts.pop("summary", ""))
    audit.end(directory, replace(entry, result=result, ended_at=NOW, facts=facts, summary=summary))


def test_without_copies_and_schedule_nothing_is_shown(tmp_path: Path) -> None:
    ended(tmp_path, "backup", backup="20261128T010000Z")
    ended(tmp_path, "verify", backup="20261128T010000Z", proof="test-restored")
    assert replace(routine.look(tmp_path, HERE, NOW), last_backup=None) == routine.Routine()


def test_the_age_of_a_copy_is_that_of_its_backup(tmp_path: Path) -> None:
    ended(tmp_path, "copy", backup="20261126T010000Z")
    ended(tmp_path, "copy", backup="20261120T010000Z")  # sent later, and older
    ended(tmp_path, "copy", result=audit.FAILED, backup="20261127T010000Z")
    ended(tmp_path, "copy", OTHER, backup="20261128T010000Z")
    ended(tmp_path, "verify", copy="20261120T010000Z")
    seen = routine.look(tmp_path, HERE, NOW)
    assert seen.last_copy == datetime(2026, 11, 26, 1, tzinfo=timezone.utc) and seen.last_drill == NOW


@pytest.fixture
def scheduled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[datetime | None]:
    """Schedule the work with a cron whose answer is the one in the list."""
    answer: list[datetime | None] = [NOW + timedelta(hours=3)]
    monkeypatch.setattr(crontab.Crontab, "next_run", lambda *_: answer[0])
    monkeypatch.setattr(timers, "timers", lambda by: Crontab())
    plan.write(tmp_path, Schedule("chap", "root", "cron", 1, 30, ("docker",), (), "/"))
    return answer


def test_the_next_run_and_a_timer_that_is_gone(tmp_path: Path, scheduled: list[datetime | None]) -> None:
    seen = routine.look(tmp_path, HERE, NOW)
    assert seen.next_run == NOW + timedelta(hours=3) and seen.problems == ()
    scheduled[0] = None
    assert "schedule on" in routine.look(tmp_path, HERE, NOW).problems[0]


def test_work_that_failed_is_a_problem_until_it_succeeds(tmp_path: Path, scheduled: list[datetime | None]) -> None:
    ended(tmp_path, "schedule", result=audit.FAILED, kind="nightly", summary="nightly: backup done; copy failed")
    ended(tmp_path, "schedule", kind="weekly", summary="weekly: verify done")
    problems = routine.look(tmp_path, HERE, NOW).problems
    assert len(problems) == 1 and "copy failed" in problems[0]
    ended(tmp_path, "schedule", kind="nightly", summary="nightly: backup done; copy done")
    assert routine.look(tmp_path, HERE, NOW).problems == ()


def test_backups_are_looked_for_where_the_schedule_puts_them_too(tmp_path: Path) -> None:
    assert folders_beside(tmp_path, None, {}) == [tmp_path / "backups"]
    plan.write(tmp_path, Schedule("chap", "root", "cron", 1, 30, ("docker",), (), "/", output="/mnt/usb"))
    assert folders_beside(tmp_path, None, {}) == [tmp_path / "backups", Path("/mnt/usb")]
    assert folders_beside(tmp_path, None, {"DOCKER_CHAP_BACKUPS": "/mnt/usb"}) == [Path("/mnt/usb")]
    assert folders_beside(tmp_path, Path("/srv/b"), {}) == [Path("/srv/b")], "a chosen folder alone"
    (tmp_path / "link").symlink_to("/mnt")
    assert folders_beside(tmp_path, None, {"DOCKER_CHAP_BACKUPS": f"{tmp_path}/link/usb"}) == [tmp_path / "link/usb"]
    elsewhere = {"DOCKER_CHAP_BACKUPS": "/mnt/nas"}
    plan.write(tmp_path, Schedule("chap", "root", "cron", 1, 30, ("docker",), (), "/", environment=elsewhere))
    assert folders_beside(tmp_path, None, {}) == [tmp_path / "backups", Path("/mnt/nas")], "the schedule's variable"
    (tmp_path / ".docker-chap" / "schedule.json").write_text("{")
    assert folders_beside(tmp_path, None, {}) == [tmp_path / "backups"]
