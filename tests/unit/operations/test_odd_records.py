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


def spoiled(document: Any) -> Iterator[Any]:
    """Yield the document with each of the odd values in each of its places."""
    for way in ways(document):
        for odd in ODD:
            result = copy.deepcopy(document)
            at = result
            for key in way[:-1]:
                at = at[key]
            at[way[-1]] = odd
            yield result


def ways(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = value if isinstance(value, dict) else range(min(len(value), 2)) if isinstance(value, list) else ()
    for key in keys:
        yield (*way, key)
        yield from ways(value[key], (*way, key))


def read_or_refused(file: Path, *reads: Callable[[], object]) -> None:
    original, refused = json.loads(file.read_text()), 0
    for document in spoiled(original):
        file.write_text(json.dumps(document))
        for read in reads:
            try:
                read()
            except ChapError as error:
                assert error.message
                refused += 1
    assert refused > 100


def test_an_odd_journal(engine: FakeEngine) -> None:
    cut = cut_off(engine, "verify")

    def read() -> None:
        journal = run_records.open_run(cut.folder, world(cut).clock)
        assert journal
        facts_of(journal)
        change = read_change(journal.known)
        assert all(change.images[name] and change.containers[name] is not None for name in change.writers)

    read_or_refused(cut.folder / ".docker-chap" / "journal.json", read, lambda: run_records.refuse_open_run(cut.folder))


def test_an_odd_record(engine: FakeEngine) -> None:
    run_upgrade(engine)
    (run,) = run_records.history(engine.folder)
    here, stack = world(engine), detect(engine.containers())[0]
    for file in (run_records.undo_file(engine.folder, run["id"]), run_records.report_file(engine.folder, run["id"])):
        text = file.read_text()
        read_or_refused_or_skipped(file, lambda: rollback.plan_rollback(here, stack, "upgrade"), engine.folder)
        file.write_text(text)


def read_or_refused_or_skipped(file: Path, plan: Callable[[], object], folder: Path) -> None:
    """The same for a record: one that cannot be read is left out of the history."""
    for document in spoiled(json.loads(file.read_text())):
        file.write_text(json.dumps(document))
        kept.needed_runs(run_records.history(folder))
        try:
            plan()
        except ChapError as error:
            assert error.message
