"""What was written to the new data of a change, so that the way back throws no user's work away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compose_chap.postgres.database_schema import MARK_TABLE
from compose_chap.postgres.server import Server
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.transaction.run.change import Change
from compose_chap.transaction.run.facts import Answered, facts_of

# Tables in which CHAP itself adds rows: more rows there are not users' work. The last is Alembic's mark.
NOBODYS = (
    *("public.modeltemplatedb", "public.configuredmodeldb", "public.specificationbaseline"),
    MARK_TABLE,
)


@dataclass(frozen=True)
class Written:
    """What was written to the new data: rows by table that were `added`, and that were `changed`.

    `served` says that CHAP ran on them unobserved, so that more may have been written.
    """

    added: Mapping[str, int]
    changed: Mapping[str, int]
    served: bool

    @property
    def anything(self) -> bool:
        """Whether something was written, or may have been."""
        return bool(self.added or self.changed or self.served)


def written_to(server: Server, database: str, change: Change, journal: Journal, *, cut_off: bool) -> Written:
    """Return what was written to the new data of a change, which are in `database`, or nowhere any more.

    With `cut_off`, what the run had started may have served for days. Call it before anything is started on the old
    data: rows written to them from then on would hide the difference.
    """
    facts, databases = facts_of(journal), server.databases()
    old = facts.new_tables or change.tables or facts.old_tables
    if not old and change.live in databases:
        old = server.counts(change.live)
    # Once everything ran, users may have written where CHAP itself does at its start.
    everywhere = journal.began(Step.START_WORKER)
    present = database in databases
    return Written(
        _added(server, database, old) if present and old else {},
        _changed(server, database, facts.answered, everywhere=everywhere) if present and facts.answered else {},
        # What it did in its time nobody looked at.
        served=cut_off or (everywhere and not facts.answered),
    )


def _added(server: Server, database: str, old: Mapping[str, int]) -> dict[str, int]:
    """Return how many more rows, by table, the new data have than the old data."""
    since = rows_since(old, server.counts(database))
    # Rows in tables that only the new version has were made from the old rows.
    return {table: rows for table, rows in since.items() if rows > 0 and table in old}


def _changed(server: Server, database: str, answered: Answered, *, everywhere: bool) -> dict[str, int]:
    """Return how many rows of each table of the new data changed since the new API first answered.

    New and changed rows count. Tables that CHAP itself writes at its start count only if `everywhere`.
    """
    newer = server.newer_rows(database, answered.since)
    gone = {name: rows - newer[name][0] for name, rows in answered.tables.items() if name in newer}
    return {
        name: since or gone.get(name, 0)
        for name, (_, since) in newer.items()
        if (everywhere or name not in NOBODYS) and (since or gone.get(name, 0) > 0)
    }


def rows_since(old: Mapping[str, int], new: Mapping[str, int]) -> dict[str, int]:
    """Return by how many rows each table grew (negative: shrank); rows that CHAP itself adds do not count."""
    more = {table: new.get(table, 0) - old.get(table, 0) for table in sorted({*old, *new})}
    return {table: rows for table, rows in more.items() if rows < 0 or (rows and table not in NOBODYS)}
