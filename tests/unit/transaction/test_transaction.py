"""The theorem: whatever fails, wherever, all is new and verified or all is old and verified.

Every call that an upgrade makes of the engine and every file that it writes is a place where an error, a
Ctrl-C and a kill strike, one after the other; and a recovery is killed at each of its own.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import shlex
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from compose_chap.backups import backup, catalogue, dump_only, proof
from compose_chap.detection import detect
from compose_chap.edit import Edit
from compose_chap.engine.world import World
from compose_chap.errors import Cancelled, ChapError, EngineError, NeedsPerson, RolledBack, StateError, StuckSessions
from compose_chap.image import Reference
from compose_chap.operations import recover, rollback, upgrade
from compose_chap.operations.upgrade_plan import UpgradePlan
from compose_chap.postgres import pg_tools
from compose_chap.postgres.server import Server
from compose_chap.records import run_records
from compose_chap.records.files import durable, own_folder
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.transaction import forward
from compose_chap.transaction.run import change
from compose_chap.transaction.run.baseline import baseline_of
from tests.fake_server import Database
from tests.fakes import API, WORKER, FakeEngine, Killed, manifest, world
from tests.unit.transaction.run.test_journal_facts import CHANGE

OLD = f"chap {API}:v1\nworker {WORKER}:v1\ndb postgres:17\nredis valkey:8\n".encode()
NEW = OLD.replace(b":v1", b":v2")
# What writes the files of a stack: beside them, in their place, and both.
DURABLE = ("write_draft", "replace_by_draft", "write_file")


def error(name: str) -> None:
    """Let a call fail."""
    raise (StateError if name.startswith(("write ", "wrote ")) else EngineError)(f"{name} failed")


def interruption(name: str) -> None:
    """Press Ctrl-C."""
    raise KeyboardInterrupt


def kill(name: str) -> None:
    """End the process."""
    raise Killed


@pytest.fixture
def base_folder() -> Iterator[Path]:
    """Give a folder in memory, where there is one: a hundred thousand files are written here."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def engine(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """Give an engine with a stack at v1, whose backups succeed at once."""
    folder = base_folder / "stack"
    folder.mkdir()
    (folder / "compose.yml").write_bytes(OLD)

    saved: list[Database] = []
    new: list[Database] = []
    (folder / "backups" / "1").mkdir(parents=True)
    (folder / "backups" / "1" / "a.dump").write_bytes(b"d")

    def made() -> catalogue.Backup:
        return catalogue.Backup(
            folder / "backups" / "1",
            manifest(id="1", tables=dict(saved[-1].rows)),
        )

    def take(world: World, *args: Any, **named: Any) -> catalogue.Backup:
        here = world.engine
        assert isinstance(here, FakeEngine)
        here.at("backup")
        if args[0].reason.startswith("the new data"):
            # The old ones stay what comes back.
            new.append(copy.deepcopy(here.databases["chap_core"]))
            return replace(made(), folder=folder / "backups" / "new")
        saved.append(copy.deepcopy(here.databases["chap_core"]))
        return made()

    def fill(server: Server, database: str, pieces: Iterator[bytes]) -> None:
        here = server.engine
        assert isinstance(here, FakeEngine)
        here.at("fill")
        here.databases[database].rows.update(saved[-1].rows)
        here.databases[database].columns = set(saved[-1].columns)
        here.at("filled")

    monkeypatch.setattr(backup, "take", take)
    monkeypatch.setattr(catalogue, "load", lambda folder: made())
    monkeypatch.setattr(catalogue, "amend", lambda made, **facts: made)
    monkeypatch.setattr(proof, "check_sums", lambda world, made: None)
    monkeypatch.setattr(pg_tools, "fill", fill)
    # A real power cut is not played here, and a disk is slow.
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr(run_records, "_ROOM", 16)
    engine = FakeEngine(folder)
    engine.backups_of_new_data = new
    return engine


def writers() -> dict[str, Callable[..., object]]:
    """Return what writes files: those of the stack, and our own."""
    files = {f"compose_chap.records.files.durable.{name}": getattr(durable, name) for name in DURABLE}
    return {**files, "compose_chap.records.files.own_folder.write": own_folder.write}


def watch_files(
    monkeypatch: pytest.MonkeyPatch, engine: FakeEngine, writers: Mapping[str, Callable[..., object]]
) -> None:
    """Make every file that is written a place where a fault can strike, before and after."""

    def watched(write: Callable[..., object]) -> Callable[..., object]:
        def writes(path: Path, *content: bytes) -> object:
            engine.at(f"write {path.name}")
            draft: object = write(path, *content)
            engine.at(f"wrote {path.name}")
            return draft

        return writes

    for name, write in writers.items():
        monkeypatch.setattr(name, watched(write))


def run_upgrade(
    engine: FakeEngine, *, by_dump: bool = False, no_copy: bool = False, repairs: tuple[str, ...] = ()
) -> None:
    """Upgrade from v1 to v2."""
    here = world(engine)
    (stack,) = detect(engine.containers())
    plan = UpgradePlan(
        stack,
        "v2",
        {"chap": Reference(API, "v2"), "worker": Reference(WORKER, "v2")},
        (Edit(engine.folder / "compose.yml", OLD, NEW),),
        (),
        engine.folder / "backups",
        "linux/amd64",
        baseline_of(here, stack),
        by_dump=by_dump,
        no_copy=no_copy,
        repairs=repairs,
    )
    upgrade.execute(here, plan, {})


def run_rollback(engine: FakeEngine) -> None:
    """Undo the upgrade."""
    here = world(engine)
    (stack,) = detect(engine.containers())
    rollback.roll_back(here, rollback.plan_rollback(here, stack, "upgrade"), {})


def run_recover(engine: FakeEngine, folder: Path | None = None) -> None:
    """Finish or undo what is open, if anything is."""
    here = world(engine)
    journal = run_records.open_run(engine.folder, here.clock)
    if journal:
        recover.recover(here, journal, folder=folder)


def picture(engine: FakeEngine) -> Any:
    """Return what has to be as it was: the file, images by service, live rows, columns and settings, and names."""
    services = sorted((box.service, box.name, box.image, box.image_id, box.state) for box in engine.boxes.values())
    live = engine.databases["chap_core"]
    return (engine.folder / "compose.yml").read_bytes(), services, live.rows, live.columns, live.settings


def kept_databases(names: set[str]) -> set[str]:
    """Return the databases among some names that an earlier run kept."""
    return {name for name in names if "_before_" in name or "_after_" in name}


def assert_whole(engine: FakeEngine, old: Any, new: Any, leftovers: set[str]) -> str:
    """Look that the stack is all old or all new, with nothing left over, and return which."""
    now = picture(engine)
    which = "old" if now == old else "new" if now == new else "mixed"
    assert which != "mixed", [part for part, then in zip(now, old) if part != then]
    names = set(engine.databases) - {"chap_core", "postgres"}
    if which == "old":
        # What the new version wrote while it may have served is not thrown away.
        more = names - kept_databases(leftovers)
        assert len(more) <= 1 and all(name.endswith("_failed") for name in more), names
    else:
        # The old database, or a dump of it where it could not be copied.
        assert len(names) <= 1, names
    records = engine.folder / ".docker-chap"
    assert not (records / "journal.json").exists() and not (records / "room").exists()
    if which == "old":
        assert {name for name in engine.images if "kept" in name} <= leftovers
    return which


class Theorem:
    """A run whose every call is struck by a fault, from the same start each time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.monkeypatch, self.folder, self.writers = monkeypatch, folder, writers()

    def run(
        self,
        run: Callable[[FakeEngine], None],
        engine: FakeEngine,
        number: int = 0,
        fault: Callable[[str], None] = error,
    ) -> tuple[bool, BaseException | None]:
        """Run with the fault at one call; return whether it struck, and what came out."""
        struck = False

        def strike(call: int, name: str) -> None:
            nonlocal struck
            if call == number:
                struck = True
                fault(name)

        engine.strike, engine.calls = strike, 0
        watch_files(self.monkeypatch, engine, self.writers)
        try:
            run(engine)
        except (ChapError, KeyboardInterrupt, Killed) as raised:
            return struck, raised
        finally:
            for name, write in self.writers.items():
                self.monkeypatch.setattr(name, write)
        return struck, None

    def new(self, run: Callable[[FakeEngine], None], engine: FakeEngine) -> Any:
        """Return what a run that nothing strikes makes of the engine, which stays as it was, with its files."""
        after = engine.copy()
        self.run(run, after)
        made = picture(after)
        shutil.rmtree(self.folder / ".docker-chap")
        (self.folder / "compose.yml").write_bytes(OLD)
        return made

    def prove(
        self,
        run: Callable[[FakeEngine], None],
        before: FakeEngine,
        new: Any,
        fault: Callable[[str], None],
        recovery_killed_at: int = 0,
    ) -> dict[str, int]:
        """Let the fault strike at every call, recover, look, and return how often all was old and new."""
        result: dict[str, int] = {}
        old, start = picture(before), self.folder.with_name("start")
        leftovers = set(before.databases) | set(before.images)
        shutil.copytree(self.folder, start)

        for number in range(1, 10_000):
            shutil.rmtree(self.folder)
            shutil.copytree(start, self.folder)
            engine = before.copy()
            struck, raised = self.run(run, engine, number, fault)
            if not struck:
                break
            verified = isinstance(raised, NeedsPerson) and "done and verified" in raised.state
            if fault is error and not before.sick:
                assert not isinstance(raised, NeedsPerson) or verified, raised
            engine = engine.copy()
            if recovery_killed_at:
                self.run(run_recover, engine, recovery_killed_at, kill)
                engine = engine.copy()
            run_recover(engine)
            which = assert_whole(engine, old, new, leftovers)
            assert which == "new" or not verified
            result[which] = result.get(which, 0) + 1
        shutil.rmtree(start)
        return result


@pytest.fixture
def theorem(monkeypatch: pytest.MonkeyPatch, base_folder: Path) -> Theorem:
    """Give what strikes."""
    return Theorem(monkeypatch, base_folder / "stack")


@pytest.mark.parametrize("fault", [error, interruption, kill])
@pytest.mark.parametrize("sick", ["", "never ready", "loses rows"])
def test_upgrade(engine: FakeEngine, theorem: Theorem, fault: Callable[[str], None], sick: str) -> None:
    new = theorem.new(run_upgrade, engine)
    engine.sick = sick
    result = theorem.prove(run_upgrade, engine, new, fault)
    assert result["old"] > 50 and ("new" in result) == (not sick)


@pytest.mark.parametrize("fault", [error, interruption, kill])
@pytest.mark.parametrize("room", [1 << 20, 0])
@pytest.mark.parametrize("sick", ["", "loses rows"])
def test_upgrade_that_keeps_a_dump(
    engine: FakeEngine, theorem: Theorem, fault: Callable[[str], None], sick: str, room: int
) -> None:
    run = functools.partial(run_upgrade, by_dump=True)
    new = theorem.new(run, engine)
    engine.sick, engine.room = sick, room
    result = theorem.prove(run, engine, new, fault)
    assert result["old"] > 50 and ("new" in result) == (not sick)


@pytest.mark.parametrize("room", [1 << 20, 0])
@pytest.mark.parametrize("at", [5, 10, 15, 20, 25, 30, 35, 40, 45])
def test_upgrade_that_keeps_a_dump_and_whose_recovery_is_killed_too(
    engine: FakeEngine, theorem: Theorem, at: int, room: int
) -> None:
    run = functools.partial(run_upgrade, by_dump=True)
    new = theorem.new(run, engine)
    engine.room = room
    assert theorem.prove(run, engine, new, kill, recovery_killed_at=at)["old"] > 50


@pytest.mark.parametrize("room", [1 << 20, 0])
def test_new_data_that_users_may_have_written_to_are_kept_also_without_room(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    watch_files(monkeypatch, engine, before := writers())

    def strike(call: int, name: str) -> None:
        if any(box.image == f"{WORKER}:v2" and box.state == "running" for box in engine.boxes.values()):
            raise Killed

    engine.strike, engine.room = strike, room
    with pytest.raises(Killed):
        run_upgrade(engine, by_dump=True)
    for name, write in before.items():
        monkeypatch.setattr(name, write)
    later = engine.copy()
    run_recover(later)
    (check,) = (
        check for check in run_records.history(engine.folder)[-1]["checks"] if check["name"] == "written_meanwhile"
    )
    kept = [name for name in later.databases if name.endswith("_failed")]
    assert bool(kept) == bool(room) and ("backups/new" in check["message"]) == (not room)


def journal_now(engine: FakeEngine) -> dict[str, Any]:
    """Return the record of the open run; without steps where none is open."""
    path = engine.folder / ".docker-chap" / "journal.json"
    return dict(json.loads(path.read_text())) if path.exists() else {"steps": []}


def steps_now(engine: FakeEngine) -> list[str]:
    """Return the steps that the open run began."""
    return [step["step"] for step in journal_now(engine)["steps"]]


def rows_of_new_data(engine: FakeEngine) -> list[int]:
    """Return the rows of the new data wherever they are kept: in a database, or in a backup."""
    aside = [database for name, database in engine.databases.items() if name.endswith("_failed")]
    return [database.rows["public.observation"] for database in (*aside, *engine.backups_of_new_data)]


@pytest.mark.parametrize("room", [1 << 20, 0])
@pytest.mark.parametrize("how", ["added", "changed", ""])
def test_what_users_wrote_until_the_verification_failed_is_kept_also_without_room(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, how: str, room: int
) -> None:
    def begin(here: World, journal: Journal, step: Step, detail: str = "") -> None:
        change.begin(here, journal, step, detail)
        live = engine.databases.get("chap_core")
        # At the last moment before the verification is judged.
        if step is Step.VERIFY and live and how == "added":
            live.rows["public.observation"] = 15
        elif step is Step.VERIFY and live and how == "changed":
            live.edited["public.observation"] = 1

    monkeypatch.setattr(forward, "begin", begin)
    engine.sick, engine.room = "never ready", room
    with pytest.raises(RolledBack) as failure:
        run_upgrade(engine, by_dump=True)
    assert rows_of_new_data(engine) == ([{"added": 15, "changed": 10}[how]] if how else [])
    warned = [check for check in failure.value.details["checks"] if check["name"] == "written_meanwhile"]
    assert len(warned) == bool(how) and all(check["message"] in failure.value.state for check in warned)
    assert engine.databases["chap_core"].rows["public.observation"] == 10


@pytest.mark.parametrize("room", [1 << 20, 0])
def test_what_users_wrote_after_a_failed_run_was_killed_is_kept_also_without_room(
    engine: FakeEngine, room: int
) -> None:
    def strike(call: int, name: str) -> None:
        if "failure" in journal_now(engine):
            raise Killed

    engine.sick, engine.room, engine.strike = "never ready", room, strike
    with pytest.raises(Killed):
        run_upgrade(engine, by_dump=True)
    later = engine.copy()
    later.databases["chap_core"].rows["public.observation"] = 510
    run_recover(later)
    assert rows_of_new_data(later) == [510] and later.databases["chap_core"].rows["public.observation"] == 10
    assert "written_meanwhile" in [check["name"] for check in run_records.history(engine.folder)[-1]["checks"]]


@pytest.mark.parametrize("room", [True, False])
def test_new_data_without_a_whole_backup_are_dumped_alone(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, room: bool
) -> None:
    engine.room, take = 0, backup.take
    cut = cut_off(engine, "verify api", by_dump=True)
    cut.databases["chap_core"].rows["public.observation"] = 15

    def no_room(world: World, scope: backup.Scope, folder: Path) -> catalogue.Backup:
        if scope.reason.startswith("the new data"):
            raise StateError("Not enough room", hint="docker chap backup -o FOLDER")
        return take(world, scope, folder)

    def dump(engine: Any, stack: Any, target: Path, notify: Any) -> None:
        if not room and target.parent != tmp_path / "elsewhere":
            raise StateError("The disk is full", hint="docker chap backup --dump-only FILE")
        target.write_text(str(cut.databases["chap_core"].rows["public.observation"]))

    monkeypatch.setattr(backup, "take", no_room)
    monkeypatch.setattr(dump_only, "into_file", dump)
    elsewhere = None
    if not room:
        with pytest.raises(NeedsPerson) as failure:
            run_recover(cut)
        assert "docker chap recover -o FOLDER" in failure.value.hint and "chap backup" not in failure.value.hint
        assert cut.databases["chap_core"].rows["public.observation"] == 15
        elsewhere = tmp_path / "elsewhere"
    run_recover(cut, elsewhere)
    (check,) = (
        check for check in run_records.history(engine.folder)[-1]["checks"] if check["name"] == "written_meanwhile"
    )
    saved = Path(check["details"]["backup"])
    assert saved.read_text() == "15" and str(saved) in check["message"]
    assert saved.parent == (elsewhere or engine.folder / "backups")
    assert cut.databases["chap_core"].rows["public.observation"] == 10


@pytest.mark.parametrize("ways", [{}, {"by_dump": True}, {"no_copy": True}])
def test_a_session_that_does_not_end_lets_everything_stay_as_it_is(engine: FakeEngine, ways: Any) -> None:
    before = copy.deepcopy(picture(engine))

    def hold(call: int, name: str) -> None:
        if name == "closed" and steps_now(engine)[-1] == "keep":
            raise StuckSessions("A session does not end.")

    engine.strike = hold
    with pytest.raises(RolledBack, match="A session does not end"):
        run_upgrade(engine, **ways)
    assert picture(engine) == before and not kept_databases(set(engine.databases))


@pytest.mark.parametrize("fault", [error, interruption, kill])
@pytest.mark.parametrize("quiet", [True, False])
@pytest.mark.parametrize("sick", ["", "loses rows"])
def test_upgrade_that_keeps_the_backup_alone(
    engine: FakeEngine, theorem: Theorem, fault: Callable[[str], None], sick: str, quiet: bool
) -> None:
    run = functools.partial(run_upgrade, no_copy=True)
    engine.quiet = quiet
    new = theorem.new(run, engine)
    engine.sick = sick
    result = theorem.prove(run, engine, new, fault)
    assert result["old"] > 50 and ("new" in result) == (not sick)


@pytest.mark.parametrize("at", [5, 15, 25, 35, 45])
def test_upgrade_that_keeps_the_backup_alone_and_whose_recovery_is_killed_too(
    engine: FakeEngine, theorem: Theorem, at: int
) -> None:
    run = functools.partial(run_upgrade, no_copy=True)
    new = theorem.new(run, engine)
    assert theorem.prove(run, engine, new, kill, recovery_killed_at=at)["old"] > 50


@pytest.mark.parametrize("quiet", [True, False])
def test_the_backup_is_kept_alone_only_where_nothing_was_written_since(engine: FakeEngine, quiet: bool) -> None:
    engine.quiet = quiet
    run_upgrade(engine, no_copy=True)
    assert len(kept_databases(set(engine.databases))) == (0 if quiet else 1)
    (run,) = run_records.history(engine.folder)
    assert ("kept_dump" in run["facts"]) == quiet


@pytest.mark.parametrize("at", [5, 15, 25, 35, 45])
def test_upgrade_whose_recovery_is_killed_too(engine: FakeEngine, theorem: Theorem, at: int) -> None:
    new = theorem.new(run_upgrade, engine)
    assert theorem.prove(run_upgrade, engine, new, kill, recovery_killed_at=at)["old"] > 50


@pytest.mark.parametrize("fault", [error, interruption, kill])
def test_rollback(engine: FakeEngine, theorem: Theorem, fault: Callable[[str], None]) -> None:
    theorem.run(run_upgrade, engine)
    engine.databases["chap_core"].rows["public.observation"] += 5
    start, after = engine.folder.with_name("upgraded"), engine.copy()
    shutil.copytree(engine.folder, start)
    theorem.run(run_rollback, after)
    new = picture(after)
    shutil.rmtree(engine.folder)
    shutil.copytree(start, engine.folder)

    assert theorem.prove(run_rollback, engine, new, fault)["old"] > 40


def test_rows_of_another_client_are_kept_and_reported_while_it_writes(engine: FakeEngine) -> None:
    engine.sick, written = "loses rows", 0
    engine.databases["chap_core"].rows["public.other"] = 0

    def write(call: int, name: str) -> None:
        nonlocal written
        if any("_before_" in database for database in engine.databases):
            engine.databases["chap_core"].rows["public.other"] += 1
            written += 1

    engine.strike = write
    with pytest.raises(RolledBack) as failure:
        run_upgrade(engine)
    (aside,) = (database for database in engine.databases if database.endswith("_failed"))
    assert aside in failure.value.state
    result = (engine.databases[database_name].rows["public.other"] for database_name in (aside, "chap_core"))
    assert written and sum(result) == written


# Into these tables CHAP itself writes at its start; what is written once all of it ran is a user's all the same.
@pytest.mark.parametrize("table", ["", "public.observation", "public.configuredmodeldb"])
def test_what_failed_once_all_of_chap_ran_is_kept_only_if_somebody_wrote(engine: FakeEngine, table: str) -> None:
    engine.sick = "never ready"
    engine.databases["chap_core"].rows["public.configuredmodeldb"] = 3

    def write(call: int, name: str) -> None:
        if table and name == "compose started":
            engine.databases["chap_core"].edited[table] = 1

    engine.strike = write
    with pytest.raises(RolledBack) as failure:
        run_upgrade(engine)
    assert any(event["step"] == "start worker" for event in run_records.history(engine.folder)[-1]["steps"])
    aside = [name for name in engine.databases if name.endswith("_failed")]
    assert len(aside) == bool(table)
    warned = [check["details"] for check in failure.value.details["checks"] if check["name"] == "written_meanwhile"]
    assert warned == ([{"tables": {}, "changed": {table: 1}}] if table else [])


def edited_meanwhile(engine: FakeEngine, line: str) -> None:
    """Let somebody add a line to the Compose file while the new version starts, which then fails."""
    engine.sick, file = "never ready", engine.folder / "compose.yml"

    def edit(call: int, name: str) -> None:
        if name == "compose started" and line not in file.read_text():
            file.write_text(file.read_text() + line)

    engine.strike = edit


def test_a_file_that_somebody_edits_meanwhile_is_left_alone_and_all_else_comes_back(engine: FakeEngine) -> None:
    _, services, *data = picture(engine)
    edited_meanwhile(engine, "mine mine:1\n")
    with pytest.raises(NeedsPerson) as failure:
        run_upgrade(engine)
    now = picture(engine)
    assert now[0] == NEW + b"mine mine:1\n" and list(now[2:]) == data
    # The same images, in containers made again; and CHAP runs.
    assert [row[2:] for row in now[1]] == [service[2:] for service in services]
    assert "CHAP runs again as before" in failure.value.message and "compose.yml" in failure.value.message
    assert f"{API}:v1" in failure.value.hint and "docker chap recover" in failure.value.hint

    # As long as the file names the new images nothing else comes of it.
    with pytest.raises(NeedsPerson):
        run_recover(engine)
    assert picture(engine) == now

    (engine.folder / "compose.yml").write_bytes(OLD + b"mine mine:1\n")
    run_recover(engine)
    assert picture(engine)[2:] == now[2:] and not (engine.folder / ".docker-chap" / "journal.json").exists()
    labels = {box.labels["com.docker.compose.project.config_files"] for box in engine.boxes.values()}
    assert labels == {str(engine.folder / "compose.yml")}


def test_a_file_that_cannot_be_read_any_more_does_not_keep_the_data_away(engine: FakeEngine) -> None:
    _, _, *data = picture(engine)
    edited_meanwhile(engine, "half a line here\n")
    with pytest.raises(NeedsPerson) as failure:
        run_upgrade(engine)
    assert list(picture(engine)[2:]) == data
    assert "The old data are back, but CHAP is not" in failure.value.message

    engine.strike = lambda call, name: None
    (engine.folder / "compose.yml").write_bytes(OLD)
    run_recover(engine)
    assert picture(engine)[0] == OLD and list(picture(engine)[2:]) == data


def test_a_rollback_keeps_the_newer_data_under_its_own_id(engine: FakeEngine) -> None:
    run_upgrade(engine)
    engine.databases["chap_core"].rows |= {"public.observation": 12, "public.modeltemplatedb": 3}
    (stack,) = detect(engine.containers())
    plan = rollback.plan_rollback(world(engine), stack, "upgrade")
    assert plan.written_since == {"public.observation": 2}
    done = rollback.roll_back(world(engine), plan, {})
    assert done.kept.endswith(done.run.lower()) and done.kept in engine.databases
    record = run_records.history(engine.folder)[-1]
    assert (record["from"], record["to"], record["undoes"]) == ("2", "1", plan.undone["id"])


def cut_off(engine: FakeEngine, step: str, **ways: Any) -> FakeEngine:
    """Kill an upgrade right after it began a step, and return the engine as the next process finds it."""

    def strike(call: int, name: str) -> None:
        journal = engine.folder / ".docker-chap" / "journal.json"
        steps = json.loads(journal.read_text())["steps"] if journal.exists() else []
        if steps and steps[-1]["step"] == step:
            raise Killed

    engine.strike = strike
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        watch_files(patch, engine, writers())
        run_upgrade(engine, **ways)
    return engine.copy()


def test_what_was_complete_when_it_was_cut_off_is_finished_and_keeps_what_was_written_since(
    engine: FakeEngine,
) -> None:
    engine = cut_off(engine, "verify")
    engine.databases["chap_core"].rows["public.observation"] += 5
    run_recover(engine)
    assert (engine.folder / "compose.yml").read_bytes() == NEW
    assert engine.databases["chap_core"].rows["public.observation"] == 15
    record = run_records.history(engine.folder)[-1]
    assert (record["result"], record["recovered"]) == ("done", True) and 0 < record["downtime"] < 100
    run_rollback(engine)
    assert picture(engine)[0] == OLD


@pytest.mark.parametrize("step", ["verify api", "start worker"])
def test_what_a_run_that_was_cut_off_had_served_is_set_aside_whatever_its_rows_number(
    engine: FakeEngine, step: str
) -> None:
    engine = cut_off(engine, step)
    # A user changes a row, and adds one where CHAP itself does too: no count shows either.
    engine.databases["chap_core"].settings = "changed meanwhile"
    run_recover(engine)
    (aside,) = (database for database in engine.databases if database.endswith("_failed"))
    assert engine.databases[aside].settings == "changed meanwhile"
    (check,) = (
        check for check in run_records.history(engine.folder)[-1]["checks"] if check["name"] == "written_meanwhile"
    )
    assert aside in check["message"] and "prune" in check["message"]


def compose_up(engine: FakeEngine) -> None:
    """Call `docker compose up -d`, as somebody does after a power cut, or a unit at the boot."""
    (stack,) = detect(engine.containers())
    engine.compose(stack.project, "up", "-d", *("chap", "worker"))


@pytest.mark.parametrize("by_dump", [False, True])
@pytest.mark.parametrize("again", [0, 20])
def test_somebody_may_call_compose_wherever_a_run_is_cut_off(
    engine: FakeEngine, theorem: Theorem, by_dump: bool, again: int
) -> None:
    run, start = functools.partial(run_upgrade, by_dump=by_dump), engine.folder.with_name("start")
    shutil.copytree(engine.folder, start)
    migrated = undone = 0
    for number in range(1, 10_000):
        shutil.rmtree(engine.folder)
        shutil.copytree(start, engine.folder)
        cut = engine.copy()
        struck, _ = theorem.run(run, cut, number, kill)
        if not struck:
            break
        later, steps = cut.copy(), steps_now(cut)
        compose_up(later)
        live = later.databases["chap_core"]
        live.settings, before_start = "a user was here", "start api" not in steps
        assert not before_start or "b" not in live.columns or "rewrite" in steps
        migrated += before_start and "b" in live.columns
        if again:
            theorem.run(run_recover, later, again, kill)
            later = later.copy()
        run_recover(later)
        if (engine.folder / "compose.yml").read_bytes() == NEW:
            continue
        undone += 1
        # The old code has the old columns, and what a user did is live, or set aside.
        assert later.databases["chap_core"].columns == {"a"}, steps
        live = later.databases["chap_core"]
        aside = [database for name, database in later.databases.items() if name.endswith("_failed")]
        assert "a user was here" in [database.settings for database in (live, *aside)], steps
        assert later.boxes and {box.image for box in later.boxes.values() if box.service == "chap"} == {f"{API}:v1"}
    assert undone > 50 and migrated


def test_a_new_version_that_somebody_started_before_the_data_were_kept_is_named(engine: FakeEngine) -> None:
    engine = cut_off(engine, "stop")
    (api,) = (box for box in engine.boxes.values() if box.service == "chap")
    engine.discard(api.id)
    engine._boot(engine._make("chap", f"{API}:v2"))
    run_recover(engine)
    record = run_records.history(engine.folder)[-1]
    (check,) = (check for check in record["checks"] if check["name"] == "data")
    assert check["status"] == "warn" and "chap_core" in check["message"] and "docker chap restore 1" in check["hint"]
    assert {box.image for box in engine.boxes.values() if box.service == "chap"} == {f"{API}:v1"}


@pytest.mark.parametrize("fault", [error, interruption, kill])
@pytest.mark.parametrize("at", [1, 2])
def test_what_fails_before_the_stop_stops_nothing(engine: FakeEngine, fault: Callable[[str], None], at: int) -> None:
    before, configs = copy.deepcopy(picture(engine)), 0

    def strike(call: int, name: str) -> None:
        nonlocal configs
        if name == "compose config" and "backup" in steps_now(engine):
            configs += 1
            if configs == at:
                fault(name)

    engine.strike = strike
    with pytest.raises((RolledBack, Cancelled, Killed)):
        run_upgrade(engine)
    assert configs >= at
    after = engine.copy() if fault is kill else engine
    run_recover(after)
    assert (engine.stops, after.stops) == ([], []) and picture(after) == before
    assert not list(engine.folder.glob(".compose*"))
    assert not kept_databases(set(after.databases)) and not [name for name in after.images if "kept" in name]


def test_files_name_newer_code_only_once_the_older_data_are_kept(engine: FakeEngine) -> None:
    seen: list[tuple[bool, bool]] = []

    def look(call: int, name: str) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # between its two looks, the main thread may go on
        named = (engine.folder / "compose.yml").read_bytes() == NEW
        seen.append((named, any("_before_" in database for database in engine.databases)))

    engine.strike = look
    run_upgrade(engine)
    assert (True, False) not in seen and (False, True) in seen
    # On the way back older code comes, which changes nothing.
    seen.clear()
    run_rollback(engine)
    assert (False, True) in seen and (True, False) not in seen


@pytest.mark.parametrize(
    ("before", "after", "first"),
    [("2.0.0", "2.1.0", "data"), ("2.1.0", "2.0.0", "files"), ("2.1.0", "2.1.0", "files"), ("", "main", "files")],
)
def test_newer_code_comes_after_the_data_that_it_is_for_and_older_code_before(
    before: str, after: str, first: str
) -> None:
    change = replace(CHANGE, expected=after, baseline=replace(CHANGE.baseline, version=before))
    done: list[str] = []
    files = SimpleNamespace(change=change, apply=lambda *given: done.append("files"), check=lambda world: None)
    data = SimpleNamespace(bring_in=lambda *given: done.append("data"))
    nothing: Any = None
    forward._change_files_and_data(nothing, nothing, nothing, cast(Any, files), cast(Any, data))
    assert done[0] == first and len(done) == 2


def test_the_copy_stays_until_the_old_state_is_verified(engine: FakeEngine) -> None:
    engine = cut_off(engine, "keep")
    (copied,) = kept_databases(set(engine.databases)) or [""]
    engine.databases[kept := copied or f"chap_core_before_{journal_now(engine)['id'].lower()}"] = Database({})
    engine.log, engine.sick = "", "broken"
    with pytest.raises(NeedsPerson):
        run_recover(engine)
    assert kept in engine.databases
    engine.sick = ""
    run_recover(engine)
    assert kept not in engine.databases and picture(engine)[0] == OLD


@pytest.mark.parametrize("step", ["verify api", "verify"])
def test_a_container_that_somebody_else_recreated_does_not_stop_a_recovery(engine: FakeEngine, step: str) -> None:
    engine = cut_off(engine, step)
    (redis,) = (box for box in engine.boxes.values() if box.service == "redis")
    engine.discard(redis.id)
    engine._make("redis", "valkey:8")
    run_recover(engine)
    record = run_records.history(engine.folder)[-1]
    assert record["result"] == {"verify api": "undone", "verify": "done"}[step]
    (check,) = (check for check in record["checks"] if check["name"] == "other_containers")
    assert check["status"] == "warn" and "redis" in check["message"]


def test_a_container_that_had_ended_may_be_gone_afterwards(engine: FakeEngine) -> None:
    done = engine._make("route-init", "curl:8")
    engine._set(done.id, state="exited")

    def prune(call: int, name: str) -> None:
        if name == "backup":
            engine.boxes.pop(done.id)

    engine.strike = prune
    run_upgrade(engine)
    assert run_records.history(engine.folder)[-1]["result"] == "done"


def test_the_reason_of_a_failed_start_has_no_secrets_and_a_hint(engine: FakeEngine) -> None:
    engine.sick = "ends"
    engine.log = (
        "Traceback (most recent call last):\n"
        '  File "x.py", line 1, in f\n'
        "sqlalchemy.exc.IntegrityError: (psycopg2.errors.NotNullViolation) null value in column"
        ' "target_column" at postgresql://chap:geheim@db/chap_core\n'
        "[SQL: INSERT INTO backtestspecification]\n"
    )
    with pytest.raises(RolledBack) as failure:
        run_upgrade(engine)
    message = failure.value.message
    assert message.startswith("The upgrade failed: CHAP failed to start: sqlalchemy.exc.IntegrityError: (psycopg2")
    assert "INSERT" not in message and "geheim" not in message + str(failure.value.details)
    assert "exit status" not in message
    (run,) = run_records.history(engine.folder)
    assert failure.value.details["run"] == run["id"] and run["failure"] in message
    assert Path(failure.value.details["report"]).is_file()
    start, *after = failure.value.details["checks"]
    assert start["name"] == "start" and start["status"] == "fail" and "rows" in {check["name"] for check in after}
    engine.log = ""
    with pytest.raises(RolledBack, match=r"failed to start: exit status 3$"):
        run_upgrade(engine)


def test_a_cancelled_upgrade_names_its_run_and_report(engine: FakeEngine) -> None:
    def cancel(call: int, name: str) -> None:
        if name == when:
            engine.strike = lambda call, name: None
            raise KeyboardInterrupt

    for when in ("backup", "compose started"):
        engine.strike = cancel
        with pytest.raises(Cancelled) as failure:
            run_upgrade(engine)
        details = failure.value.details
        assert set(details) == {"run", "report", "checks"} and details["run"] in details["report"]
        assert Path(details["report"]).is_file()


MADE = {"public.alembic_version": 1, "public.backtestspecification": 3}


def test_rows_that_a_migration_made_are_nobodys_work(engine: FakeEngine) -> None:
    engine.makes, engine.sick, before = MADE, "loses rows", set(engine.databases)
    with pytest.raises(RolledBack):
        run_upgrade(engine)
    assert [name for name in engine.databases if name.endswith("_failed")] == []
    assert set(engine.databases) == before

    engine.sick = ""
    run_upgrade(engine)
    here, (stack,) = world(engine), detect(engine.containers())
    assert rollback.plan_rollback(here, stack, "upgrade").written_since == {}
    engine.databases["chap_core"].rows["public.backtestspecification"] += 2
    engine.databases["chap_core"].rows["public.alert"] = 1
    written = rollback.plan_rollback(here, stack, "upgrade").written_since
    assert written == {"public.backtestspecification": 2, "public.alert": 1}


WAITING = {"id": "j1", "status": "PENDING", "type": "run_prediction"}


@pytest.mark.parametrize("jobs", [[], [WAITING], [{**WAITING, "type": "run_baseline"}]])
def test_a_new_worker_gets_no_job_before_the_new_data_are_verified(
    engine: FakeEngine, jobs: list[dict[str, str]]
) -> None:
    engine.sick, engine.jobs, before = "loses rows", jobs, copy.deepcopy(picture(engine))
    running: set[str] = set()

    def watch(call: int, name: str) -> None:
        running.update(box.image for box in engine.boxes.values() if box.service == "worker" and box.state == "running")

    engine.strike = watch
    with pytest.raises(RolledBack):
        run_upgrade(engine)
    assert (f"{WORKER}:v2" in running) == (not jobs)
    assert picture(engine) == before
    assert "start worker" not in [step["step"] for step in run_records.history(engine.folder)[-1]["steps"]]


@pytest.mark.parametrize("queue", [0, 1, None])
def test_a_job_that_is_queued_while_the_api_stops_waits_for_the_verification_too(
    engine: FakeEngine, queue: int | None
) -> None:
    engine.sick = "loses rows"
    running: set[str] = set()

    def strike(call: int, name: str) -> None:
        running.update(box.image for box in engine.boxes.values() if box.service == "worker" and box.state == "running")
        if name == "stop" and engine.stops and engine.stops[-1][0] == "worker":
            engine.queue = queue

    engine.strike = strike
    with pytest.raises(RolledBack):
        run_upgrade(engine)
    assert (f"{WORKER}:v2" in running) == (queue == 0)


def test_a_job_that_is_queued_while_the_workers_stop_is_named(engine: FakeEngine) -> None:
    def queue(call: int, name: str) -> None:
        if any(box.service == "worker" and box.state == "exited" for box in engine.boxes.values()):
            engine.jobs = [WAITING]

    engine.strike = queue
    run_upgrade(engine)
    (check,) = (check for check in run_records.history(engine.folder)[-1]["checks"] if check["name"] == "queued_jobs")
    assert check["status"] == "warn" and "j1" in check["message"]


@pytest.mark.parametrize("busy", [False, True])
def test_only_a_worker_without_a_job_is_stopped_at_once(engine: FakeEngine, busy: bool) -> None:
    engine.busy = busy
    run_upgrade(engine)
    assert engine.stops == [("worker", not busy), ("chap", False)]


def test_an_old_mark_is_dropped_only_once_the_way_back_brings_it_again(engine: FakeEngine) -> None:
    rows = engine.databases["chap_core"].rows
    rows["public.alembic_version"], engine.makes = 1, MADE
    for sick in ("ends", "never ready", ""):
        engine.sick = sick
        if sick:
            with pytest.raises(RolledBack):
                run_upgrade(engine, repairs=("old_mark",))
            assert engine.databases["chap_core"].rows["public.alembic_version"] == 1
        else:
            run_upgrade(engine, repairs=("old_mark",))
    assert run_records.history(engine.folder)[-1]["repairs"] == ["old_mark"]
    checks = run_records.history(engine.folder)[-1]["checks"]
    assert [check["message"] for check in checks if check["name"] == "repaired"]


def test_where_the_old_image_was_pruned_the_way_back_says_how_to_get_it_again(engine: FakeEngine) -> None:
    engine.sick = "never ready"

    def prune(call: int, name: str) -> None:
        if name == "compose removed":
            engine.images = {tag: image for tag, image in engine.images.items() if image != "sha256:api1"}

    engine.strike = prune
    with pytest.raises(NeedsPerson) as failure:
        run_upgrade(engine)
    assert f"docker pull {API}:v1" in failure.value.hint and "docker chap recover" in failure.value.hint
    engine.strike = lambda call, name: None
    engine.images[f"{API}:v1"] = "sha256:api1"
    run_recover(engine)
    assert picture(engine)[0] == OLD


def test_a_run_that_cannot_clean_up_before_it_stopped_anything_names_the_way_out(engine: FakeEngine) -> None:
    def lose(call: int, name: str) -> None:
        if name == "backup" or name == "tags":
            raise EngineError("The engine does not answer.")

    engine.strike = lose
    with pytest.raises(EngineError) as failure:
        run_upgrade(engine)
    assert "still runs as before" in failure.value.state and "could not clean up" in failure.value.state
    assert "docker chap recover" in failure.value.hint
    engine.strike = lambda call, name: None
    run_recover(engine)
    assert run_records.history(engine.folder)[-1]["result"] == "nothing changed"


def test_other_settings_after_the_way_back_are_named(engine: FakeEngine) -> None:
    engine = cut_off(engine, "verify api")
    engine.port = "9000"
    run_recover(engine)
    record = run_records.history(engine.folder)[-1]
    (check,) = (check for check in record["checks"] if check["name"] == "settings")
    assert "chap: ports (8000->8000 before, 9000->8000 now)" in check["message"]
    assert f"docker compose -p p --project-directory {engine.folder} -f " in check["hint"]
    assert check["hint"].endswith(" up -d --no-deps chap worker")


def by_hand(engine: FakeEngine, hint: str) -> None:
    """Do to the databases what a failure tells a person to do."""
    for line in hint.splitlines():
        if " psql " in line:
            statements = shlex.split(line)[-1]
            for old, new in re.findall(r'ALTER DATABASE "(.*?)" RENAME TO "(.*?)"', statements):
                assert new not in engine.databases, f"{new} exists"
                engine.databases[new] = engine.databases.pop(old)


def stuck(engine: FakeEngine) -> Callable[[int, str], None]:
    """Return what lets the new containers fail at their start, and every way back stop before it moves data."""

    def strike(call: int, name: str) -> None:
        journal = engine.folder / ".docker-chap" / "journal.json"
        steps = [step["step"] for step in json.loads(journal.read_text())["steps"]] if journal.exists() else []
        if "start api" in steps and name in ("compose started", "stop"):
            raise EngineError("The engine is out of order.")

    return strike


def test_by_hand_a_rollback_gives_the_old_data_their_own_name_back(engine: FakeEngine) -> None:
    run_upgrade(engine)
    before = copy.deepcopy(engine.databases)
    engine.strike = stuck(engine)
    with pytest.raises(NeedsPerson) as failure:
        run_rollback(engine)
    assert "ALTER DATABASE" in failure.value.hint
    engine.strike = lambda call, name: None
    by_hand(engine, failure.value.hint)
    assert engine.databases == before
    run_recover(engine)
    assert engine.databases == before
    run_rollback(engine)
    assert picture(engine)[0] == OLD


def test_by_hand_an_upgrade_comes_back_as_by_itself(engine: FakeEngine) -> None:
    before = copy.deepcopy(engine.databases)
    engine.strike = stuck(engine)
    with pytest.raises(NeedsPerson) as failure:
        run_upgrade(engine)
    engine.strike = lambda call, name: None
    by_hand(engine, failure.value.hint)
    assert {name: engine.databases[name] for name in before} == before
    run_recover(engine)
    assert {name: engine.databases[name] for name in before} == before
