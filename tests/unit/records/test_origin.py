"""Servers that share one folder of files: what one of them did is not taken for what another did."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from compose_chap.backups import catalogue
from compose_chap.errors import Interrupted, StateError
from compose_chap.model import Origin, Project
from compose_chap.operations import prune, recover, rollback
from compose_chap.records import engine_lock, run_records
from compose_chap.records.retention import Retention
from tests.fakes import FakeEngine, run_record, world
from tests.unit.operations.test_prune import NOW, sized, stack_in, write

NORTH, SOUTH = Origin("p", "engine-1", "north"), Origin("p", "engine-2", "south")
OTHER = Origin("q", "engine-1", "north")


def record(directory: Path, identity: str, origin: Origin | None, **facts: str) -> None:
    """Write the record of an upgrade that ended well; one of an older version of this tool does not say whose."""
    run = run_record(id=identity, facts=facts, **({"stack": origin.to_json()} if origin else {}))
    for path in (run_records.undo_file(directory, identity), run_records.report_file(directory, identity)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(run))


def ids(directory: Path, origin: Origin) -> list[str]:
    return [run["id"] for run in run_records.effective_runs(directory, origin)]


def test_only_runs_of_this_project_on_this_engine_stand_and_older_records_are_everybody_s(tmp_path: Path) -> None:
    for number, origin in enumerate((None, NORTH, SOUTH, OTHER)):
        record(tmp_path, str(number), origin)
    assert ids(tmp_path, NORTH) == ["0", "1"]
    assert ids(tmp_path, SOUTH) == ["0", "2"]
    assert ids(tmp_path, OTHER) == ["0", "3"]
    assert ids(tmp_path, Origin()) == ["0", "1", "2", "3"]
    assert ids(tmp_path, Origin("p", "engine-1", "renamed")) == ["0", "1"]
    assert rollback.last_undoable(tmp_path, "upgrade", NORTH)["id"] == "1"
    (tmp_path / ".docker-chap" / "runs" / "0.json").unlink()
    with pytest.raises(StateError, match="no upgrade to undo"):
        rollback.last_undoable(tmp_path, "upgrade", Origin("p", "engine-3", "east"))


def test_the_backups_of_another_server_are_neither_latest_nor_pruned(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    old, own, other_stack = (write(folder, NOW.replace(day=day), pinned=False) for day in (1, 2, 3))
    for path, origin in ((own, NORTH), (other_stack, SOUTH)):
        manifest = json.loads((path / "manifest.json").read_bytes())
        manifest["engine"] = {"id": origin.engine, "name": origin.server}
        (path / "manifest.json").write_text(json.dumps(manifest))

    assert catalogue.find("latest", [folder], NORTH).folder == own
    assert catalogue.find(other_stack.name, [folder], NORTH).folder == other_stack, (
        "one that is named is found all the same"
    )
    assert [backup.folder for backup in catalogue.list_backups([folder], SOUTH)] == [old, other_stack]
    none = Retention(0, 0, 0, 0, floor=1)
    here = stack_in(tmp_path, "chap_core")
    chosen = prune.plan(here, prune.Inventory.of(here, NORTH, [folder], {}), none, NOW)
    assert [backup.folder for backup in chosen.backups] == [old]


def test_a_database_that_this_server_needs_is_known_by_its_own_runs(tmp_path: Path) -> None:
    needed, later = "chap_core_before_20260101t000000z", "chap_core_before_20260102t000000z"
    record(tmp_path, "1", NORTH, kept=needed)
    record(tmp_path, "2", SOUTH, kept=later)
    here, databases = stack_in(tmp_path, "chap_core"), sized("chap_core", needed, later)
    inventory = prune.Inventory.of(here, NORTH, [tmp_path / "backups"], databases)
    chosen = prune.plan(here, inventory, Retention(), NOW, with_set_aside=True)
    assert [name for name, _ in chosen.databases] == [later]


def test_a_run_on_another_engine_is_recovered_on_that_engine(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path)
    here = world(engine)
    journal = run_records.begin_run(tmp_path, "upgrade", {}, here.clock, stack=SOUTH.to_json())
    before = dict(engine.boxes)
    with pytest.raises(Interrupted, match="belongs to 'p' on south, but this is another engine") as refused:
        recover.recover(here, journal)
    assert "docker --context NAME chap recover" in refused.value.hint
    assert engine.boxes == before and run_records.open_origin(tmp_path) == SOUTH
    with pytest.raises(Interrupted, match="The upgrade of 'p' on south that"):
        run_records.refuse_open_run(tmp_path)


def test_without_an_image_for_the_lock_a_message_says_so(tmp_path: Path) -> None:
    engine, events = FakeEngine(tmp_path), []
    here = replace(world(engine), notify=lambda *args: events.append(args))
    with engine_lock.locked_on_engine(here, "p", ["gone"], "upgrade"):
        assert "no image of the stack can hold one" in events[0][1]
    with engine_lock.locked_on_engine(here, "p", ["gone", "sha256:api1"], "upgrade"):
        assert len(events) == 1


def test_what_is_beside_the_main_file_is_here_when_that_is() -> None:
    main, more = Path("/srv/compose.yml"), Path("/srv/more.yml")
    assert Project("p", main.parent, ()).local and Project("p", main.parent, (main, more)).local
    assert Project("p", main.parent, (main, more), absent=(more,)).local
    assert not Project("p", main.parent, (main, more), absent=(main, more)).local
