"""The verdict on a database: does it fit the models of a CHAP image? Pure, except for `inspect` and `of_stack`.

Alembic's mark alone cannot be trusted. Up to v2.1.0 Alembic never succeeds, which does no harm; v2.2.0 to v2.3.1
swallow a failed migration, or do not commit it; from v2.4.0 on a failure ends the API. So the tables that the models
need are compared with those that the database has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from compose_chap import revisions
from compose_chap.engine.world import World
from compose_chap.image import release_key
from compose_chap.model import Stack
from compose_chap.postgres import database_schema
from compose_chap.postgres.database_schema import Column, DatabaseSchema
from compose_chap.postgres.server import Server
from compose_chap.stack import model_schema
from compose_chap.stack.databases import server_of
from compose_chap.stack.model_schema import ModelSchema

COMPLETE, ALEMBIC_BEHIND, MARK_BEHIND = "complete", "complete, Alembic behind", "complete, mark behind"
MARK_UNKNOWN, NOT_MIGRATED, INCOMPLETE = "complete, mark unknown", "not migrated", "incomplete"

# Alembic's mark counts from this release on.
_FIRST_RELEASE = (2, 2, 0)

# Revisions that may be missing, because CHAP makes the same change by itself.
_HARMLESS = frozenset({revisions.CHAP_VERSION})

# Foreign keys that CHAP adds with 0 to rows from before it knew them, and reads without: v1.1.0 began to write down the
# model of a prediction, and its older ones have none.
_NONE_BEFORE = frozenset({"prediction.model_db_id"})


@dataclass(frozen=True)
class Schema:
    """How a database compares with the code of `version`.

    `unknown_columns` are NOT NULL, have no default, and the code does not know them: no row can be saved. `orphans`
    counts the rows whose foreign key points at nothing, where the models declare it NOT NULL, and `older_orphans` those
    of them that are from before CHAP knew that key, which does no harm. `differences` are types
    and NULLs that the models do not expect, for people. `alembic` are the marks in the database, `heads` those that
    the code needs, `pending` the revisions between them, where marks count (`mark_counts`). `unknown_marks` are not in
    the code's chain.
    """

    version: str
    missing_tables: tuple[str, ...]
    missing_columns: tuple[str, ...]
    unknown_columns: tuple[str, ...]
    orphans: Mapping[str, int]
    older_orphans: Mapping[str, int]
    differences: tuple[str, ...]
    alembic: tuple[str, ...]
    heads: tuple[str, ...]
    pending: tuple[str, ...]
    unknown_marks: tuple[str, ...]
    mark_counts: bool

    @property
    def verdict(self) -> str:
        """The verdict: `complete`, with a note on Alembic's mark if need be, `not migrated` or `incomplete`."""
        if self.missing_tables or self.missing_columns:
            return INCOMPLETE
        if self.unknown_columns or self.orphans or set(self.pending) - _HARMLESS:
            return NOT_MIGRATED
        if self.unknown_marks:
            return MARK_UNKNOWN
        if self.heads and set(self.alembic) >= set(self.heads):
            return COMPLETE
        return MARK_BEHIND if self.mark_counts else ALEMBIC_BEHIND

    @property
    def status(self) -> str:
        """`ok`, `warn` or `fail`, as in a check."""
        if self.verdict in (NOT_MIGRATED, INCOMPLETE):
            return "fail"
        return "warn" if self.verdict in (MARK_BEHIND, MARK_UNKNOWN) or self.differences else "ok"

    @property
    def start_migrates(self) -> bool:
        """Whether starting this code may still migrate the database.

        Every revision that counts adds a table or column. Where none is missing, this code has started on the
        database before, and pending revisions stay pending.
        """
        return bool(self.missing_tables or self.missing_columns)

    @property
    def summary(self) -> str:
        """The state for people, in sentences."""
        return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in self._sentences())

    def to_json(self) -> dict[str, Any]:
        """Return it for scripts, with its verdict."""
        return {**asdict(self), "verdict": self.verdict, "status": self.status}

    def _sentences(self) -> Iterator[str]:
        code = f"CHAP {self.version}" if self.version else "this version of CHAP"
        if self.verdict == INCOMPLETE:
            missing = ", ".join((*self.missing_tables, *self.missing_columns))
            yield f"the database is missing what this version needs: {missing}"
        elif self.verdict == NOT_MIGRATED:
            yield f"the database is not migrated to {code}"
        else:
            yield "every table and column that this version needs is there"
        if self.unknown_columns:
            yield f"{code} cannot save rows, because it does not fill {', '.join(self.unknown_columns)} (NOT NULL)"
        if self.orphans:
            yield f"rows refer to rows that do not exist: {_counted(self.orphans)}"
        if self.older_orphans:
            counted = _counted(self.older_orphans)
            yield f"rows from before v1.1.0 refer to rows that do not exist, which does no harm: {counted}"
        yield from self._mark(code)
        if self.differences:
            yield f"different from the models: {', '.join(self.differences)}"

    def _mark(self, code: str) -> Iterator[str]:
        now, wanted = ", ".join(self.alembic) or "missing", ", ".join(self.heads) or "not known"
        if self.unknown_marks:
            yield f"{code} does not know Alembic's revision {', '.join(self.unknown_marks)}: a newer release made it"
        elif self.pending and set(self.pending) <= _HARMLESS:
            yield f"Alembic's revision is {now}, not {wanted}, which does no harm here"
        elif self.pending:
            yield f"Alembic's revision is {now}, and {code} wants {wanted}"
        elif self.verdict == MARK_BEHIND:
            yield f"whether Alembic's revision ({now}) is right cannot be seen: the image lists none"
        elif self.verdict == ALEMBIC_BEHIND:
            yield "Alembic's revision is behind, as in most CHAP installations; up to v2.1.0 CHAP does not use it"


def of_stack(world: World, stack: Stack) -> Schema:
    """Return how CHAP's own database compares with the code of its API, whether that runs or not.

    Raise EngineError when the image cannot be read, DatabaseError or StackError when the database cannot.
    """
    return inspect(model_schema.of_stack(world, stack), server_of(world.engine, stack), stack.access.name)


def inspect(models: ModelSchema, server: Server, database: str) -> Schema:
    """Return how any database of a server compares with the models of an image. Raise DatabaseError."""
    return compare(models, database_schema.read(server, database, models.foreign_keys, models.never_null))


def compare(models: ModelSchema, actual: DatabaseSchema) -> Schema:
    """Compare the schema of a database with the models of an image."""
    wanted = {table: {column.name: column for column in columns} for table, columns in models.tables.items()}
    present = {
        table: {column.name: column for column in actual.tables[table]} for table in wanted if table in actual.tables
    }
    counts = mark_counts(models)
    return Schema(
        version=models.version,
        missing_tables=tuple(sorted(set(wanted) - set(present))),
        missing_columns=tuple(
            f"{table}.{name}" for table in sorted(present) for name in wanted[table] if name not in present[table]
        ),
        unknown_columns=tuple(
            f"{table}.{column.name}"
            for table, columns in sorted(present.items())
            for column in columns.values()
            if column.name not in wanted[table] and not column.nullable and not column.default
        ),
        orphans={key: rows for key, rows in sorted(actual.orphans.items()) if key not in _NONE_BEFORE},
        older_orphans={key: rows for key, rows in sorted(actual.orphans.items()) if key in _NONE_BEFORE},
        differences=tuple(
            f"{table}.{column.name} {difference}"
            for table, columns in sorted(present.items())
            for column in columns.values()
            if column.name in wanted[table]
            for difference in _differences(wanted[table][column.name], column, f"{table}.{column.name}" in actual.empty)
        ),
        alembic=actual.marks,
        heads=models.heads,
        pending=pending(models, actual.marks) if counts else (),
        unknown_marks=tuple(mark for mark in actual.marks if models.chain and mark not in models.chain),
        mark_counts=counts,
    )


def mark_counts(models: ModelSchema) -> bool:
    """Whether Alembic migrates the schema of this code: from v2.2.0 on. Before, its mark means nothing."""
    return revisions.COUNTED in models.chain or (release_key(models.version) or ()) >= _FIRST_RELEASE


def pending(models: ModelSchema, marks: tuple[str, ...]) -> tuple[str, ...]:
    """Return the revisions of the chain that a database with these marks lacks, oldest first.

    A database without a mark has everything before v2.2.0. For a mark that only a newer release knows, none are.
    """
    reached = revisions.reached(marks, models.chain)
    if marks and reached < 0:
        return ()
    stamped = models.chain.index(revisions.COUNTED) if revisions.COUNTED in models.chain else 0
    return models.chain[reached if marks else stamped :]


def _counted(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count} {'row' if count == 1 else 'rows'})" for name, count in rows.items())


# SQLAlchemy's names of types as PostgreSQL writes them; and types that are interchangeable as CHAP uses them.
_SPELLED = {
    **{"varchar": "character varying", "float": "double precision", "decimal": "numeric", "datetime": "timestamp"},
    **{"char": "character", "int": "integer", "bool": "boolean"},
}
_ALIKE = {
    **{"text": "character varying", "bigint": "integer", "smallint": "integer", "jsonb": "json"},
    **{"real": "double precision", "numeric": "double precision", "timestamp without time zone": "timestamp"},
    **{"timestamp with time zone": "timestamp"},
}
_LENGTH = re.compile(r"\((\d+)\)")


def _differences(wanted: Column, actual: Column, empty: bool) -> Iterator[str]:
    """Yield the harmful differences of a column.

    Upgraded databases differ from new ones in many harmless ways: a column that may be NULL and never is, or that
    takes longer text.
    """
    if _kind(wanted.type) != _kind(actual.type):
        yield f"is {actual.type}, not {_spelled(wanted.type)}"
    elif _length(actual.type) < _length(wanted.type):
        yield f"is {actual.type}, which is too short"
    if empty and not wanted.nullable:
        yield "has rows without a value"
    if wanted.nullable and not actual.nullable and not actual.default:
        yield "does not take NULL"


def _kind(type_: str) -> str:
    return _ALIKE.get(_spelled(type_), _spelled(type_))


def _spelled(type_: str) -> str:
    name = re.sub(r"\s+", " ", _LENGTH.sub("", type_.lower())).strip()
    return _SPELLED.get(name, name)


def _length(type_: str) -> float:
    match = _LENGTH.search(type_)
    return float(match[1]) if match and "char" in type_.lower() else float("inf")
