"""What became of the values of small tables: compared by primary key, before and after.

Pure. A removed column is moved when its values are in another column now, else lost. `value_query` reads the databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compose_chap.check import Check
from compose_chap.postgres.server import identifier, literal
from compose_chap.redact import redact

# Tables with more rows are not compared.
LARGEST = 10_000
# Longer values are cut in reports.
SHOWN = 80
_EXAMPLES = 3

# Columns that a release renamed, where the values should be. From v2.2.0 on CHAP's migration leaves 0 there.
RENAMED = {
    ("public.modeltemplatedb", "min_prediction_length"): "min_prediction_periods",
    ("public.modeltemplatedb", "max_prediction_length"): "max_prediction_periods",
}
# Values that a release changes on purpose.
_INTENDED = {("public.modeltemplatedb.version", None, "legacy-unversioned")}

Key = tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """A value as text, cut at `SHOWN` characters, and the digest of the full value; both None for NULL."""

    shown: str | None
    digest: str | None

    @property
    def summary(self) -> str:
        """The value for people, without passwords."""
        return "empty" if self.shown is None else redact(self.shown) or "''"


@dataclass(frozen=True)
class Table:
    """A table: its columns in their order, its primary key, and where columns point: column -> (table, column)."""

    columns: tuple[str, ...]
    key: Key
    references: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class CellChange:
    """A value that changed."""

    key: Key
    before: Cell
    now: Cell


@dataclass(frozen=True)
class ChangedColumn:
    """A column (`schema.table.column`) with changed values."""

    column: str
    changes: tuple[CellChange, ...]


@dataclass(frozen=True)
class GoneColumn:
    """A removed column: how many values it had, and where they are now, empty for lost.

    `changes` are the values that differ there.
    """

    column: str
    values: int
    moved_to: str
    changes: tuple[CellChange, ...]


@dataclass(frozen=True)
class Values:
    """The result of a comparison: compared tables, changed columns, removed columns, and the SQL that repairs."""

    tables: int
    changed: tuple[ChangedColumn, ...]
    gone: tuple[GoneColumn, ...]
    put_back: str


# A column's values by the primary key of their rows.
Column = Mapping[Key, Cell]


def changes(before: Column, now: Column) -> tuple[CellChange, ...]:
    """Return the changed values of remaining rows, in the order of `before`."""
    return tuple(CellChange(key, old, now[key]) for key, old in before.items() if key in now and now[key] != old)


def changed(column: str, before: Column, now: Column) -> list[ChangedColumn]:
    """Return the column with its unintended changes, empty for none."""
    unintended = tuple(
        change for change in changes(before, now) if (column, change.before.shown, change.now.shown) not in _INTENDED
    )
    return [ChangedColumn(column, unintended)] if unintended else []


def gone(column: str, before: Column, candidates: Sequence[tuple[str, Column]]) -> GoneColumn:
    """Return what became of a removed column. `candidates` are the columns where its values may be now, by name.

    A column with the same name, or the known new name, counts even if values changed; any other column only if
    all values are the same and not all equal.
    """
    had = {key: value for key, value in before.items() if value.digest is not None}
    table, _, name = column.rpartition(".")
    names = {name, RENAMED.get((table, name), name)}
    by_name = [candidate for candidate in candidates if candidate[0].rpartition(".")[2] in names]
    for label, now in by_name:
        if had and had.keys() <= now.keys():
            return GoneColumn(column, len(had), label, changes(had, now))
    if len({value.digest for value in had.values()}) > 1:
        for label, now in candidates:
            if had.keys() <= now.keys() and not changes(had, now):
                return GoneColumn(column, len(had), label, ())
    return GoneColumn(column, len(had), "", ())


def put_back(columns: Iterable[GoneColumn], keys: Mapping[str, Key]) -> str:
    """Return SQL that restores the previous values of renamed columns, empty for none.

    `keys` are the primary keys of the tables, by their name. A value that somebody set since then stays.
    """
    return "\n".join(statement for column in columns for statement in _statements(column, keys))


def _statements(column: GoneColumn, keys: Mapping[str, Key]) -> Iterator[str]:
    table, _, name = column.column.rpartition(".")
    if RENAMED.get((table, name)) != column.moved_to.rpartition(".")[2] or table not in keys:
        return
    alike: dict[tuple[str | None, str | None], list[Key]] = {}
    for change in column.changes:
        alike.setdefault((change.before.shown, change.now.shown), []).append(change.key)
    target = identifier(column.moved_to.rpartition(".")[2])
    schema, _, alone = table.partition(".")
    which = _list(map(identifier, keys[table]))
    for (before, now), rows in alike.items():
        places = ", ".join(_list(map(literal, key)) for key in rows)
        yield (
            f"UPDATE {identifier(schema)}.{identifier(alone)} SET {target} = {_literal(before)}"
            f" WHERE {target} IS NOT DISTINCT FROM {_literal(now)} AND {which} IN ({places});"
        )


def _list(parts: Iterable[str]) -> str:
    parts = list(parts)
    return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"


def _literal(value: str | None) -> str:
    return "NULL" if value is None else literal(value)


def check(values: Values, command: str = "") -> Check:
    """Return the check for a comparison. `command` restores the values, if known."""
    moved = [gone for gone in values.gone if gone.moved_to]
    lost = [gone for gone in values.gone if gone.values and not gone.moved_to]
    differing = [
        *(f"{_short(gone.column)} {_examples(gone.changes)}" for gone in values.changed),
        *(
            f"{_short(gone.column)}, now {_short(gone.moved_to)}, {_examples(gone.changes)}"
            for gone in moved
            if gone.changes
        ),
    ]
    sentences = [
        f"Values changed: {'; '.join(differing)}."
        if differing
        else f"No value changed in {values.tables} small tables."
    ]
    if lost:
        sentences.append(
            "Columns that were removed together with their values: "
            + ", ".join(f"{_short(gone.column)} ({gone.values} values)" for gone in lost)
            + "."
        )
    if moved_unchanged := [f"{_short(gone.column)} to {_short(gone.moved_to)}" for gone in moved if not gone.changes]:
        sentences.append(f"Moved: {', '.join(moved_unchanged)}.")
    details: dict[str, Any] = {
        "changed": [_change_document(gone.column, gone.changes) for gone in values.changed],
        "moved": [
            {**_change_document(gone.column, gone.changes), "to": gone.moved_to, "values": gone.values}
            for gone in moved
        ],
        "lost": [{"column": gone.column, "values": gone.values} for gone in lost],
    }
    hint = ""
    if values.put_back:
        details["put_back"] = {"sql": values.put_back, "command": command}
        hint = "The command that puts values back is below, and in the report."
    return Check("values", "warn" if differing or lost else "ok", " ".join(sentences), hint, details)


def _change_document(column: str, all_changes: Sequence[CellChange]) -> dict[str, Any]:
    examples = [
        {"key": list(change.key), "before": change.before.summary, "now": change.now.summary}
        for change in all_changes[:_EXAMPLES]
    ]
    return {"column": column, "rows": len(all_changes), "examples": examples}


def _examples(all_changes: Sequence[CellChange]) -> str:
    first = all_changes[0]
    rows = f"in {len(all_changes)} row{'s' if len(all_changes) > 1 else ''}"
    return f"{rows} (row {', '.join(first.key)}: {_brief(first.before)} became {_brief(first.now)})"


def _brief(value: Cell) -> str:
    words = value.summary
    return words if len(words) <= 30 else words[:27] + "..."


def _short(column: str) -> str:
    return column.removeprefix("public.")
