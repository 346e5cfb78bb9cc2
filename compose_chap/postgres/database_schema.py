"""The schema of a CHAP database (live, kept or side database), read with a single query."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from compose_chap import reading
from compose_chap.errors import DatabaseError
from compose_chap.postgres.server import Server, literal

# Where Alembic stores its revision.
MARK_TABLE = "public.alembic_version"


@dataclass(frozen=True)
class Column:
    """A column: its type as PostgreSQL writes it, whether it may be NULL, and whether the database has a default."""

    name: str
    type: str
    nullable: bool
    default: bool


@dataclass(frozen=True)
class ForeignKey:
    """A column whose values must exist in a column of another table."""

    table: str
    column: str
    to_table: str
    to_column: str


@dataclass(frozen=True)
class DatabaseSchema:
    """The tables in the schema `public`, where CHAP's are.

    `orphans` counts the rows of each foreign key that point at nothing, `empty` are the columns that contain a NULL
    and should not. `marks` are Alembic's revisions, empty where it never succeeded.
    """

    tables: Mapping[str, tuple[Column, ...]]
    orphans: Mapping[str, int]
    empty: tuple[str, ...]
    marks: tuple[str, ...]


# The first part reads the catalog and generates the query that psql then runs (\gexec), so that it only names tables
# that exist. A foreign key validated by PostgreSQL on a NOT NULL column has no orphans, so large tables are skipped.
# Keys are compared as text: in a broken schema, the types of the two columns may differ.
_QUESTION = r"""
SET lock_timeout = '60s';
WITH has AS (
  SELECT c.oid, c.relname::text AS "table", a.attname::text AS "column", a.attnum, NOT a.attnotnull AS nullable,
         format_type(a.atttypid, a.atttypmod) AS type, a.atthasdef OR a.attidentity <> '' AS "default"
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
  WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped),
counts AS (
  SELECT format('SELECT %L AS what, %L AS name, count(*) AS rows FROM public.%I r'
                ' WHERE NOT EXISTS (SELECT FROM public.%I t WHERE t.%I::text = r.%I::text)',
                'orphans', k."table" || '.' || k."column", k."table", k.to_table, k.to_column, k."column") AS sql
  FROM json_to_recordset({keys}) AS k("table" text, "column" text, to_table text, to_column text)
  JOIN has own ON own."table" = k."table" AND own."column" = k."column"
  JOIN has aim ON aim."table" = k.to_table AND aim."column" = k.to_column
  WHERE own.nullable OR NOT EXISTS (
    SELECT FROM pg_constraint s WHERE s.contype = 'f' AND s.convalidated AND s.conrelid = own.oid
    AND s.confrelid = aim.oid AND s.conkey = ARRAY[own.attnum] AND s.confkey = ARRAY[aim.attnum])
  UNION ALL
  SELECT format('SELECT %L, %L, 1 WHERE EXISTS (SELECT FROM public.%I WHERE %I IS NULL)',
                'empty', "table" || '.' || "column", "table", "column")
  FROM json_to_recordset({never_null}) AS w("table" text, "column" text) JOIN has USING ("table", "column")
  WHERE has.nullable
  UNION ALL
  SELECT '(SELECT ''mark'', left(version_num::text, 80), 1 FROM public.alembic_version ORDER BY 2 LIMIT 10)'
  FROM has WHERE "table" = 'alembic_version' AND "column" = 'version_num')
SELECT format('SELECT json_build_object(''columns'', %L::json, ''counts'', (SELECT coalesce(json_agg(q), ''[]'')'
              ' FROM (SELECT ''''::text AS what, ''''::text AS name, 0::bigint AS rows WHERE false%s) q))',
              (SELECT coalesce(json_agg(json_build_array("table", "column", type, nullable, "default")
                                        ORDER BY "table", attnum), '[]') FROM has),
              (SELECT string_agg(' UNION ALL ' || sql, '') FROM counts))
\gexec
"""


def read(
    server: Server,
    database: str,
    foreign_keys: Iterable[ForeignKey] = (),
    never_null: Iterable[tuple[str, str]] = (),
) -> DatabaseSchema:
    """Return the schema of a database. Raise DatabaseError when it cannot be read.

    Orphans are counted for `foreign_keys`; `never_null` are the columns (table, name) that should have no NULL.
    """
    keys = [asdict(key) for key in foreign_keys]
    wanted = [{"table": table, "column": column} for table, column in never_null]
    question = _QUESTION.format(keys=literal(json.dumps(keys)), never_null=literal(json.dumps(wanted)))
    answer = reading.parse(server.document(question, database), f"What the database {database} has", DatabaseError)
    tables: dict[str, list[Column]] = {}
    for row in answer.at("columns").items():
        table, name, type_, nullable, default = row.items()
        column = Column(name.text(), type_.text().removeprefix("public."), nullable.flag(), default.flag())
        tables.setdefault(table.text(), []).append(column)
    counts = [
        (count.at("what").text(), count.at("name").text(), count.at("rows").integer())
        for count in answer.at("counts").items()
    ]
    return DatabaseSchema(
        tables={table: tuple(columns) for table, columns in tables.items()},
        orphans={name: rows for what, name, rows in counts if what == "orphans" and rows},
        empty=tuple(sorted(name for what, name, _ in counts if what == "empty")),
        marks=tuple(sorted(name for what, name, _ in counts if what == "mark")),
    )
