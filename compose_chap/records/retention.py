"""How many records of ended runs stay: the last ones, and whatever a rollback still needs."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from compose_chap.records import own_folder
from compose_chap.records.run_records import report_file, undo_file

# A run's record holds the files that it changed and what a failed one left in its logs: up to some megabytes.
KEPT = 200


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
