"""What stays: backups by last ones, days, weeks and months; of the records of ended runs the last ones."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from compose_chap.records.files import own_folder
from compose_chap.records.run_records import report_file, undo_file

# A run's record holds the files that it changed and what a failed one left in its logs: up to some megabytes.
KEPT = 200


@dataclass(frozen=True)
class Retention:
    """How many backups stay: the last ones, and the newest of each day, week and month; never fewer than `floor`."""

    last: int = 3
    daily: int = 7
    weekly: int = 4
    monthly: int = 6
    floor: int = 1
    databases_days: int = 7


def kept_by_rule(dated: Mapping[str, datetime], retention: Retention, lesser: Collection[str] = ()) -> dict[str, str]:
    """Return the ids that retention keeps, with the reason. `dated` has each id's date, in the order they were made.

    Those in `lesser` count only where there is no other.
    """
    if not dated:
        return {}
    newest_first = list(reversed(list(dated)))
    kept = {newest_first[0]: "the newest"}
    # Newer ones before older ones, and lesser ones behind all others.
    best_first = sorted(newest_first, key=lambda identity: identity in lesser)

    for identity in best_first[: max(retention.last, retention.floor)]:
        kept.setdefault(identity, f"one of the last {max(retention.last, retention.floor)}")
    for count, pattern, word in (
        (retention.daily, "%Y-%m-%d", "day"),
        (retention.weekly, "%G-%V", "week"),
        (retention.monthly, "%Y-%m", "month"),
    ):
        # The order that backups were made in tells which period is the last, for a clock may have been ahead.
        periods = dict.fromkeys(dated[identity].strftime(pattern) for identity in newest_first)
        best: dict[str, str] = {}
        for identity in best_first:
            best.setdefault(dated[identity].strftime(pattern), identity)
        for period in list(periods)[:count]:
            kept.setdefault(best[period], f"the newest of its {word}")
    return kept


def old_runs(runs: Sequence[Mapping[str, Any]], needed: Collection[str], kept: int = KEPT) -> list[str]:
    """Return the ids of the runs whose records may go: all but the last `kept` ones and those of `needed`.

    `runs` are the records of a stack, oldest first. What goes is older than all that stays, so a run never outlives
    the record of the rollback that undid it.
    """
    before = runs[: max(len(runs) - kept, 0)]
    return [str(run["id"]) for run in before if run["id"] not in needed]


def remove_run(directory: Path, run: str) -> None:
    """Remove the record of an ended run, with what it left. Raise StateError."""
    journal = undo_file(directory, run).parent
    with own_folder.opened(journal.parent):
        shutil.rmtree(journal, ignore_errors=True)
    own_folder.remove(report_file(directory, run))
