"""A journal or a record with an odd value anywhere: it is read, or ends in one clear error. Nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from compose_chap.detection import detect
from compose_chap.errors import ChapError
from compose_chap.operations import rollback
from compose_chap.records import run_records
from compose_chap.transaction.run import kept
from compose_chap.transaction.run.facts import facts_of, read_change
from tests.fakes import FakeEngine, world
from tests.unit.transaction.test_transaction import base_folder, cut_off, engine, run_upgrade

# The fixtures of the other module, under their own names.
__all__ = ["base_folder", "engine"]

ODD: tuple[Any, ...] = (None, -1, 1e300, "", "../\x1b[2J", "a" * 5000, [], {}, [None], {"": {}}, ["x"])


def ways(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each value of a document, of the first two of a list."""
    keys = value if isinstance(value, dict) else range(min(len(value), 2)) if isinstance(value, list) else ()
    for key in keys:
        yield (*way, key)
        yield from ways(value[key], (*way, key))


def read_spoiled(file: Path, values: tuple[Any, ...], *reads: Callable[[], object]) -> int:
    """Put each of the values in each place of a document, and return how often reading it raised an error."""
    original, refused = json.loads(file.read_text()), 0
    for way in ways(original):
        for value in values:
            document = copy.deepcopy(original)
            at = document
            for key in way[:-1]:
                at = at[key]
            at[way[-1]] = value
            file.write_text(json.dumps(document))
            for read in reads:
                try:
                    read()
                except ChapError as error:
                    assert error.message
                    refused += 1
    file.write_text(json.dumps(original))
    return refused


def test_an_odd_journal(engine: FakeEngine) -> None:
    cut = cut_off(engine, "verify")

    def read() -> None:
        journal = run_records.open_run(cut.folder, world(cut).clock)
        assert journal
        facts_of(journal)
        change = read_change(journal.known)
        assert all(change.images[name] and change.containers[name] is not None for name in change.writers)

    file = cut.folder / ".docker-chap" / "journal.json"
    assert read_spoiled(file, ODD, read, lambda: run_records.refuse_open_run(cut.folder)) > 100


def test_an_odd_record(engine: FakeEngine) -> None:
    run_upgrade(engine)
    (run,) = run_records.history(engine.folder)
    here, stack = world(engine), detect(engine.containers())[0]

    def read() -> None:
        # A record that cannot be read is left out.
        kept.needed_runs(run_records.history(engine.folder))
        rollback.plan_rollback(here, stack, "upgrade")

    assert read_spoiled(run_records.undo_file(engine.folder, run["id"]), (None, "a" * 5000, {}), read) > 10
    read_spoiled(run_records.report_file(engine.folder, run["id"]), ([],), read)
