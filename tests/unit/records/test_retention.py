"""Records of runs do not grow without bound, and a rollback keeps what it needs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from compose_chap.records import retention, run_records

NOW = datetime(2026, 11, 23, 4, 15, tzinfo=timezone.utc)


def ended(directory: Path, number: int, **more: str) -> str:
    journal = run_records.begin_run(directory, "upgrade", {}, lambda: NOW + timedelta(days=number), **more)
    journal.evidence("api.log", "It ended.")
    journal.end("done")
    return journal.id


def test_the_last_runs_and_needed_runs_stay(tmp_path: Path) -> None:
    made = [ended(tmp_path, number) for number in range(6)]
    old = retention.old_runs(run_records.history(tmp_path), {made[1]}, kept=3)
    assert old == [made[0], made[2]]
    for run in old:
        retention.remove_run(tmp_path, run)
    assert [run["id"] for run in run_records.history(tmp_path)] == [made[1], *made[3:]]
    assert sorted(path.name for path in (tmp_path / ".docker-chap/runs").iterdir() if path.is_dir()) == [
        made[1], *made[3:],
    ]  # fmt: skip


def test_a_few_all_stay(tmp_path: Path) -> None:
    ended(tmp_path, 0)
    assert retention.old_runs(run_records.history(tmp_path), set()) == []
