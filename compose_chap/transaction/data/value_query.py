"""Read the values of small tables in databases of one server.

When both databases exist, digests are compared first, and only differing tables are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from compose_chap.postgres.database_schema import MARK_TABLE
from compose_chap.postgres.server import Server, identifier
from compose_chap.postgres.statements import TABLES
from compose_chap.transaction.data import values
from compose_chap.transaction.data.values import (
    LARGEST,
    RENAMED,
    SHOWN,
    Cell,
    ChangedColumn,
    Column,
    GoneColumn,
    Table,
    Values,
)

_LAYOUT = (
    """
SELECT n.nspname || '.' || c.relname,
  (SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_attribute a
   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  (SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_index i JOIN pg_attribute a
   ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) WHERE i.indrelid = c.oid AND i.indisprimary),
  (SELECT json_agg(json_build_array(a.attname, fn.nspname || '.' || fc.relname, fa.attname)) FROM pg_constraint k
   JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
   JOIN pg_class fc ON fc.oid = k.confrelid JOIN pg_namespace fn ON fn.oid = fc.relnamespace
   JOIN pg_attribute fa ON fa.attrelid = k.confrelid AND fa.attnum = k.confkey[1]
   WHERE k.conrelid = c.oid AND k.contype = 'f' AND cardinality(k.conkey) = 1)
"""
    + TABLES
)

_Layout = Mapping[str, Table]


@dataclass(frozen=True)
class _Location:
    """Where a row of a table has a value: in its own column, or in that of the row that `through` references."""

    table: str
    column: str
    through: str = ""

    @property
    def label(self) -> str:
        return f"{self.table}.{self.column}"


@dataclass(frozen=True)
class Before:
    """A database before a change: its tables, and the values of the small ones if they were read then.

    Without `values` they are read from the database itself, which is kept.
    """

    database: str
    tables: _Layout
    values: Mapping[str, Mapping[str, Column]] | None = None


def kept(server: Server, database: str) -> Before:
    """Return the tables of a database that is kept. Raise DatabaseError."""
    return Before(database, _layout(server, database))


def remember(server: Server, database: str, rows: Mapping[str, int]) -> Before:
    """Return the tables of a database that will not be kept, with all values of its small tables.

    `rows` are those of every table, by its name. Raise DatabaseError.
    """
    tables = _layout(server, database)
    places = {
        name: [_Location(name, column) for column in table.columns]
        for name, table in tables.items()
        if table.key and _is_small(name, rows)
    }
    return Before(database, tables, _fetch(server, database, tables, places))


def compare(server: Server, before: Before, now: str, rows: Mapping[str, int]) -> Values:
    """Compare the database `now` with what was `before`; `rows` are those of every table then, by its name.

    Raise DatabaseError when one of them does not answer.
    """
    new = _layout(server, now)
    small = {name: table for name, table in before.tables.items() if _comparable(name, table, new, rows)}
    was: Mapping[str, Mapping[str, Column]]
    if before.values is None:
        differing = _differing(server, before.database, now, small, new)
        wanted = {name: _locations_before(name, small[name], new, differing) for name in small}
        was = _fetch(server, before.database, before.tables, wanted)
    else:
        small = {name: table for name, table in small.items() if name in before.values}
        differing, was = set(small), before.values
    now_columns = _fetch(server, now, new, {name: _locations_now(name, small[name], new, differing) for name in small})
    return _classified(small, new, differing, was, now_columns)


def _differing(server: Server, before: str, now: str, small: _Layout, new: _Layout) -> set[str]:
    """Return the tables whose digests differ, in the columns that both databases have."""
    digests = [_digest(name, table, new[name]) for name, table in small.items()]
    if not digests:
        return set()
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda database: server.answers(*digests, database=database), (before, now))
    return {name for name, old, new_ in zip(small, first, second) if old != new_}


def _classified(
    small: _Layout,
    new: _Layout,
    differing: set[str],
    was: Mapping[str, Mapping[str, Column]],
    columns_now: Mapping[str, Mapping[str, Column]],
) -> Values:
    """Return which values changed in remaining columns, and what became of those in removed columns."""
    changed: list[ChangedColumn] = []
    gone: list[GoneColumn] = []
    for name, table in small.items():
        known = {f"{name}.{column}" for column in table.columns}
        candidates = [candidate for candidate in columns_now[name].items() if candidate[0] not in known]
        for column in table.columns:
            label = f"{name}.{column}"
            if column not in new[name].columns:
                gone.append(values.gone(label, was[name][label], candidates))
            elif name in differing:
                changed += values.changed(label, was[name][label], columns_now[name][label])
    put_back = values.put_back(gone, {name: table.key for name, table in small.items()})
    return Values(len(small), tuple(changed), tuple(gone), put_back)


def renamed(server: Server, database: str) -> dict[str, Column]:
    """Return the values of the columns that a release renames, by their old names, as far as the database has them."""
    layout = _layout(server, database)
    places: dict[str, list[_Location]] = {}
    for name, column in RENAMED:
        if name in layout and column in layout[name].columns and layout[name].key:
            places.setdefault(name, []).append(_Location(name, column))
    return {
        label: column
        for of_table in _fetch(server, database, layout, places).values()
        for label, column in of_table.items()
    }


def give_back(server: Server, database: str, before: Mapping[str, Column]) -> str:
    """Set renamed columns to the values that `renamed` returned before. Return the SQL."""
    layout = _layout(server, database)
    places: dict[str, list[_Location]] = {}
    for label in before:
        table, _, column = label.rpartition(".")
        if RENAMED[table, column] in layout.get(table, Table((), (), {})).columns:
            places.setdefault(table, []).append(_Location(table, RENAMED[table, column]))
    now = _fetch(server, database, layout, places)
    gone = [
        values.gone(label, column, list(now.get(label.rpartition(".")[0], {}).items()))
        for label, column in before.items()
    ]
    sql = values.put_back(gone, {name: table.key for name, table in layout.items()})
    if sql:
        server.command(f"BEGIN;\n{sql}\nCOMMIT;", database)
    return sql


def _layout(server: Server, database: str) -> dict[str, Table]:
    return {
        name: Table(
            tuple(columns or ()),
            tuple(key or ()),
            {reference: (table, to) for reference, table, to in references or ()},
        )
        for name, columns, key, references in server.query(_LAYOUT, database)
    }


def _comparable(name: str, table: Table, new: _Layout, rows: Mapping[str, int]) -> bool:
    same_key = name in new and new[name].key == table.key != ()
    return same_key and _is_small(name, rows)


def _is_small(name: str, rows: Mapping[str, int]) -> bool:
    # Alembic's mark is checked elsewhere, and changes on purpose.
    return name != MARK_TABLE and rows.get(name, 0) <= LARGEST


def _locations_before(name: str, table: Table, new: _Layout, differing: set[str]) -> list[_Location]:
    return [_Location(name, column) for column in table.columns if name in differing or column not in new[name].columns]


def _locations_now(name: str, table: Table, new: _Layout, differing: set[str]) -> list[_Location]:
    """Return the locations to read in the new database: what may have changed, and where values may have moved."""
    went = [column for column in table.columns if column not in new[name].columns]
    places = [_Location(name, column) for column in table.columns if name in differing and column not in went]
    if went:
        places += [_Location(name, column) for column in new[name].columns if column not in table.columns]
        for through, (target, _) in new[name].references.items():
            # A table that points at itself, or twice at another, would have one name for two values.
            if target != name and target in new and [to for to, _ in new[name].references.values()].count(target) == 1:
                places += [_Location(target, column, through) for column in went if column in new[target].columns]
    return places


def _digest(name: str, table: Table, new: Table) -> str:
    columns = ", ".join(identifier(column) for column in table.columns if column in new.columns)
    return (
        "SELECT md5(coalesce(string_agg(digest, '' ORDER BY digest COLLATE \"C\"), '')) FROM"
        f" (SELECT md5(ROW({columns})::text) AS digest FROM {_quoted(name)}) AS rows"
    )


def _fetch(
    server: Server, database: str, layout: _Layout, places: Mapping[str, Iterable[_Location]]
) -> dict[str, dict[str, Column]]:
    """Return the values at locations, by table and label."""
    wanted = {name: list(wanted_places) for name, wanted_places in places.items() if wanted_places}
    answers = (
        server.answers(*(_select(name, layout[name], wanted[name]) for name in wanted), database=database)
        if wanted
        else []
    )
    result: dict[str, dict[str, Column]] = {name: {} for name in places}
    for (name, wanted_places), rows in zip(wanted.items(), answers):
        for at, location in enumerate(wanted_places):
            result[name][location.label] = {tuple(key): Cell(*seen[at]) for key, seen in rows}
    return result


def _select(name: str, table: Table, places: Iterable[_Location]) -> str:
    joins: dict[str, str] = {}
    seen = []
    for location in places:
        alias = "t"
        if location.through:
            target, column = table.references[location.through]
            alias = joins.setdefault(location.through, f"j{len(joins)}")
        text = f"{alias}.{identifier(location.column)}::text"
        seen.append(f"json_build_array(left({text}, {SHOWN}), md5({text}))")
    key = ", ".join(f"t.{identifier(key_column)}::text" for key_column in table.key)
    more = "".join(
        f" LEFT JOIN {_quoted(table.references[join][0])} AS {alias}"
        f" ON t.{identifier(join)} = {alias}.{identifier(table.references[join][1])}"
        for join, alias in joins.items()
    )
    return f"SELECT json_build_array({key}), json_build_array({', '.join(seen)}) FROM {_quoted(name)} AS t{more}"


def _quoted(table: str) -> str:
    schema, _, name = table.partition(".")
    return f"{identifier(schema)}.{identifier(name)}"
