"""What became of values, told from what two databases have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compose_chap.transaction.data import values
from compose_chap.transaction.data.values import Cell, CellChange, ChangedColumn, Column, GoneColumn, Values

TEMPLATES = "public.modeltemplatedb"


def column(*of: str | None) -> Column:
    """Return a column with these values in rows 1, 2, 3 …"""
    return {(str(at),): Cell(value, value if value is None else f"md5 of {value}") for at, value in enumerate(of, 1)}


def test_only_surviving_rows_with_other_values_have_changed() -> None:
    (result,) = values.changed(f"{TEMPLATES}.name", column("a", "b", None, "d"), column("a", "x", "c"))
    assert [(change.key, change.before.shown, change.now.shown) for change in result.changes] == [
        (("2",), "b", "x"),
        (("3",), None, "c"),
    ]
    assert values.changed("t.c", column("a", None), column("a", None, "new")) == []


def test_values_that_differ_behind_what_is_shown_differ() -> None:
    cut = "x" * values.SHOWN
    assert values.changes({("1",): Cell(cut, "one")}, {("1",): Cell(cut, "other")})


def test_what_a_release_means_to_do_is_no_change() -> None:
    assert values.changed(f"{TEMPLATES}.version", column(None, "v1"), column("legacy-unversioned", "v1")) == []
    assert values.changed(f"{TEMPLATES}.version", column("v1"), column("legacy-unversioned"))
    assert values.changed("public.other.version", column(None), column("legacy-unversioned"))


SPECIFICATION = "public.backtestspecification"
STRIDE = f"{SPECIFICATION}.stride"
LENGTH, PERIODS = f"{TEMPLATES}.min_prediction_length", f"{TEMPLATES}.min_prediction_periods"


@pytest.mark.parametrize(
    ("name", "before", "candidates", "moved_to", "changes"),
    [
        # Into the row that a new column points at.
        ("public.backtest.stride", column("1", "1"), [(STRIDE, column("1", "1"))], STRIDE, 0),
        ("public.backtest.stride", column("1", "2"), [(STRIDE, column("1", "3"))], STRIDE, 1),
        # Known to be the new name, with other values.
        (LENGTH, column("1", "3"), [(PERIODS, column("0", "0"))], PERIODS, 2),
        # A name that nobody knows, by looking.
        ("public.t.old", column("a", "b", None), [("t.x", column("c", "b")), ("t.y", column("a", "b", "z"))], "t.y", 0),
        # One value for all is no sign.
        ("public.t.old", column("0", "0"), [("public.t.new", column("0", "0"))], "", 0),
        ("public.t.old", column("a", "b"), [("public.t.new", column("a", "c"))], "", 0),
        # Rows that the new place does not have are not there.
        ("public.t.old", column("a", "b"), [("public.u.old", column("a"))], "", 0),
        ("public.t.old", column("a"), [], "", 0),
        ("public.t.old", column(None, None), [("public.t.new", column(None, None))], "", 0),
    ],
)  # fmt: skip
def test_a_column_that_went_is_moved_or_lost(
    name: str, before: Column, candidates: list[tuple[str, Column]], moved_to: str, changes: int
) -> None:
    result = values.gone(name, before, candidates)
    assert (result.moved_to, len(result.changes)) == (moved_to, changes)
    assert result.values == sum(value.shown is not None for value in before.values())


def lengths(*now: str) -> list[GoneColumn]:
    """Return the columns of prediction lengths 1 to 6, as a migration left them."""
    return [
        values.gone(f"{TEMPLATES}.{old}", column(*["1", "1", "2"]), [(f"{TEMPLATES}.{new}", column(*now))])
        for old, new in (("min_prediction_length", "min_prediction_periods"),)
    ]


def test_values_are_put_back_where_nobody_has_set_others_since() -> None:
    assert values.put_back(lengths("0", "0", "0"), {TEMPLATES: ("id",)}).splitlines() == [
        'UPDATE "public"."modeltemplatedb" SET "min_prediction_periods" = \'1\''
        " WHERE \"min_prediction_periods\" IS NOT DISTINCT FROM '0' AND \"id\" IN ('1', '2');",
        'UPDATE "public"."modeltemplatedb" SET "min_prediction_periods" = \'2\''
        " WHERE \"min_prediction_periods\" IS NOT DISTINCT FROM '0' AND \"id\" IN ('3');",
    ]
    assert values.put_back(lengths("1", "1", "2"), {TEMPLATES: ("id",)}) == ""
    # Only what is known to be the new name is written to.
    moved = values.gone("public.t.stride", column("1"), [("public.u.stride", column("2"))])
    assert values.put_back([moved], {"public.t": ("id",), "public.u": ("id",)}) == ""


def test_what_is_put_back_cannot_leave_its_quotes() -> None:
    change = CellChange(("1'); DROP TABLE x; --",), Cell("a'; DROP TABLE x; --", "1"), Cell(None, None))
    odd = GoneColumn(f"{TEMPLATES}.min_prediction_length", 1, f"{TEMPLATES}.min_prediction_periods", (change,))
    sql = values.put_back([odd], {TEMPLATES: ('i"d',)})
    assert "'a''; DROP TABLE x; --'" in sql and "IN ('1''); DROP TABLE x; --')" in sql and 'AND "i""d" IN' in sql
    assert "IS NOT DISTINCT FROM NULL" in sql
    two = replace(odd, changes=(replace(change, key=("1", "b")),))
    assert """AND ("a", "b") IN (('1', 'b'));""" in values.put_back([two], {TEMPLATES: ("a", "b")})


def test_the_check_tells_changed_moved_and_lost_apart() -> None:
    moved = GoneColumn("public.backtest.stride", 3, f"{SPECIFICATION}.stride", ())
    lost = GoneColumn("public.t.old", 2, "", ())
    empty = GoneColumn("public.t.unused", 0, "", ())
    change = CellChange(("7",), Cell("https://me:geheim@x.example", "1"), Cell("y" * 70, "2"))
    result = Values(
        5, (ChangedColumn("public.dataset.name", (change,)),), (moved, lost, empty, *lengths("0", "0", "0")), "UPDATE"
    )
    check = values.check(result, "docker compose exec")
    assert check.status == "warn" and "geheim" not in str(check)
    assert "dataset.name in 1 row (row 7: https://me:***@x.example became yyyy" in check.message
    assert (
        "modeltemplatedb.min_prediction_length, now modeltemplatedb.min_prediction_periods, in 3 rows" in check.message
    )
    assert (
        "Columns that were removed together with their values: t.old (2 values)." in check.message
        and "unused" not in check.message
    )
    assert "Moved: backtest.stride to backtestspecification.stride." in check.message
    assert check.details["put_back"] == {"sql": "UPDATE", "command": "docker compose exec"} and check.hint
    assert [column["column"] for column in check.details["moved"]] == [
        "public.backtest.stride",
        f"{TEMPLATES}.min_prediction_length",
    ]
    assert check.details["lost"] == [{"column": "public.t.old", "values": 2}]
    assert check.details["changed"][0]["rows"] == 1


def test_where_nothing_changed_the_check_is_good() -> None:
    check = values.check(Values(5, (), (GoneColumn("public.backtest.stride", 3, f"{SPECIFICATION}.stride", ()),), ""))
    assert check.status == "ok" and check.message.startswith("No value changed in 5 small tables.") and not check.hint
