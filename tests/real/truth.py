"""What became of a database, seen by SQL and by the API: never by what the tool says.

The measure is a new installation of the release: its tables, columns and foreign keys, in a database made for that.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.real.releases import Release
from tests.real.stack import PATIENCE, RealStack, ask
from tests.sample.stack import SampleError

CREATE = "from chap_core.database.database import create_db_and_tables; create_db_and_tables()"
COLUMNS = (
    "SELECT table_name, column_name, is_nullable, coalesce(column_default, '') FROM information_schema.columns"
    " WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
)
# Single columns that a row must have, with the table and column they point at.
FOREIGN_KEYS = (
    "SELECT c.conrelid::regclass, a.attname, c.confrelid::regclass, b.attname FROM pg_constraint c"
    " JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1] AND a.attnotnull"
    " JOIN pg_attribute b ON b.attrelid = c.confrelid AND b.attnum = c.confkey[1]"
    " WHERE c.contype = 'f' AND cardinality(c.conkey) = 1"
)
Ask = Callable[[str], tuple[int, Any]]


@dataclass(frozen=True)
class Installation:
    """What a new installation has: columns as (table, column), and the foreign keys that a row must have."""

    columns: frozenset[tuple[str, str]]
    foreign_keys: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Became:
    """What a database became under a release: what is wrong with it is listed, all empty when it is well."""

    release: Release
    reason: str = ""  # the last error line of the log when the API did not start
    version: str | None = None
    mark: str | None = None
    missing: tuple[str, ...] = ()  # columns that a new installation has
    forgotten: tuple[str, ...] = ()  # NOT NULL, without default, and not in a new installation
    orphans: tuple[str, ...] = ()  # foreign keys that a row must have, and that point at nothing
    refused: tuple[str, ...] = ()  # what the API does not answer with 200
    unsaved: str = ""  # why a backtest could not be saved

    @property
    def verdict(self) -> str:
        """The one word for it: good, mark behind, not migrated, or does not start."""
        if self.reason:
            return "does not start"
        if self.version != self.release.version or self.missing or self.forgotten or self.orphans:
            return "not migrated"
        if self.refused or self.unsaved:
            return "not migrated"
        return "good" if self.mark == self.release.head else "mark behind"

    def __str__(self) -> str:
        """Return the verdict with all that is wrong, for a failed test and for the table."""
        wrong = [*self.missing, *self.forgotten, *self.orphans, *self.refused, self.unsaved, self.reason]
        return "; ".join([f"{self.verdict} ({self.mark or 'no mark'})", *(each for each in wrong if each)])


def by_hand(stack: RealStack, release: Release) -> Became:
    """Start a release on a copy of the stack's database, as an operator would, look, and throw the copy away."""
    copy = f"by_hand_{release.version.replace('.', '_')}"
    stack.copy_database(stack.database, copy)
    try:
        with stack.alone(release, copy) as (container, port):
            end = time.monotonic() + PATIENCE
            while ask(port, "/health")[0] != 200:
                if stack.ended(container) is not None:
                    return Became(release, reason=last_error(stack.log(container)))
                if time.monotonic() > end:
                    raise SampleError(f"{release.version} neither ends nor answers")
                time.sleep(0.3)
            return look(stack, release, copy, lambda path: ask(port, path), container)
    finally:
        stack.sql(f"DROP DATABASE {copy} WITH (FORCE)", "postgres")


def look(stack: RealStack, release: Release, database: str, api: Ask, container: str) -> Became:
    """Look at a database under a release whose API answers, and save a backtest through its code."""
    new, columns = installation(stack, release), _columns(stack, database)
    present = {(table, column) for table, column, _, _ in columns}
    # A table that the code does not know is no concern of it.
    known = {table for table, _ in new.columns}
    required = {(t, c) for t, c, nullable, default in columns if t in known and nullable == "NO" and not default}
    backtests = [identity for (identity,) in stack.sql("SELECT id FROM backtest ORDER BY id", database)]
    paths = [f"/v1/crud/backtests/{identity}/full" for identity in backtests]
    paths += [f"/v1/crud/{name}" for name in ("backtests", "datasets", "predictions", "configured-models")]
    saved = stack.rows("save", container)
    return Became(
        release,
        version=(api("/system/info")[1] or {}).get("chap_core_version"),
        mark=mark(stack, database),
        missing=_named(new.columns - present),
        forgotten=_named(required - new.columns),
        orphans=tuple(_orphans(stack, database, new, present)),
        refused=tuple(f"GET {path} is {status}" for path in paths if (status := api(path)[0]) != 200),
        unsaved=last_error(saved.stderr) if saved.returncode else "",
    )


def mark(stack: RealStack, database: str | None = None) -> str | None:
    """Return Alembic's mark of a database."""
    if not stack.sql("SELECT 1 FROM pg_tables WHERE tablename = 'alembic_version'", database):
        return None
    rows = stack.sql("SELECT version_num FROM alembic_version", database)
    return rows[0][0] if rows else None


_INSTALLATIONS: dict[str, Installation] = {}


def installation(stack: RealStack, release: Release) -> Installation:
    """Return what a new installation of a release has, seen in one that is made on the stack's server."""
    if release.version not in _INSTALLATIONS:
        database = f"new_{release.version.replace('.', '_')}"
        stack.sql(f"CREATE DATABASE {database}", "postgres")
        try:
            with stack.alone(release, database, "python", "-W", "ignore", "-c", CREATE) as (container, _):
                if stack.docker("wait", container).stdout.strip() != "0":
                    raise SampleError(f"no new installation: {stack.log(container)[-2000:]}")
            columns = frozenset((table, column) for table, column, _, _ in _columns(stack, database))
            keys = tuple(tuple(row) for row in stack.sql(FOREIGN_KEYS, database))
        finally:
            stack.sql(f"DROP DATABASE {database} WITH (FORCE)", "postgres")
        _INSTALLATIONS[release.version] = Installation(columns, keys)
    return _INSTALLATIONS[release.version]


def last_error(log: str) -> str:
    """Return the last line of a log that names an exception and its message."""
    lines = [line for line in log.splitlines() if re.match(r"(\w+\.)*\w*(Error|Exception|Violation)\b.*:", line)]
    return lines[-1] if lines else "no error in its log"


def _columns(stack: RealStack, database: str) -> list[list[str]]:
    return stack.sql(COLUMNS, database)


def _named(columns: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(sorted(f"{table}.{column}" for table, column in columns))


def _orphans(stack: RealStack, database: str, new: Installation, present: set[tuple[str, str]]) -> Iterator[str]:
    for table, column, target, key in new.foreign_keys:
        if (table, column) in present and (target, key) in present:
            query = f"SELECT count(*) FROM {table} a LEFT JOIN {target} b ON a.{column} = b.{key} WHERE b.{key} IS NULL"
            number = int(stack.sql(query, database)[0][0])
            if number:
                yield f"{number} of {table}.{column} point at nothing"
