"""What became of the values: what small tables had before, by primary key, held against what they have now.

Pure. A column that went is moved where its values are elsewhere now, else lost. `value_query` asks the databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compose_chap.check import Check
from compose_chap.postgres.server import identifier, literal
from compose_chap.redact import redact

# The rows of a table up to which its values are compared.
LARGEST = 10_000
# How long a value may be that is told in full.
SHOWN = 80
_EXAMPLES = 3

# Columns that a release renamed, where the values should be. From v2.2.0 on CHAP's migration leaves 0 there.
RENAMED = {
    ("public.modeltemplatedb", "min_prediction_length"): "min_prediction_periods",
    ("public.modeltemplatedb", "max_prediction_length"): "max_prediction_periods",
}
# What a release makes of a value on purpose: no reason to look closer.
_INTENDED = {("public.modeltemplatedb.version", None, "legacy-unversioned")}

Key = tuple[str, ...]


@dataclass(frozen=True)
class Value:
    """A value as text, cut at `SHOWN` characters, and the digest of all of it; both None for NULL."""

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
class Change:
    """One value that is another now."""

    key: Key
    before: Value
    now: Value


@dataclass(frozen=True)
class Changed:
    """A column (`schema.table.column`) with values that are others now."""

    column: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Gone:
    """A column that is no longer there: how many values it had, and where they are now, empty for lost.

    `changes` are those that are others there.
    """

    column: str
    values: int
    moved_to: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Values:
    """What came of comparing: tables that were compared, columns that changed, columns that went; SQL that mends."""

    tables: int
    changed: tuple[Changed, ...]
    gone: tuple[Gone, ...]
    put_back: str


# A column's values by the primary key of their rows.
Column = Mapping[Key, Value]


def changes(before: Column, now: Column) -> tuple[Change, ...]:
    """Return the values of rows that are still there and are others now, in the order of `before`."""
    return tuple(Change(key, old, now[key]) for key, old in before.items() if key in now and now[key] != old)


def changed(column: str, before: Column, now: Column) -> list[Changed]:
    """Return the column with what changed in it, nothing where that is nothing or meant to be."""
    found = tuple(
        change for change in changes(before, now) if (column, change.before.shown, change.now.shown) not in _INTENDED
    )
    return [Changed(column, found)] if found else []


def gone(column: str, before: Column, candidates: Sequence[tuple[str, Column]]) -> Gone:
    """Return what became of a column that went. `candidates` are the columns where its values may be now, by name.

    One of the same name, or that is known to be the new name, counts also where values changed on the way; any other
    only where all are the same, and differ among themselves.
    """
    had = {key: value for key, value in before.items() if value.digest is not None}
    table, _, name = column.rpartition(".")
    names = {name, RENAMED.get((table, name), name)}
    by_name = [candidate for candidate in candidates if candidate[0].rpartition(".")[2] in names]
    for label, now in by_name:
        if had and had.keys() <= now.keys():
            return Gone(column, len(had), label, changes(had, now))
    if len({value.digest for value in had.values()}) > 1:
        for label, now in candidates:
            if had.keys() <= now.keys() and not changes(had, now):
                return Gone(column, len(had), label, ())
    return Gone(column, len(had), "", ())


def put_back(columns: Iterable[Gone], keys: Mapping[str, Key]) -> str:
    """Return SQL that gives renamed columns the values that they had before, empty where there is none to give.

    `keys` are the primary keys of the tables, by their name. A value that somebody set since stays.
    """
    return "\n".join(statement for column in columns for statement in _statements(column, keys))


def _statements(column: Gone, keys: Mapping[str, Key]) -> Iterator[str]:
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


def check(found: Values, command: str = "") -> Check:
    """Return the check of what was compared. `command` puts the values back, where that is known."""
    moved = [one for one in found.gone if one.moved_to]
    lost = [one for one in found.gone if one.values and not one.moved_to]
    amiss = [
        *(f"{_short(one.column)} {_examples(one.changes)}" for one in found.changed),
        *(
            f"{_short(one.column)}, now {_short(one.moved_to)}, {_examples(one.changes)}"
            for one in moved
            if one.changes
        ),
    ]
    said = [f"Values changed: {'; '.join(amiss)}." if amiss else f"No value changed in {found.tables} small tables."]
    if lost:
        said.append(
            "Columns that went with their values: "
            + ", ".join(f"{_short(one.column)} ({one.values} values)" for one in lost)
            + "."
        )
    if whole := [f"{_short(one.column)} to {_short(one.moved_to)}" for one in moved if not one.changes]:
        said.append(f"Moved: {', '.join(whole)}.")
    details: dict[str, Any] = {
        "changed": [_told(one.column, one.changes) for one in found.changed],
        "moved": [{**_told(one.column, one.changes), "to": one.moved_to, "values": one.values} for one in moved],
        "lost": [{"column": one.column, "values": one.values} for one in lost],
    }
    hint = ""
    if found.put_back:
        details["put_back"] = {"sql": found.put_back, "command": command}
        hint = "The command that puts values back is below, and in the report."
    return Check("values", "warn" if amiss or lost else "ok", " ".join(said), hint, details)


def _told(column: str, all_changes: Sequence[Change]) -> dict[str, Any]:
    examples = [
        {"key": list(change.key), "before": change.before.summary, "now": change.now.summary}
        for change in all_changes[:_EXAMPLES]
    ]
    return {"column": column, "rows": len(all_changes), "examples": examples}


def _examples(all_changes: Sequence[Change]) -> str:
    first = all_changes[0]
    rows = f"in {len(all_changes)} row{'s' if len(all_changes) > 1 else ''}"
    return f"{rows} (row {', '.join(first.key)}: {_brief(first.before)} became {_brief(first.now)})"


def _brief(value: Value) -> str:
    words = value.summary
    return words if len(words) <= 30 else words[:27] + "..."


def _short(column: str) -> str:
    return column.removeprefix("public.")
