"""The verdict on a database, for every state that a CHAP is known to be in, and each rule by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from compose_chap.postgres.database_schema import Column, DatabaseSchema, ForeignKey
from compose_chap.stack import schema
from compose_chap.stack.model_schema import ModelSchema

CHAIN: tuple[str, ...] = (
    *("fe59a33965ed", "ff2b1bbb8418", "a1b2c3d4e5f6", "b2c3d4e5f6a7", "c3d4e5f6a7b8", "d4e5f6a7b8c9"),
    *("e5f6a7b8c9d0", "f6a7b8c9d0e1", "a7b8c9d0e1f2", "b8c9d0e1f2a3", "c9d0e1f2a3b4", "d0e1f2a3b4c5"),
    *("e1f2a3b4c5d6", "f2a3b4c5d6e1", "a3b4c5d6e7f2", "b4c5d6e7f8a3", "c5d6e7f8a3b4", "d6e7f8a3b4c5"),
    *("e7f8a3b4c5d6", "de7478f3ff6d"),
)

HEADS = {
    **{"2.0.0": "f6a7b8c9d0e1", "2.1.0": "a7b8c9d0e1f2", "2.2.0": "e1f2a3b4c5d6", "2.3.0": "f2a3b4c5d6e1"},
    **{"2.3.1": "a3b4c5d6e7f2", "2.4.0": "e7f8a3b4c5d6", "2.5.0": "de7478f3ff6d", "2.5.1": "de7478f3ff6d"},
}

ID = Column("id", "INTEGER", nullable=False, default=False)
HAS_ID = Column("id", "integer", nullable=False, default=True)


def models(version: str) -> ModelSchema:
    """Return what a release wants of the tables that the rules were found with."""
    new = version >= "2.3.0"
    backtest = [ID, Column("name", "VARCHAR", nullable=True, default=False)]
    if new:
        backtest.append(Column("specification_id", "INTEGER", nullable=False, default=False))
    elif version >= "2.2.0":
        backtest.append(Column("n_periods", "INTEGER", nullable=False, default=False))
    prediction = (ID, Column("prediction_setup_id", "INTEGER", nullable=True, default=False))
    tables = {"backtest": tuple(backtest), "prediction": prediction}
    if new:
        tables["backtestspecification"] = (ID,)
    keys = (ForeignKey("backtest", "specification_id", "backtestspecification", "id"),) if new else ()
    head = HEADS[version]
    return ModelSchema(version, tables, keys, CHAIN[: CHAIN.index(head) + 1], (head,))


def database(version: str, mark: str | None = "", **changes: Any) -> DatabaseSchema:
    """Return a database as a release leaves it, with its head as the mark if none is given; None is no mark."""
    types = {"INTEGER": "integer", "VARCHAR": "character varying"}
    tables = {
        name: tuple(HAS_ID if column is ID else replace(column, type=types[column.type]) for column in columns)
        for name, columns in models(version).tables.items()
    }
    marks = () if mark is None else (mark or HEADS[version],)
    return replace(DatabaseSchema(tables, {}, (), marks), **changes)


def with_columns(schema_of: DatabaseSchema, table: str, *more: Column) -> DatabaseSchema:
    """Return a database with more columns in a table."""
    return replace(schema_of, tables={**schema_of.tables, table: (*schema_of.tables[table], *more)})


def without_column(schema_of: DatabaseSchema, table: str, name: str) -> DatabaseSchema:
    """Return a database that lacks a column."""
    return replace(
        schema_of, tables={**schema_of.tables, table: tuple(c for c in schema_of.tables[table] if c.name != name)}
    )


# What 2.2.0 left, with what the generic migration of 2.3.1 and its create_all added, and not one revision.
BROKEN = with_columns(
    database("2.3.1", "e1f2a3b4c5d6", orphans={"backtest.specification_id": 3}),
    "backtest",
    Column("n_periods", "integer", nullable=False, default=False),
)

GOOD = [
    ("2.0.0", database("2.0.0", None), schema.ALEMBIC_BEHIND),
    ("2.1.0", database("2.1.0", None), schema.ALEMBIC_BEHIND),
    ("2.1.0", database("2.1.0", "ff2b1bbb8418"), schema.ALEMBIC_BEHIND),  # born under v1.1.1 to v1.1.4
    ("2.1.0", database("2.1.0"), schema.COMPLETE),
    ("2.2.0", database("2.2.0"), schema.COMPLETE),
    ("2.3.1", database("2.3.1"), schema.COMPLETE),
    ("2.4.0", database("2.4.0"), schema.COMPLETE),
    ("2.5.1", database("2.5.1"), schema.COMPLETE),
]


@pytest.mark.parametrize(("version", "has", "verdict"), GOOD)
def test_good_states_are_good(version: str, has: DatabaseSchema, verdict: str) -> None:
    result = schema.compare(models(version), has)
    assert (result.verdict, result.status) == (verdict, "ok")
    assert ("does not use it" in result.summary) == (verdict == schema.ALEMBIC_BEHIND)
    assert not result.start_migrates


def test_the_broken_state_is_not_migrated_and_says_everything_that_is_wrong() -> None:
    result = schema.compare(models("2.3.1"), BROKEN)
    assert (result.verdict, result.status) == (schema.NOT_MIGRATED, "fail")
    assert not result.start_migrates
    assert result.summary == (
        "The database is not migrated to CHAP 2.3.1."
        " CHAP 2.3.1 cannot save rows, because it does not fill backtest.n_periods (NOT NULL)."
        " Rows refer to rows that do not exist: backtest.specification_id (3 rows)."
        " Alembic's revision is e1f2a3b4c5d6, and CHAP 2.3.1 wants a3b4c5d6e7f2."
    )


# Each rule alone tells the broken state from a good one.
@pytest.mark.parametrize(
    ("has", "words"),
    [
        (replace(BROKEN, orphans={}, marks=("a3b4c5d6e7f2",)), "does not fill backtest.n_periods"),
        (database("2.3.1", orphans={"backtest.specification_id": 1}), "backtest.specification_id (1 row)"),
        (database("2.3.1", "e1f2a3b4c5d6"), "revision is e1f2a3b4c5d6, and CHAP 2.3.1 wants a3b4c5d6e7f2"),
        (database("2.3.1", None), "revision is missing, and CHAP 2.3.1 wants a3b4c5d6e7f2"),
        (database("2.3.1", "ff2b1bbb8418"), "revision is ff2b1bbb8418, and CHAP 2.3.1 wants a3b4c5d6e7f2"),
    ],
)
def test_a_rule_alone_is_enough(has: DatabaseSchema, words: str) -> None:
    result = schema.compare(models("2.3.1"), has)
    assert (result.verdict, result.status) == (schema.NOT_MIGRATED, "fail")
    assert words in result.summary


def test_predictions_from_before_their_model_was_written_down_do_no_harm_and_hide_nothing() -> None:
    old = {"prediction.model_db_id": 2}
    for version in ("2.1.0", "2.5.1"):
        result = schema.compare(models(version), database(version, orphans=old))
        assert (result.verdict, result.status, result.orphans) == (schema.COMPLETE, "ok", {})
        assert "that do not exist, which does no harm: prediction.model_db_id (2 rows)" in result.summary
    broken = {**old, "backtest.specification_id": 1, "backtest.model_db_id": 1}
    result = schema.compare(models("2.3.1"), database("2.3.1", orphans=broken))
    assert result.verdict == schema.NOT_MIGRATED and len(result.orphans) == 2


@pytest.mark.parametrize(
    "column",
    [
        Column("old", "integer", nullable=True, default=False),
        Column("old", "integer", nullable=False, default=True),
        Column("old", "integer", nullable=True, default=True),
    ],
)
def test_a_column_that_the_code_does_not_know_and_need_not_fill_is_nothing(column: Column) -> None:
    has = with_columns(database("2.5.1"), "backtest", column)
    assert schema.compare(models("2.5.1"), has).verdict == schema.COMPLETE


def test_a_table_that_the_code_does_not_know_is_nothing() -> None:
    has = database("2.5.1")
    has = replace(has, tables={**has.tables, "debugentry": (Column("x", "text", nullable=False, default=False),)})
    assert schema.compare(models("2.5.1"), has).verdict == schema.COMPLETE


def test_old_code_on_newer_data_is_not_migrated_and_its_start_does_not_help() -> None:
    result = schema.compare(models("2.1.0"), database("2.5.1"))
    assert result.verdict == schema.NOT_MIGRATED
    assert "does not fill backtest.specification_id" in result.summary
    assert "CHAP 2.1.0 does not know Alembic's revision de7478f3ff6d: a newer release made it." in result.summary
    assert not result.start_migrates


def test_what_is_missing_is_named() -> None:
    has = without_column(database("2.5.1"), "backtest", "specification_id")
    has = replace(has, tables={name: columns for name, columns in has.tables.items() if name != "prediction"})
    result = schema.compare(models("2.5.1"), has)
    assert (result.verdict, result.status) == (schema.INCOMPLETE, "fail")
    assert result.summary.startswith(
        "The database is missing what this version needs: prediction, backtest.specification_id."
    )


def test_a_mark_of_a_newer_release_is_named() -> None:
    result = schema.compare(models("2.5.1"), database("2.5.1", "0123456789ab"))
    assert (result.verdict, result.status) == (schema.MARK_UNKNOWN, "warn")
    assert "CHAP 2.5.1 does not know Alembic's revision 0123456789ab: a newer release made it." in result.summary


def test_a_mark_that_is_behind_without_harm_is_a_warning_with_both_revisions() -> None:
    result = schema.compare(models("2.3.1"), database("2.3.1", "f2a3b4c5d6e1"))
    assert (result.verdict, result.status) == (schema.MARK_BEHIND, "warn")
    assert "Alembic's revision is f2a3b4c5d6e1, not a3b4c5d6e7f2, which does no harm here." in result.summary


def test_releases_from_2_2_0_on_use_the_mark() -> None:
    for version in [release for release in HEADS if release >= "2.2.0"]:
        for mark in (None, *CHAIN, "0123456789ab"):
            result = schema.compare(models(version), database(version, mark))
            assert "does not use it" not in result.summary
            assert (result.status == "ok") == (mark == HEADS[version])


def test_an_image_without_revisions_is_named() -> None:
    for marks in ((), ("de7478f3ff6d",)):
        result = schema.compare(replace(models("2.5.1"), chain=(), heads=()), database("2.5.1", marks=marks))
        assert (result.verdict, result.status) == (schema.MARK_BEHIND, "warn")
        assert "cannot be seen" in result.summary


@pytest.mark.parametrize("mark", [None, "a7b8c9d0e1f2", "c9d0e1f2a3b4"])
def test_data_of_an_older_release_are_migrated_by_a_start(mark: str | None) -> None:
    has = replace(database("2.1.0"), marks=(mark,) if mark else ())
    result = schema.compare(models("2.5.1"), has)
    assert result.status == "fail"
    assert result.start_migrates
    assert result.pending == CHAIN[CHAIN.index(mark or "a7b8c9d0e1f2") + 1 :]


@pytest.mark.parametrize(
    ("wanted", "has", "difference"),
    [
        ("VARCHAR", "character varying", ""),
        ("VARCHAR", "text", ""),
        ("VARCHAR(32)", "character varying", ""),
        ("VARCHAR(32)", "character varying(64)", ""),
        ("VARCHAR(32)", "character varying(8)", "x.y is character varying(8), which is too short"),
        ("VARCHAR", "integer", "x.y is integer, not character varying"),
        ("INTEGER", "bigint", ""),
        ("INTEGER", "double precision", "x.y is double precision, not integer"),
        ("FLOAT", "double precision", ""),
        ("FLOAT", "integer", "x.y is integer, not double precision"),
        ("JSON", "jsonb", ""),
        ("JSON", "character varying", "x.y is character varying, not json"),
        ("TIMESTAMP WITH TIME ZONE", "timestamp without time zone", ""),
        ("BOOLEAN", "boolean", ""),
        ("BOOLEAN", "integer", "x.y is integer, not boolean"),
        ("periodtype", "periodtype", ""),
        ("periodtype", "character varying", "x.y is character varying, not periodtype"),
    ],
)
def test_types_that_hold_other_values_are_named(wanted: str, has: str, difference: str) -> None:
    result = _single_column(
        Column("y", wanted, nullable=True, default=False), Column("y", has, nullable=True, default=False)
    )
    assert result.differences == ((difference,) if difference else ())
    assert result.status == ("warn" if difference else "ok")
    assert difference in result.summary
    assert result.verdict == schema.COMPLETE


@pytest.mark.parametrize(
    ("may", "has", "empty", "difference"),
    [
        (False, True, False, ""),  # as every column that CHAP adds at its start
        (False, True, True, "x.y has rows without a value"),
        (True, True, True, ""),
        (True, False, False, "x.y does not take NULL"),
    ],
)
def test_nulls_that_can_do_harm_are_named(may: bool, has: bool, empty: bool, difference: str) -> None:
    wanted, actual = (Column("y", "integer", nullable=nullable, default=False) for nullable in (may, has))
    result = _single_column(wanted, actual, ("x.y",) if empty else ())
    assert result.differences == ((difference,) if difference else ())
    assert result.status == ("warn" if difference else "ok")


def _single_column(wanted: Column, has: Column, empty: tuple[str, ...] = ()) -> schema.Schema:
    head = CHAIN[-1]
    return schema.compare(
        ModelSchema("2.5.1", {"x": (wanted,)}, (), CHAIN, (head,)), DatabaseSchema({"x": (has,)}, {}, empty, (head,))
    )
