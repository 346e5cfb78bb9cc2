"""Every state that the databases of a change can be in, and what becomes of the data in it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import chain, combinations
from typing import Any

import pytest

from compose_chap.errors import StateError
from compose_chap.records.steps import Step
from compose_chap.transaction import evidence
from compose_chap.transaction.data import data_plan
from compose_chap.transaction.data.data_plan import DataKind, DataPlan, Names
from compose_chap.transaction.run import kept

UNDONE, OWN = "20261101t000000z", "20261123t000000z"
NAMES = {
    DataKind.COPY: Names("chap_core", f"chap_core_before_{OWN}"),
    DataKind.DUMP: Names("chap_core", f"chap_core_before_{OWN}"),
    DataKind.RESTORE: Names("chap_core", f"chap_core_before_{OWN}", f"chap_core_incoming_{OWN}"),
    DataKind.ROLLBACK: Names("chap_core", f"chap_core_after_{OWN}", f"chap_core_before_{UNDONE}"),
}
MIGRATING = (Step.STOP, Step.KEEP, Step.REWRITE, Step.START_API, Step.VERIFY_API, Step.START_WORKER, Step.VERIFY)
ORDER = {
    DataKind.COPY: MIGRATING,
    DataKind.DUMP: MIGRATING,
    DataKind.RESTORE: (Step.CHECK_BESIDE, Step.STOP, Step.SWAP, Step.START_API, Step.START_WORKER, Step.VERIFY),
    DataKind.ROLLBACK: (Step.STOP, Step.REWRITE, Step.SWAP, Step.START_API, Step.START_WORKER, Step.VERIFY),
}
STEPS = (Step.STOP, Step.KEEP, Step.SWAP, Step.START_API, Step.START_WORKER, Step.GO_BACK)

# What is in a database. Of OLD there must always be a complete one, and in a rollback of UNIQUE too.
OLD, HALF, NEW, UNIQUE = "old", "half a copy", "new", "the only older ones"


@dataclass(frozen=True)
class World:
    """The databases with what is in them, what the journal knows, and whether `others` started the new version."""

    kind: DataKind
    databases: Mapping[str, str]
    begun: tuple[Step, ...] = ()
    had_live: bool = True
    came_back: bool = False
    others: bool = False

    @property
    def names(self) -> Names:
        return NAMES[self.kind]

    def plan(self) -> DataPlan:
        return data_plan.way_back(
            self.kind,
            self.names,
            self.databases,
            self.begun,
            changed=self.others or Step.START_API in self.begun,
            had_live=self.had_live,
            came_back=self.came_back,
        )

    def with_(self, **changes: Any) -> World:
        return World(**{**vars(self), **changes})


def renamed(databases: Mapping[str, str], pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Rename as PostgreSQL does: in order, and onto no name that is taken."""
    after = dict(databases)
    for old, new in pairs:
        assert old in after and new not in after, (databases, pairs)
        after[new] = after.pop(old)
    return after


def dropped(databases: Mapping[str, str], name: str) -> dict[str, str]:
    return {other: content for other, content in databases.items() if other != name}


def carried_out(world: World, plan: DataPlan) -> Iterator[list[World]]:
    """Yield the ways in which a plan is carried out: the world after each part that a power cut can stand behind."""
    if plan.from_dump:
        yield from restored_beside(world)
        return
    after = []
    if plan.renames:
        after.append(world := world.with_(databases=renamed(world.databases, plan.renames)))
    for name in set(plan.drops) & set(world.databases):
        after.append(world := world.with_(databases=dropped(world.databases, name)))
    if after and world.kind is DataKind.DUMP:
        after.append(world.with_(came_back=True))
    yield after


def restored_beside(world: World) -> Iterator[list[World]]:
    """Play `ProvenDump.come_back`, where there is room for both and where there is not."""
    names, side = world.names, f"{world.names.kept}_side"
    filling = {**world.databases, side: HALF}
    kept = dropped({**filling, names.kept: OLD}, side)
    yield [world.with_(databases=filling), world.with_(databases=kept)]

    tight = renamed(filling, ((names.live, names.failed),)) if names.live in filling else filling
    alone = dropped(tight, names.failed)
    kept = dropped({**alone, names.kept: OLD}, side)
    yield [world.with_(databases=databases) for databases in (filling, tight, alone, kept)]


def starts(kind: DataKind) -> Iterator[World]:
    """Yield the world before each step of a change and in the middle of it."""
    names = NAMES[kind]
    for had_live in (True, False) if kind is DataKind.RESTORE else (True,):
        databases = {names.live: OLD} if had_live else {}
        if names.incoming:
            databases[names.incoming] = UNIQUE if kind is DataKind.ROLLBACK else NEW
        world = World(kind, databases, had_live=had_live)
        yield world
        for step in ORDER[kind]:
            world = world.with_(begun=(*world.begun, step))
            yield world
            for databases in effects(world, step):
                world = world.with_(databases=databases)
                yield world
            if kind in (DataKind.COPY, DataKind.DUMP) and Step.REWRITE in world.begun:
                # The run is cut off, and somebody calls Compose.
                yield world.with_(databases={**world.databases, names.live: NEW}, others=True)


def effects(world: World, step: Step) -> Iterator[dict[str, str]]:
    names, now = world.names, dict(world.databases)
    if step is Step.KEEP and world.kind is DataKind.COPY:
        yield {**now, names.kept: HALF}
        yield {**now, names.kept: OLD}
    elif step is Step.KEEP:
        # A copy was tried, and is dropped for a dump.
        yield {**now, names.kept: HALF}
        yield now
    elif step is Step.SWAP:
        yield renamed(now, data_plan.swap(names, now).renames)
    elif step is Step.START_API and world.kind in (DataKind.COPY, DataKind.DUMP):
        yield {**now, names.live: NEW}


def assert_safe(world: World, dump: bool) -> None:
    """Assert that nothing is lost, and that all of it is under a name that a person is shown and `prune` spares."""
    names, databases = world.names, world.databases
    old = [name for name, content in databases.items() if content == OLD]
    if world.had_live and not dump:
        # The live name, or that of which the printed commands speak.
        plan = world.plan()
        printed = {name for line in (*evidence.renames(plan), *evidence.drops(plan)) for name in shlex.split(line)}
        assert any(name == names.live or name in printed for name in old), world
    if world.kind is DataKind.ROLLBACK:
        (only,) = (name for name, content in databases.items() if content == UNIQUE)
        assert only in (names.live, names.incoming), world


def assert_back(world: World) -> None:
    """Assert that all is as it was before the run, but for what the new version wrote."""
    names, databases = world.names, world.databases
    assert databases.get(names.live) == (OLD if world.had_live else None), world
    others = {name: content for name, content in databases.items() if name not in (names.live, f"{names.kept}_side")}
    if world.kind is DataKind.ROLLBACK:
        assert others == {names.incoming: UNIQUE}, world
    else:
        assert set(others) <= {data_plan.disposable(world.kind, names)}, world


def assert_spared(world: World) -> None:
    """Assert that no previous data are under a name that `prune` may drop, now that the run has ended."""
    # What a rollback would have undone still stands.
    standing = [{"operation": "upgrade", "facts": {"kept": NAMES[DataKind.ROLLBACK].incoming}}]
    later = datetime(2027, 1, 1, tzinfo=timezone.utc)
    going = kept.droppable(world.databases, world.names.live, standing, timedelta(days=7), later)
    assert not [name for name in going if world.databases[name] == UNIQUE], world
    assert not world.had_live or world.databases[world.names.live] == OLD and world.names.live not in going, world


def went_back(world: World, cuts: int) -> Iterator[World]:
    """Yield every world in which the way back ends, cut off up to so many times, anywhere."""
    assert_safe(world, dump=world.kind is DataKind.DUMP)
    for after in carried_out(world, world.plan()):
        for between in after[:-1] if cuts else ():
            yield from went_back(between, cuts - 1)
        if after:
            yield from went_back(after[-1], cuts)
        else:
            yield world


@pytest.mark.parametrize("kind", DataKind)
def test_from_everywhere_all_data_come_back_however_often_it_is_cut_off(kind: DataKind) -> None:
    ends = 0
    for world in starts(kind):
        for end in went_back(world.with_(begun=(*world.begun, Step.GO_BACK)), cuts=3):
            assert_back(end)
            assert_spared(end)
            ends += 1
    assert ends >= len(ORDER[kind])


@pytest.mark.parametrize("kind", DataKind)
def test_after_the_way_back_nothing_is_left_to_do_even_without_the_failed_data(kind: DataKind) -> None:
    for world in starts(kind):
        for end in went_back(world, cuts=0):
            gone = dropped(end.databases, data_plan.disposable(kind, end.names))
            again = end.with_(databases=gone, came_back=kind is DataKind.DUMP)
            assert not again.plan().renames and not set(again.plan().drops) & set(gone), again


def subsets(of: Any) -> Iterator[tuple[Any, ...]]:
    return chain.from_iterable(combinations(of, number) for number in range(len(of) + 1))


def every_world(kind: DataKind) -> Iterator[World]:
    """Yield every combination of databases and steps, those too that only a person's hands can bring about."""
    names = NAMES[kind]
    for present in subsets([name for name in (names.live, names.kept, names.incoming, names.failed) if name]):
        for begun in subsets(STEPS):
            for had_live in (True, False):
                for came_back in (True, False):
                    for others in (True, False):
                        yield World(kind, dict.fromkeys(present, ""), begun, had_live, came_back, others)


@pytest.mark.parametrize("kind", DataKind)
def test_no_combination_drops_or_hides_the_only_copy(kind: DataKind) -> None:
    tried = planned = 0
    for world in every_world(kind):
        tried, names, databases = tried + 1, world.names, world.databases
        changed = Step.START_API in world.begun or world.others
        touched = changed or Step.SWAP in world.begun
        try:
            plan = world.plan()
        except StateError as error:
            assert names.failed in databases and names.failed in error.message and error.hint
            continue
        planned += bool(plan.renames or plan.drops)
        after = renamed(databases, plan.renames)
        assert names.live not in plan.drops and names.failed not in plan.drops
        if names.kept in plan.drops:
            # A copy whose original nobody has touched.
            assert kind in (DataKind.COPY, DataKind.DUMP) and names.live in databases and not changed
        if names.incoming in plan.drops:
            assert kind is DataKind.RESTORE
        for old, new in plan.renames:
            assert touched or new == names.live, "nothing was changed yet"
            if new == names.failed:
                # What goes aside makes way for the old data, or there were none.
                assert kind is not DataKind.ROLLBACK and (after.get(names.live) is not None or not world.had_live)
        if names.kept in databases and not (kind is DataKind.RESTORE and Step.SWAP not in world.begun):
            assert names.live in after or kind is DataKind.ROLLBACK and Step.SWAP not in world.begun
        if plan.from_dump:
            assert kind is DataKind.DUMP and not plan.renames and not plan.drops
    assert tried >= 2 * 2 * 8 * 2 ** len(STEPS) and planned


def test_what_an_earlier_version_let_a_person_rename_comes_back() -> None:
    names = NAMES[DataKind.ROLLBACK]
    world = World(DataKind.ROLLBACK, {names.live: OLD, names.failed: UNIQUE}, ORDER[DataKind.ROLLBACK])
    ((after,),) = carried_out(world, world.plan())
    assert_back(after)
    assert not data_plan.disposable(DataKind.ROLLBACK, names)
