"""Which way the previous data are kept in, and what each way says of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compose_chap.errors import StateError
from compose_chap.reading import Value
from compose_chap.records.steps import Step
from compose_chap.transaction.data.data_plan import DataKind, DataPlan
from compose_chap.transaction.data.previous_data import CopyInServer, ProvenDump, SwappedOut, previous_data_of
from compose_chap.transaction.run.facts import read_facts
from tests.unit.transaction.run.test_journal_facts import CHANGE

CHANGE = replace(CHANGE, by_dump=False, move=None)
NOTHING = read_facts(Value({}, "journal.json", StateError, "facts"))
DUMPED = replace(NOTHING, kept_dump=Path("/b/2"), backup=Path("/b/2"))


def server(*names: str) -> Any:
    return SimpleNamespace(exists=lambda name: name in names)


def test_a_copy_is_a_dump_once_a_dump_was_made() -> None:
    assert type(previous_data_of(CHANGE, NOTHING)) is CopyInServer
    assert type(previous_data_of(CHANGE, DUMPED)) is ProvenDump
    assert type(previous_data_of(replace(CHANGE, by_dump=True), NOTHING)) is ProvenDump


@pytest.mark.parametrize(("operation", "kind"), [("restore", DataKind.RESTORE), ("rollback", DataKind.ROLLBACK)])
def test_where_other_data_come_in_the_live_database_itself_is_kept(operation: str, kind: DataKind) -> None:
    data = previous_data_of(replace(CHANGE, operation=operation, incoming="chap_core_incoming_x"), NOTHING)
    assert type(data) is SwappedOut and data.kind is kind and data.database == CHANGE.kept


def test_a_rollback_needs_a_database_and_gives_a_hint_without_it() -> None:
    previous_data_of(CHANGE, NOTHING).refuse_what_is_gone(server(CHANGE.kept))
    with pytest.raises(StateError, match="is gone") as gone:
        previous_data_of(CHANGE, replace(NOTHING, backup=Path("/b/1"))).refuse_what_is_gone(server())
    assert gone.value.hint.endswith("docker chap restore /b/1 --with-version"), "the newer CHAP would migrate it again"
    assert gone.value.state == "Nothing was changed."
    with pytest.raises(StateError, match="is gone") as gone:
        previous_data_of(replace(CHANGE, operation="restore"), NOTHING).refuse_what_is_gone(server())
    assert gone.value.hint.endswith("docker chap restore latest")
    with pytest.raises(StateError, match="as a backup, /b/2") as dumped:
        previous_data_of(CHANGE, DUMPED).refuse_what_is_gone(server(CHANGE.kept))
    assert dumped.value.hint.endswith("docker chap restore /b/2 --with-version")
    assert previous_data_of(CHANGE, DUMPED).database == "" and previous_data_of(CHANGE, DUMPED).location == "/b/2"


def test_a_dump_comes_back_only_once_and_only_where_the_live_data_may_have_changed() -> None:
    present, begun = {"chap_core", "postgres"}, [Step.STOP, Step.KEEP]
    assert previous_data_of(CHANGE, DUMPED).way_back(present, begun, changed=True).from_dump
    assert not previous_data_of(CHANGE, DUMPED).way_back(present, begun, changed=False).from_dump
    came_back = replace(DUMPED, data_came_back=True)
    assert not previous_data_of(CHANGE, came_back).way_back(present, begun, changed=True).from_dump
    # Nothing was kept yet.
    for way in (CHANGE, replace(CHANGE, by_dump=True)):
        assert previous_data_of(way, NOTHING).way_back(present, begun, changed=True) == DataPlan()
