"""The journal of an open run: what it does not say is named, and nothing of it is used."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from compose_chap.errors import Interrupted, StateError
from compose_chap.records import run_records
from compose_chap.records.files import own_folder
from tests.fakes import run_record


def clock() -> datetime:
    return datetime(2026, 11, 23, tzinfo=timezone.utc)


def open_run(directory: Path, record: dict[str, Any]) -> None:
    """Write the journal of a run that was cut off."""
    own_folder.make(directory / run_records.FOLDER)
    own_folder.write(run_records.journal_file(directory), json.dumps(record).encode())


def test_an_open_run_stands_in_the_way_and_says_whose_it_is(tmp_path: Path) -> None:
    open_run(tmp_path, run_record(steps=[{"step": "stop", "at": "2026-01-01T00:00:00+00:00"}]))
    with pytest.raises(
        Interrupted, match=r"The upgrade that ops@host began at 2026-01-01 .* at the step 'Stopping CHAP'\."
    ):
        run_records.refuse_open_run(tmp_path)


@pytest.mark.parametrize("name", ["id", "operation", "by", "started_at", "steps", "facts"])
@pytest.mark.parametrize("odd", [None, 7, "", [7], {"step": "stop"}])
def test_a_journal_that_lacks_something_is_refused_by_name(tmp_path: Path, name: str, odd: object) -> None:
    complete = run_record()
    for record in ({key: value for key, value in complete.items() if key != name}, {**complete, name: odd}):
        open_run(tmp_path, record)
        for ask in (run_records.refuse_open_run, lambda directory: run_records.open_run(directory, clock)):
            if (name, odd) in (("by", ""), ("facts", {"step": "stop"})) and name in record:
                continue  # that is what it may be
            with pytest.raises(StateError, match=rf"journal.json cannot be used: {name}"):
                ask(tmp_path)
