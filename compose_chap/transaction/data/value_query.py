"""Ask databases of one server for the values of their small tables.

Of two that are both there digests are asked for first, and then only what differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from compose_chap.postgres.database_schema import MARK_TABLE
from compose_chap.postgres.server import Server, identifier
from compose_chap.postgres.statements import TABLES
from compose_chap.transaction.data import values
from compose_chap.transaction.data.values import LARGEST, RENAMED, SHOWN, Changed, Column, Gone, Table, Value, Values

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
class _Place:
    """Where a row of a table has a value: in a column of its own, or of the row that `through` points at."""

    table: str
    column: str
    through: str = ""

    @property
    def label(self) -> str:
        return f"{self.table}.{self.column}"


@dataclass(frozen=True)
class Before:
    """What a database had: its tables, and the values of the small ones, where they were read while it was there.

    Without `values` they are asked for in the database itself, which is kept.
    """

    database: str
    tables: _Layout
    values: Mapping[str, Mapping[str, Column]] | None = None


def kept(server: Server, database: str) -> Before:
    """Return what a database that stays has. Raise DatabaseError."""
    return Before(database, _layout(server, database))


def remember(server: Server, database: str, rows: Mapping[str, int]) -> Before:
    """Return what a database has that will not be there any more, with all values of its small tables.

    `rows` are those of every table, by its name. Raise DatabaseError.
    """
    tables = _layout(server, database)
    places = {
        name: [_Place(name, column) for column in table.columns]
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
        asked = {name: _places_before(name, small[name], new, differing) for name in small}
        was = _fetch(server, before.database, before.tables, asked)
    else:
        small = {name: table for name, table in small.items() if name in before.values}
        differing, was = set(small), before.values
    there = _fetch(server, now, new, {name: _places_now(name, small[name], new, differing) for name in small})
    return _told_apart(small, new, differing, was, there)


def _differing(server: Server, before: str, now: str, small: _Layout, new: _Layout) -> set[str]:
    """Return the tables whose digests differ, in the columns that both databases have."""
    digests = [_digest(name, table, new[name]) for name, table in small.items()]
    if not digests:
        return set()
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda database: server.answers(*digests, database=database), (before, now))
    return {name for name, one, other in zip(small, first, second) if one != other}


def _told_apart(
    small: _Layout,
    new: _Layout,
    differing: set[str],
    was: Mapping[str, Mapping[str, Column]],
    there: Mapping[str, Mapping[str, Column]],
) -> Values:
    """Return which values changed in columns that stay, and what became of those that went."""
    changed: list[Changed] = []
    gone: list[Gone] = []
    for name, table in small.items():
        known = {f"{name}.{column}" for column in table.columns}
        candidates = [place for place in there[name].items() if place[0] not in known]
        for column in table.columns:
            label = f"{name}.{column}"
            if column not in new[name].columns:
                gone.append(values.gone(label, was[name][label], candidates))
            elif name in differing:
                changed += values.changed(label, was[name][label], there[name][label])
    put_back = values.put_back(gone, {name: table.key for name, table in small.items()})
    return Values(len(small), tuple(changed), tuple(gone), put_back)


def renamed(server: Server, database: str) -> dict[str, Column]:
    """Return the values of the columns that a release renames, as far as the database has them, by their old names."""
    layout = _layout(server, database)
    places: dict[str, list[_Place]] = {}
    for name, column in RENAMED:
        if name in layout and column in layout[name].columns and layout[name].key:
            places.setdefault(name, []).append(_Place(name, column))
    return {
        label: column
        for of_table in _fetch(server, database, layout, places).values()
        for label, column in of_table.items()
    }


def give_back(server: Server, database: str, before: Mapping[str, Column]) -> str:
    """Give renamed columns of a database the values that `renamed` returned before. Return the SQL that did it."""
    layout = _layout(server, database)
    places: dict[str, list[_Place]] = {}
    for label in before:
        table, _, column = label.rpartition(".")
        if RENAMED[table, column] in layout.get(table, Table((), (), {})).columns:
            places.setdefault(table, []).append(_Place(table, RENAMED[table, column]))
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
    # The mark of the schema is looked at elsewhere, and is meant to change.
    return name != MARK_TABLE and rows.get(name, 0) <= LARGEST


def _places_before(name: str, table: Table, new: _Layout, differing: set[str]) -> list[_Place]:
    return [_Place(name, column) for column in table.columns if name in differing or column not in new[name].columns]


def _places_now(name: str, table: Table, new: _Layout, differing: set[str]) -> list[_Place]:
    """Return what is asked of the new database: what may have changed, and where the values of gone columns may be."""
    went = [column for column in table.columns if column not in new[name].columns]
    places = [_Place(name, column) for column in table.columns if name in differing and column not in went]
    if went:
        places += [_Place(name, column) for column in new[name].columns if column not in table.columns]
        for through, (target, _) in new[name].references.items():
            # A table that points at itself, or twice at another, would have one name for two values.
            if target != name and target in new and [to for to, _ in new[name].references.values()].count(target) == 1:
                places += [_Place(target, one, through) for one in went if one in new[target].columns]
    return places


def _digest(name: str, table: Table, new: Table) -> str:
    columns = ", ".join(identifier(column) for column in table.columns if column in new.columns)
    return (
        "SELECT md5(coalesce(string_agg(digest, '' ORDER BY digest COLLATE \"C\"), '')) FROM"
        f" (SELECT md5(ROW({columns})::text) AS digest FROM {_quoted(name)}) AS rows"
    )


def _fetch(
    server: Server, database: str, layout: _Layout, places: Mapping[str, Iterable[_Place]]
) -> dict[str, dict[str, Column]]:
    """Return the values of places, by table and label."""
    wanted = {name: list(asked) for name, asked in places.items() if asked}
    answers = (
        server.answers(*(_select(name, layout[name], wanted[name]) for name in wanted), database=database)
        if wanted
        else []
    )
    found: dict[str, dict[str, Column]] = {name: {} for name in places}
    for (name, asked), rows in zip(wanted.items(), answers):
        for at, place in enumerate(asked):
            found[name][place.label] = {tuple(key): Value(*seen[at]) for key, seen in rows}
    return found


def _select(name: str, table: Table, places: Iterable[_Place]) -> str:
    joins: dict[str, str] = {}
    seen = []
    for place in places:
        alias = "t"
        if place.through:
            target, column = table.references[place.through]
            alias = joins.setdefault(place.through, f"j{len(joins)}")
        text = f"{alias}.{identifier(place.column)}::text"
        seen.append(f"json_build_array(left({text}, {SHOWN}), md5({text}))")
    key = ", ".join(f"t.{identifier(one)}::text" for one in table.key)
    more = "".join(
        f" LEFT JOIN {_quoted(table.references[join][0])} AS {alias}"
        f" ON t.{identifier(join)} = {alias}.{identifier(table.references[join][1])}"
        for join, alias in joins.items()
    )
    return f"SELECT json_build_array({key}), json_build_array({', '.join(seen)}) FROM {_quoted(name)} AS t{more}"


def _quoted(table: str) -> str:
    schema, _, name = table.partition(".")
    return f"{identifier(schema)}.{identifier(name)}"
