"""How the previous data are kept during a change and restored: a class for each way.

A change that migrates the live data keeps them as a copy in the server or as a proven dump. A change that brings in
other data keeps the live database itself, under another name. `data_plan` decides which database gets which name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from contextlib import suppress
from shlex import quote

from compose_chap.backups import catalogue
from compose_chap.backups.catalogue import Backup
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, DatabaseError, StateError, StuckSessions
from compose_chap.postgres.server import Server
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.stack.databases import refuse_irreversible
from compose_chap.transaction.data import data_plan, from_dump
from compose_chap.transaction.data.data_plan import DataKind, DataPlan, Names
from compose_chap.transaction.run.change import Change, begin
from compose_chap.transaction.run.facts import RunFacts

# Without its version, the newer CHAP would migrate the data of the backup again.
_BY_BACKUP = "Go back with its backup: docker chap restore {} --with-version"
_BACKUP_INSTEAD = "Restore a backup instead: docker chap restore {}"


class PreviousData(ABC):
    """The data that were live before a change, and the way in which they are kept.

    `facts` are what the run had recorded when this was made.
    """

    def __init__(self, change: Change, facts: RunFacts) -> None:
        self.change, self.facts = change, facts

    @property
    @abstractmethod
    def kind(self) -> DataKind:
        """The name of this way in `data_plan`."""

    def get_ready(self, server: Server) -> None:
        """Do what makes `preserve` shorter, while CHAP still serves. It changes nothing, and never fails."""

    @abstractmethod
    def preserve(self, world: World, server: Server, journal: Journal) -> None:
        """Keep the live data before they are migrated. CHAP no longer writes to them.

        Raise ChapError when that fails; the live data are then unchanged.
        """

    def bring_in(self, world: World, server: Server, journal: Journal) -> None:
        """Make the incoming data live, if the change has any."""

    def come_back(
        self, world: World, server: Server, journal: Journal, *, changed: bool, cut_off: bool
    ) -> tuple[str, ...]:
        """Make the previous data live again, even after an interruption. Raise ChapError when that fails.

        Return the databases to drop once that is verified. With `changed`, the new version may have changed the live
        data; with `cut_off`, users may have written to them unobserved.
        """
        plan = self.way_back(server.databases(), journal.steps, changed=changed)
        if plan.renames:
            server.rename(*plan.renames, carrying=self._to_carry(plan, journal))
        return plan.drops

    def _to_carry(self, plan: DataPlan, journal: Journal) -> tuple[str, str] | None:
        """Return the databases from which and to which the properties are still to be carried, None for none."""
        return None

    def way_back(self, present: Collection[str], begun: Collection[str], *, changed: bool) -> DataPlan:
        """Return the plan by which the previous data become live again, from `data_plan.way_back`."""
        # Version 0.1.0 did not write down whether there was a live database.
        known = self.facts.had_live
        return data_plan.way_back(
            self.kind,
            self.names,
            present,
            begun,
            changed=changed,
            had_live=self.change.baseline.has_data if known is None else known,
            came_back=self.facts.data_came_back,
        )

    @property
    def names(self) -> Names:
        """The names of the databases."""
        return Names(self.change.live, self.change.kept, self.change.incoming)

    @property
    def database(self) -> str:
        """The database with the previous data once they are kept, empty for none."""
        return self.change.kept

    @property
    def disposable(self) -> str:
        """The database that may be dropped after the way back, if nothing was written to it; empty for none."""
        return data_plan.disposable(self.kind, self.names)

    @property
    def location(self) -> str:
        """Where the previous data are, for a person when the server does not answer."""
        return f"{self.change.kept} where that is there, else in {self.change.live}"

    def refuse_what_is_gone(self, server: Server) -> None:
        """Raise StateError when a rollback could not bring the previous data back."""
        if not server.exists(self.change.kept):
            wanted = quote(str(self.facts.backup or "latest"))
            by_backup = _BY_BACKUP if self.change.operation == "upgrade" else _BACKUP_INSTEAD
            gone = f"The database {self.change.kept}, which the {self.change.operation} kept, is gone."
            raise StateError(gone, state="Nothing was changed.", hint=by_backup.format(wanted))


class CopyInServer(PreviousData):
    """A copy inside the server: quick, and restored by a rename.

    Where the change has a mark, the backup is kept alone if nothing was written since it began, and no copy is made.
    """

    @property
    def kind(self) -> DataKind:
        return DataKind.COPY

    def get_ready(self, server: Server) -> None:
        # A copy begins by writing to the disk all that was changed so far.
        with suppress(ChapError):
            server.checkpoint()

    def _to_carry(self, plan: DataPlan, journal: Journal) -> tuple[str, str] | None:
        # A copy that was cut off has every row, but maybe not all of the properties.
        unfinished = not journal.began(Step.START_API) and (self.change.kept, self.change.live) in plan.renames
        return (self.change.live, self.change.kept) if unfinished and len(plan.renames) > 1 else None

    def preserve(self, world: World, server: Server, journal: Journal) -> None:
        dump = ProvenDump(self.change, self.facts)
        if self.change.mark:
            begin_to_preserve(world, self.change, server, journal)
            if dump.rely_on_backup(server, journal):
                return
            world.notify(Step.KEEP.value, "something was written since the backup began, so a copy is made")
        else:
            begin(world, journal, Step.KEEP, f"{self.change.live} as {self.change.kept}")
        try:
            server.copy(self.change.live, self.change.kept, self.change.owner)
        except StuckSessions:
            # It would hold the database on the way back too, where it has to be renamed. Nothing was changed yet.
            raise
        except DatabaseError as error:
            # Prepared transactions end a copy too: asked only now, they take nothing of the downtime.
            refuse_irreversible(server, self.change.live)
            # A disk that filled up since it was looked at.
            server.drop(self.change.kept)
            world.notify(Step.KEEP.value, f"no copy: {error.message}")
            dump.dump(world, server, journal)


class ProvenDump(PreviousData):
    """A dump: slower, but it needs no space in the server and does not require that nobody else is connected."""

    @property
    def kind(self) -> DataKind:
        return DataKind.DUMP

    @property
    def database(self) -> str:
        return ""

    @property
    def location(self) -> str:
        # Until it is made nothing has changed the live data.
        return str(self.facts.kept_dump or self.change.live)

    def preserve(self, world: World, server: Server, journal: Journal) -> None:
        begin_to_preserve(world, self.change, server, journal)
        if not self.rely_on_backup(server, journal):
            self.dump(world, server, journal)

    def rely_on_backup(self, server: Server, journal: Journal) -> bool:
        """Let the earlier backup be what is kept, and return True, if nothing was written since it began.

        Every session in the live database is ended. Raise StuckSessions when one does not end.
        """
        first = self._first()
        if not server.unwritten(self.change.live, self.change.mark) or first.fault or not _has_dump(first):
            return False
        _record(journal, first)
        return True

    def dump(self, world: World, server: Server, journal: Journal) -> None:
        """Make a dump of exactly the data that are live now, and record which dump that is."""
        made = from_dump.back_up(world, self.change, self.facts, f"the last rows before {journal.id}")
        # CHAP is stopped and cannot say what it is; it is what it was a moment ago.
        _record(journal, catalogue.amend(made, chap=self._first().manifest.chap))

    def way_back(self, present: Collection[str], begun: Collection[str], *, changed: bool) -> DataPlan:
        # Without a record of a dump, nothing is kept yet.
        return super().way_back(present, begun, changed=changed and self.facts.kept_dump is not None)

    def come_back(
        self, world: World, server: Server, journal: Journal, *, changed: bool, cut_off: bool
    ) -> tuple[str, ...]:
        if self.way_back(server.databases(), journal.steps, changed=changed).from_dump:
            from_dump.restore(world, server, self.change, journal, cut_off=cut_off)
        drops = super().come_back(world, server, journal, changed=changed, cut_off=cut_off)
        if self.facts.kept_dump:
            journal.learn(data_came_back=True)
        return drops

    def refuse_what_is_gone(self, server: Server) -> None:
        wanted = quote(str(self.facts.kept_dump or "latest"))
        raise StateError(
            f"The {self.change.operation} kept the old data as a backup, {wanted}, and not as a database.",
            state="Nothing was changed.",
            hint=_BY_BACKUP.format(wanted),
        )

    def _first(self) -> Backup:
        assert self.facts.backup  # an upgrade makes its backup first
        return catalogue.load(self.facts.backup)


class SwappedOut(PreviousData):
    """The live database itself: the incoming database takes its name, and nothing is copied."""

    @property
    def kind(self) -> DataKind:
        return DataKind.ROLLBACK if self.change.operation == "rollback" else DataKind.RESTORE

    def preserve(self, world: World, server: Server, journal: Journal) -> None:
        """Nothing is migrated: the live data stay as they are."""

    def bring_in(self, world: World, server: Server, journal: Journal) -> None:
        present = server.databases()
        had_live = self.change.live in present
        detail = f"{self.change.incoming} becomes {self.change.live}"
        begin(world, journal, Step.SWAP, detail, had_live=had_live)
        # All in a single session, as CHAP is down meanwhile.
        carrying = (self.change.live, self.change.incoming) if had_live else None
        server.rename(*data_plan.swap(self.names, present).renames, carrying=carrying)


def previous_data_of(change: Change, facts: RunFacts) -> PreviousData:
    """Return how the data that were live before a change are kept, or will be."""
    if change.incoming:
        return SwappedOut(change, facts)
    return ProvenDump(change, facts) if change.by_dump or facts.kept_dump else CopyInServer(change, facts)


def begin_to_preserve(world: World, change: Change, server: Server, journal: Journal) -> None:
    """Record that the data are kept from here on. Raise DatabaseError when they could not be renamed back."""
    begin(world, journal, Step.KEEP, f"{change.live} as {change.kept}")
    # Here there is still nothing to go back from.
    refuse_irreversible(server, change.live)


def _has_dump(made: Backup) -> bool:
    """Whether the dump still lies in its folder, as long as it was: hours may have passed since it was proven."""
    with suppress(OSError):
        return made.dump.stat().st_size == made.manifest.dump.size
    return False


def _record(journal: Journal, made: Backup) -> None:
    journal.learn(kept_dump=str(made.folder), backup=str(made.folder), old_tables=made.tables)
