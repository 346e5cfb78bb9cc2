"""What a journal holds: read as it was written, also by version 0.1.0, and nothing that is odd."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compose_chap.edit import Edit
from compose_chap.errors import StateError
from compose_chap.model import Project
from compose_chap.project.checkout import Head, Move
from compose_chap.reading import Value
from compose_chap.transaction.run.baseline import Baseline
from compose_chap.transaction.run.change import Change
from compose_chap.transaction.run.facts import read_change, read_facts

PLACES = Head("a" * 40, "refs/heads/main"), Head("b" * 40)
BASELINE = Baseline("2.0.0", {"p-worker-1": "2.0.0"}, ("ewars",), "http://chap:8000", True, True, {"db": {"1": True}})
CHANGE = Change(
    operation="upgrade",
    project=Project("p", Path("/srv"), (Path("/srv/compose.yml"),), (Path("/srv/.env"),)),
    writers=("chap", "worker"),
    containers={"chap": ["1"], "worker": ["2", "3"]},
    images={"chap": {"reference": "a:1", "id": "sha256:1"}, "worker": {"reference": "b:1", "id": "sha256:3"}},
    images_after={"chap": {"reference": "a:2", "id": "sha256:2"}, "worker": {"reference": "b:2", "id": "sha256:4"}},
    database="db",
    admin="postgres",
    owner="chap",
    live="chap_core",
    kept="chap_core_before_20261123t000000z",
    incoming="",
    edits=(Edit(Path("/srv/compose.yml"), b"\xff1", b"2"), Edit(Path("/srv/.env"), None, b"")),
    recreate=True,
    expected="2.1.0",
    tables={"public.observation": 3},
    baseline=BASELINE,
    by_dump=True,
    mark="7:7:",
    move=Move(Path("/srv"), *PLACES),
    repairs=("mark",),
    accepted="incomplete",
)
LEARNED = {
    **{"backups": "/b", "backup": "/b/1", "sources": ["/srv/compose.yml"], "kept_dump": "/b/2"},
    **{"old_tables": {"public.observation": 3}, "settings": {"chap": {"ports": []}}, "data_came_back": True},
    **{"checks": [{"name": "rows", "status": "ok", "message": "", "hint": "", "details": {}}], "downtime": 12.5},
}


def value(data: Any) -> Value:
    return Value(json.loads(json.dumps(data)), "/srv/.docker-chap/journal.json", StateError, "facts")


def test_a_change_is_read_as_it_was_written() -> None:
    assert read_change(value(CHANGE.to_facts())) == CHANGE


def test_a_journal_of_the_first_version_is_read() -> None:
    later = ("by_dump", "mark", "move", "repairs", "accepted")
    old = {name: fact for name, fact in CHANGE.to_facts().items() if name not in later}
    change = read_change(value(old))
    assert not change.by_dump and change.mark == "" and change.move is None and change.repairs == ()
    facts = read_facts(value(old))
    assert facts.had_live is None and not facts.data_came_back and facts.kept_dump is None and facts.old_tables == {}


def test_what_a_run_learned_is_read() -> None:
    facts = read_facts(value(LEARNED))
    assert facts.kept_dump == Path("/b/2") and facts.downtime == 12.5 and facts.checks[0].name == "rows"
    assert read_facts(value({"had_live": False})).had_live is False


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value in a document."""
    if path:
        yield path
    if isinstance(data, (dict, list)):
        for name, inner in data.items() if isinstance(data, dict) else enumerate(data):
            yield from places(inner, (*path, name))


@pytest.mark.parametrize("odd", [None, 1.5, -1, "x", [], {}, True, [1], {"x": 1}, "a\0b"])
def test_odd_facts_are_read_or_raise_an_error_with_file_and_field(odd: Any) -> None:
    document = {**CHANGE.to_facts(), **LEARNED}
    refused = 0
    for path in places(document):
        changed = copy.deepcopy(document)
        *above, last = path
        inner = changed
        for name in above:
            inner = inner[name]
        inner[last] = odd
        try:
            read_change(value(changed)), read_facts(value(changed))
        except StateError as error:
            refused += 1
            assert "journal.json cannot be used: facts." in error.message and str(path[0]) in error.message
    assert refused > 20


def test_what_is_missing_is_named() -> None:
    optional = {"by_dump", "mark", "move", "repairs", "accepted", "port"}
    facts = CHANGE.to_facts()
    for name in facts:
        less = {other: fact for other, fact in facts.items() if other != name}
        if name in optional:
            read_change(value(less))
        else:
            with pytest.raises(StateError, match=f"facts.{name} is missing"):
                read_change(value(less))
