"""Which database gets which name, forward and back: decided only here, from names alone. Pure.

`undo` carries out a plan, the instructions for a person print it, and a test tries every possible state. A plan
is valid for the moment in which it is made: after an interruption it is made again from the present databases.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from compose_chap.errors import StateError
from compose_chap.records.steps import Step
from compose_chap.transaction.run import kept


class DataKind(Enum):
    """What a change does with the data.

    COPY: the live data are migrated in place, a copy is kept. DUMP: the same, but a dump is kept.
    RESTORE: a side database, which can be made again, becomes the live one. ROLLBACK: a database that an earlier
    run kept becomes the live one; it is the only one with these data.
    """

    COPY = "copy"
    DUMP = "dump"
    RESTORE = "restore"
    ROLLBACK = "rollback"


@dataclass(frozen=True)
class Names:
    """The names of the databases of a change.

    `live` is CHAP's. The previous data are kept as `kept`. `incoming` becomes the live one; empty for none.
    """

    live: str
    kept: str
    incoming: str = ""

    @property
    def failed(self) -> str:
        """The name for data that failed verification, until they are dropped."""
        return kept.failed_name(self.kept)


@dataclass(frozen=True)
class DataPlan:
    """Renames (from, to) that are done in this order, all or none, and databases to drop once the result is verified.

    With `from_dump`, the old data are only in the dump: they are restored as the kept database, and a new plan is made.
    """

    renames: tuple[tuple[str, str], ...] = ()
    drops: tuple[str, ...] = ()
    from_dump: bool = False


def swap(names: Names, present: Collection[str]) -> DataPlan:
    """Return the plan by which the incoming database becomes the live one, and an existing live one the kept one."""
    aside = ((names.live, names.kept),) if names.live in present else ()
    return DataPlan((*aside, (names.incoming, names.live)))


def way_back(
    kind: DataKind,
    names: Names,
    present: Collection[str],
    begun: Collection[str],
    *,
    changed: bool,
    had_live: bool = True,
    came_back: bool = False,
) -> DataPlan:
    """Return the plan by which the old data become live again; empty when they are live.

    `present` are the databases of the server, `begun` the steps that have begun. `changed` says that the new version
    may have changed the live data, `had_live` that there was a live database before the run, `came_back` that a dump
    was restored and is live. Raise StateError when the name for the data that failed is taken.
    """
    if kind in (DataKind.COPY, DataKind.DUMP):
        return _unmigrated(kind, names, present, changed, came_back)
    return _swapped_back(kind, names, present, begun, had_live)


def disposable(kind: DataKind, names: Names) -> str:
    """Return the database that may be dropped after the way back, if nothing was written to it; empty for none.

    The database that a rollback brings in is never disposable: no other has its data.
    """
    return "" if kind is DataKind.ROLLBACK else names.failed


def _unmigrated(kind: DataKind, names: Names, present: Collection[str], changed: bool, came_back: bool) -> DataPlan:
    if names.kept in present:
        if names.live in present and not changed:
            return DataPlan(drops=(names.kept,))
        return DataPlan(_kept_to_live(names, present, names.failed))
    exchanged = names.live in present and names.failed in present
    return DataPlan(from_dump=kind is DataKind.DUMP and changed and not exchanged and not came_back)


def _swapped_back(
    kind: DataKind, names: Names, present: Collection[str], begun: Collection[str], had_live: bool
) -> DataPlan:
    single = kind is DataKind.ROLLBACK
    drops = () if single else (names.incoming,)
    if Step.SWAP not in begun:
        return DataPlan(drops=drops)
    if names.incoming in present:
        # The swap did not come about. Only a person can have taken the live one away.
        lost = names.live not in present and names.kept in present
        return DataPlan(((names.kept, names.live),) if lost else (), drops)
    away = names.incoming if single else names.failed
    if names.kept in present:
        return DataPlan(_kept_to_live(names, present, away))
    if names.live in present and not had_live:
        return DataPlan(((names.live, _free(away, present)),))
    # Commands that earlier versions printed for a person put the only one aside, as if it had failed.
    if single and names.failed in present:
        return DataPlan(((names.failed, away),))
    return DataPlan()


def _kept_to_live(names: Names, present: Collection[str], away: str) -> tuple[tuple[str, str], ...]:
    aside = ((names.live, _free(away, present)),) if names.live in present else ()
    return (*aside, (names.kept, names.live))


def _free(name: str, present: Collection[str]) -> str:
    if name in present:
        raise StateError(
            f"There is a database {name} already, and the way back needs that name.",
            hint="Look what is in it. Then give it another name: ALTER DATABASE … RENAME TO …",
        )
    return name
