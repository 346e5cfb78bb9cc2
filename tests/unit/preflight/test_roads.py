"""Which ways are known to go wrong, and what is said of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compose_chap import revisions
from compose_chap.detection import detect
from compose_chap.errors import DatabaseError, EngineError
from compose_chap.model import Stack
from compose_chap.preflight import preflight, release_notes, roads, unpinned
from compose_chap.preflight.known_roads import ROADS, RoadFacts
from compose_chap.processes.process import Finished
from compose_chap.transaction.data import repairs
from tests.fakes import FakeEngine

SHA = "58d56f86641f4c7b09bbb635afd61740deff0640"
NOTHING = RoadFacts((), 0, 0, ())
# Every fact that any road asks for.
ALL = RoadFacts(("ff2b1bbb8418",), 3, 9, ("local.yaml says v1: main of https://models.example/x",))


def stack() -> Stack:
    """Return a stack as it runs."""
    return detect(FakeEngine(Path("/srv/chap")).containers())[0]


def names(now: str, target: str, facts: RoadFacts) -> dict[str, str]:
    """Return the checks of a way by name, each with its status."""
    leading = [road for road in ROADS if roads._leads(road, now, target)]
    return {check.name: check.status for check in roads.known(leading, facts, now, target)}


@pytest.mark.parametrize(
    ("now", "target", "facts", "result"),
    [
        # Migrated in one go, and committed: no mark, whatever is in the database.
        ("2.1.0", "v2.3.1", RoadFacts((), 3, 0, ()), {}),
        ("2.0.0", "v2.1.0", ALL, {}),
        ("2.2.0", "v2.3.0", RoadFacts(("e1f2a3b4c5d6",), 0, 0, ()), {"uncommitted_migration": "fail"}),
        ("2.2.0", "v2.3.1", RoadFacts(("e1f2a3b4c5d6",), 3, 0, ()), {"uncommitted_migration": "fail"}),
        ("2.2.0", "v2.4.0", RoadFacts(("e1f2a3b4c5d6",), 0, 0, ()), {}),
        ("2.2.0", "v2.4.0", RoadFacts(("e1f2a3b4c5d6",), 3, 0, ()), {"target_column": "warn"}),
        ("2.3.0", "v2.3.1", RoadFacts(("f2a3b4c5d6e1",), 3, 0, ()), {"mark_behind": "warn"}),
        ("2.3.1", "v2.5.1", RoadFacts(("e1f2a3b4c5d6",), 3, 0, ()), {"half_migrated": "fail"}),
        ("2.3.1", "v2.5.1", RoadFacts(("a3b4c5d6e7f2",), 3, 0, ()), {}),
        ("2.1.0", "v2.2.0", RoadFacts(("ff2b1bbb8418",), 0, 0, ()), {"old_mark": "fail"}),
        ("1.4.0", "v2.1.0", RoadFacts(("ff2b1bbb8418",), 0, 0, ()), {}),
        ("", "v2.5.1", RoadFacts(("ff2b1bbb8418",), 0, 0, ()), {"old_mark": "fail"}),
        ("2.1.0", "v2.2.0", RoadFacts(("f6a7b8c9d0e1",), 0, 0, ()), {"old_mark": "fail"}),
        ("2.1.0", "v2.2.0", RoadFacts(("a7b8c9d0e1f2",), 0, 0, ()), {}),
        ("2.1.0", "v2.2.0", RoadFacts((), 0, 9, ()), {"prediction_length": "warn"}),
        ("2.2.0", "v2.5.1", RoadFacts((), 0, 9, ()), {}),
        ("2.1.0", "v2.5.1", RoadFacts((), 1, 0, ()), {"target_column": "warn"}),
        ("2.1.0", "v2.4.0", RoadFacts((), 0, 0, ("a", "b", "c", "d")), {"unpinned_models": "fail"}),
        ("2.1.0", "v2.3.1", RoadFacts((), 0, 0, ("a",)), {}),
        ("2.5.1", "v2.6.0", RoadFacts((), 0, 0, ("a",)), {"unpinned_models": "fail"}),
    ],
)
def test_a_road_is_named_where_it_goes_wrong_and_nowhere_else(
    now: str, target: str, facts: RoadFacts, result: dict[str, str]
) -> None:
    assert names(now, target, facts) == result


def test_every_road_says_what_why_and_which_way_instead() -> None:
    for road in ROADS:
        # The second mark is for the road that wants one of v2.2.0.
        (check,) = roads.known([road], replace(ALL, marks=("ff2b1bbb8418", "e1f2a3b4c5d6")), "2.2.0", "v2.9.0")
        assert check.message.endswith(".") and check.hint and check.details["source"] and road.summary
        assert "{" not in check.message + check.hint + check.details["repaired"]
        assert check.failed is bool(road.allow) and (not road.allow or check.hint.endswith(road.allow))


def test_each_refusal_has_a_flag_of_its_own() -> None:
    allowed = [road.allow for road in ROADS if road.allow]
    assert len(allowed) == len(set(allowed)) == 4 and set(allowed) < set(preflight.OVERRIDES.values())
    (check,) = roads.known(ROADS[:1], ALL, "2.2.0", "v2.3.1")
    assert preflight.overridden([check], {"old_mark"})[0].failed
    (overridden,) = preflight.overridden([check], {"uncommitted_migration"})
    assert overridden.status == "warn" and overridden.message.endswith("(allowed with --allow-uncommitted-migration)")


def test_whatever_is_called_repaired_is_something_that_the_transaction_mends() -> None:
    mended = {repairs.OLD_MARK, repairs.PREDICTION_LENGTH, repairs.TARGET_COLUMN, repairs.HALF_MIGRATED}
    assert {road.name for road in ROADS if road.repaired} == mended
    for road in ROADS:
        if road.repaired and road.on(replace(ALL, marks=("ff2b1bbb8418", "e1f2a3b4c5d6"))):
            assert "--repair" in road.instead, road.name


def test_what_is_repaired_does_not_stand_in_the_way() -> None:
    leading = [road for road in ROADS if roads._leads(road, "2.1.0", "v2.5.1")]
    result = roads.known(leading, ALL, "2.1.0", "v2.5.1")
    assert [check.name for check in result if check.failed] == ["old_mark", "unpinned_models"]
    with_repair = roads.repaired(result)
    assert [check.name for check in with_repair if check.failed] == ["unpinned_models"]
    assert roads.repairs(with_repair) == ("old_mark", "target_column", "prediction_length")
    assert "is dropped before 2.5.1 starts" in next(
        mended.message for mended in with_repair if mended.name == "old_mark"
    )


@pytest.mark.parametrize(
    ("now", "target", "hint"),
    [
        ("2.1.0", "v2.5.1", "Go to v2.3.1 first: docker chap upgrade v2.3.1. Then: docker chap upgrade v2.5.1"),
        (
            "2.2.0",
            "v2.4.0",
            "Let the upgrade make that table before it starts: docker chap upgrade v2.4.0 --repair",
        ),
        ("2.3.1", "v2.5.1", ""),
        ("2.1.0", "v2.3.1", ""),
    ],
)
def test_a_stop_on_the_way_is_the_hint_of_the_failure(now: str, target: str, hint: str) -> None:
    reason = 'NotNullViolation: null value in column "target_column" of relation "backtestspecification" violates'
    assert roads.hint_after(reason, now, target).startswith(hint) and bool(hint) == bool(
        roads.hint_after(reason, now, target)
    )
    assert roads.hint_after("OperationalError: the connection was refused", now, target) == ""
    assert roads.hint_after(reason, now, target, ("target_column",)) == ""


def test_a_release_newer_than_all_known_is_named() -> None:
    (note,) = roads.newer_than_known("v2.6.0")
    assert note.status == "warn" and note.message.startswith("v2.6.0 is newer than what this tool knows about CHAP")
    assert revisions.NEWEST in note.message and "\n" not in note.message
    assert not roads.newer_than_known("v2.5.1") and not roads.newer_than_known("latest")


def test_facts_come_from_the_database_as_far_as_it_has_the_tables() -> None:
    queries: list[str] = []

    def answers(*selects: str, database: str) -> list[list[list[Any]]]:
        queries.extend(selects)
        return [[[3]] for _ in selects]

    def document(question: str, database: str) -> str:
        return json.dumps({"columns": columns, "counts": counts})

    columns: list[Any] = [["backtest", "id", "integer", False, True]]
    counts: list[Any] = [{"what": "mark", "name": "ff2b1bbb8418", "rows": 1}]
    server = SimpleNamespace(document=document, answers=answers)
    subject: Any = SimpleNamespace(
        server=server,
        database=SimpleNamespace(name="chap_core"),
        stack=stack(),
        built=False,
        world=SimpleNamespace(engine=SimpleNamespace(run=lambda *_: Finished(1, "", "no such module"))),
    )
    assert roads.facts(subject) == RoadFacts(("ff2b1bbb8418",), 3, 0, ()) and len(queries) == 1
    columns.clear()
    counts.clear()
    assert roads.facts(subject) == NOTHING and len(queries) == 1


def test_where_the_database_cannot_be_asked_the_way_is_not_called_good() -> None:
    def document(question: str, database: str) -> Any:
        raise DatabaseError("PostgreSQL refused: it is gone", hint="look")

    subject: Any = SimpleNamespace(
        release="2.1.0",
        target="v2.5.1",
        database=SimpleNamespace(name="chap_core"),
        server=SimpleNamespace(document=document),
    )
    (check,) = roads.between(subject)
    assert check.failed and "it is gone" in check.message


def _entries(message: str, *, built: bool, status: int = 0) -> tuple[str, ...]:
    engine: Any = SimpleNamespace(run=lambda *_: Finished(status, message, "wrong"))
    return unpinned.entries(engine, stack().api.containers[0], built=built)


@pytest.mark.parametrize(
    ("reference", "counts"),
    [
        ("@" + SHA, False),
        (SHA.upper(), False),
        ("main", True),
        ("@v1.0", True),
        (SHA[:7], True),
        (SHA + "0", True),
        ("", True),
    ],
)
def test_only_a_full_commit_is_pinned(reference: str, counts: bool) -> None:
    file = "/app/config/configured_models/local.yaml"
    message = f'noise\n[["{file}", true, "https://u:secret@x.example/m", "v1", "{reference}"]]'
    result = _entries(message, built=False)
    assert bool(result) is counts and "secret" not in "".join(result)


def test_files_of_an_image_are_replaced_unless_they_are_built_in() -> None:
    folder = "/app/config/configured_models"
    message = (
        f'[["{folder}/local.yaml", false, "u", "v1", "main"], ["{folder}/default.yaml", false, "u", "v1", "main"]]'
    )
    assert _entries(message, built=False) == ()
    assert _entries(message, built=True) == (f"{folder}/local.yaml says v1: main of u",)
    with pytest.raises(EngineError, match="wrong"):
        _entries("", built=False, status=1)


def test_columns_move_on_every_way_that_takes_them_away() -> None:
    def noted(now: str, target: str) -> bool:
        return any(check.name == "note_columns" for check in release_notes.between(stack(), now, target))

    assert noted("2.0.0", "v2.2.0") and noted("2.1.0", "v2.5.1") and noted("2.2.0", "v2.4.0")
    assert not noted("2.0.0", "v2.1.0") and not noted("2.3.1", "v2.5.1") and not noted("2.3.0", "v2.3.1")
