"""Which stack is meant and where its files are, when several stacks, folders, engines and users are about."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from compose_chap.backups import catalogue
from compose_chap.cli.screen import metrics
from compose_chap.cli.screen.status import status_text
from compose_chap.engine.engine import Engine
from compose_chap.engine.link import Link
from compose_chap.errors import ComposeFileError, EngineError, Interrupted, StackError, StateError
from compose_chap.model import Origin
from compose_chap.operations import status
from compose_chap.project.pin import chap_services
from compose_chap.records.files.durable import private_folder
from compose_chap.records.run_records import begin_run, history, journal_file
from compose_chap.stack import location
from compose_chap.stack.location import Where
from compose_chap.stack.observe import find_directory, find_local_stack, find_stack, find_stacks
from tests.fakes import FakeEngine, world
from tests.unit.operations.test_prune import NOW, write

FILES = "services: {chap: {image: x/chap-core:v1}, db: {image: postgres}}\n"


def make_folder(folder: Path) -> Path:
    """Make a folder with a Compose file."""
    folder.mkdir(parents=True)
    (folder / "compose.yml").write_text(FILES)
    return folder


def engine_with(*folders: Path) -> FakeEngine:
    """Return an engine with a stack for each folder, called as that is."""
    engine, boxes = FakeEngine(Path("/nowhere")), {}
    for folder in folders:
        for box in FakeEngine(folder).boxes.values():
            boxes[folder.name + box.id] = replace(box, id=folder.name + box.id, project=folder.name)
    engine.boxes = boxes
    return engine


def at(
    folder: Path, *files: Path, name: str = "", directory: Path | None = None, exported: Mapping[str, str] = {}
) -> Where:
    return Where(files, name, directory, (), folder, exported)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return make_folder(tmp_path / "a"), make_folder(tmp_path / "b")


def test_the_project_directory_chooses_the_stack(folders: tuple[Path, Path]) -> None:
    a, b = folders
    engine = engine_with(a, b)
    for directory in (b, Path("../b")):
        project = find_local_stack(engine, at(a, directory=directory)).project
        assert (project.name, project.directory, project.files) == ("b", b, (b / "compose.yml",))
    make_folder(a.parent / "c")
    for where in (
        at(a, directory=a.parent / "c"),
        at(a, name="b", directory=a),
        at(b, directory=b, exported={"COMPOSE_FILE": str(a / "compose.yml")}),
    ):
        with pytest.raises(StackError, match="No CHAP stack was started in .* There is: .* in ") as refused:
            find_stack(engine, where)
        assert "Leave --project-directory out" in refused.value.hint and refused.value.state


def test_a_name_is_not_mixed_with_the_files_that_a_shell_exports(folders: tuple[Path, Path]) -> None:
    a, b = folders
    engine, exported = engine_with(a, b), {"COMPOSE_FILE": str(a / "compose.yml")}
    assert find_stack(engine, at(a, exported=exported)).project.files == (a / "compose.yml",)
    assert find_stack(engine, at(a, name="b", exported=exported)).project.files == (b / "compose.yml",)
    with pytest.raises(StackError, match="No CHAP stack was started from"):
        find_stack(engine, at(a, a / "compose.yml", exported={"COMPOSE_PROJECT_NAME": "b"}))
    shutil.rmtree(b)
    copy = make_folder(a.parent / "copy")
    project = find_stack(engine, at(a, name="b", directory=copy, exported=exported)).project
    assert (project.name, project.directory, project.files) == ("b", copy, (copy / "compose.yml",))


def test_a_copy_of_files_that_are_elsewhere_is_named(folders: tuple[Path, Path]) -> None:
    a, b = folders
    engine, file = engine_with(a, Path("/not/here/far")), b / "compose.yml"
    project = find_local_stack(engine, at(b, file, directory=b)).project
    assert (project.name, project.directory, project.files, project.absent) == ("far", b, (file,), ())
    # With -p and -f it is the operator's word, also where the first files are here.
    assert find_local_stack(engine, at(b, file, name="a", directory=b)).project.directory == b


def test_the_files_of_this_machine_are_not_those_of_a_remote_engine(folders: tuple[Path, Path]) -> None:
    a, b = folders
    engine = engine_with(a)
    engine.remote = True
    project = find_stack(engine, at(a)).project
    assert project.absent == project.files == (a / "compose.yml",) and not project.local
    assert [stack.project.absent for stack in find_stacks(engine)] == [project.files]
    for where in (at(a), at(a, exported={"COMPOSE_FILE": "compose.yml"}), at(a, name="a")):
        with pytest.raises(StackError, match="not on this machine, but on north: .*/a/compose.yml") as refused:
            find_local_stack(engine, where)
        assert "--project-directory COPY -f COPY/compose.yml" in refused.value.hint
    for where in (at(b, directory=a), at(b, a / "compose.yml"), at(b, a / "compose.yml", directory=a)):
        assert find_local_stack(engine, where).project.files == (a / "compose.yml",)
    assert find_local_stack(engine, at(a, b / "compose.yml", directory=b)).project.directory == b


def test_an_engine_is_elsewhere_by_its_way_and_its_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "north")
    bridge = Link("ssh://ops@south", "unix:///tmp/engine.sock", folder=Path("/tmp"))
    local = Link("unix:///var/run/docker.sock", "unix:///var/run/docker.sock")
    for way, name, expected in ((bridge, "south", True), (bridge, "north", False), (local, "desktop", False)):
        engine = Engine()
        vars(engine).update(_link=way, _info={"ID": "1", "Name": name})
        assert engine.remote is expected


def test_a_folder_that_is_a_link_is_the_folder(folders: tuple[Path, Path]) -> None:
    a, b = folders
    link = a.parent / "link"
    link.symlink_to(a)
    engine = engine_with(link, b)
    assert find_stack(engine, at(a)).project.name == "link"
    assert find_stack(engine, at(b, directory=a)).project.name == "link"
    begin_run(link, "upgrade", {}, world(engine).clock, stack=Origin("link", "engine-1", "north").to_json())
    # It goes on: the stack of this folder is there, so nothing is taken for it.
    assert find_stack(engine, at(a)).project.name == find_stack(engine_with(link), at(a)).project.name == "link"


def test_an_open_run_captures_nothing_that_is_meant_for_elsewhere(folders: tuple[Path, Path]) -> None:
    a, b = folders
    engine = engine_with(b)
    begin_run(a, "upgrade", {}, world(engine).clock, stack=Origin("a", "engine-1", "north").to_json())
    with pytest.raises(Interrupted, match="The upgrade of 'a' on north"):
        find_stack(engine, at(a))
    assert find_directory(engine, at(a)) == find_directory(engine, at(a / "deeper")) == a
    for where in (at(a, b / "compose.yml"), at(a, directory=b), at(a, name="b")):
        assert find_stack(engine, where).project.name == "b"
        assert find_directory(engine, where) == b
    exported = at(a, exported={"COMPOSE_FILE": str(b / "compose.yml")})
    assert find_directory(engine, exported) == b


def test_a_run_that_had_ended_but_for_its_journal_needs_no_engine(folders: tuple[Path, Path]) -> None:
    engine, folder = engine_with(), folders[0]
    journal = begin_run(folder, "pin", {}, world(engine).clock)
    left = journal_file(folder).read_bytes()
    journal.end("done")
    journal_file(folder).write_bytes(left)

    def gone(call: int, name: str) -> None:
        raise EngineError("The engine does not answer.")

    engine.strike = gone
    assert find_directory(engine, at(folder)) == folder and not journal_file(folder).exists()


def test_an_open_run_of_another_engine_is_no_matter_here(folders: tuple[Path, Path]) -> None:
    a, b = folders
    engine = engine_with(b)
    begin_run(a, "upgrade", {}, world(engine).clock, stack=Origin("a", "engine-2", "south").to_json())
    assert find_stack(engine, at(a)).project.name == "b"
    (a / "compose.yml").unlink()
    assert find_directory(engine, at(a)) == b


def test_a_stack_without_containers_gets_a_hint_to_start(folders: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = folders
    for where, options in ((at(a), ""), (at(b, a / "compose.yml"), f" -f {a}/compose.yml")):
        with pytest.raises(StackError, match=f"The CHAP stack of {a}/compose.yml has no containers") as refused:
            find_stack(engine_with(), where)
        assert refused.value.hint == f"Start it first: cd {a} && docker compose{options} up -d"
    # Another one may be looked at from here; to change that it has to be named.
    engine = engine_with(b)
    assert find_stack(engine, at(a)).project.name == "b"
    with pytest.raises(StackError, match=f"The CHAP stack of {a}/compose.yml has no containers") as refused:
        find_local_stack(engine, at(a))
    assert "docker chap -p b" in refused.value.hint
    for where in (at(a, name="b"), at(a, directory=b), at(tmp_path), at(a, exported={"COMPOSE_PROJECT_NAME": "b"})):
        assert find_local_stack(engine, where).project.name == "b"
    (tmp_path / "a" / "compose.yml").write_text("services: {web: {image: nginx}}")
    for where in (at(a), at(tmp_path), at(b, name="other")):
        with pytest.raises(StackError, match="No CHAP stack found"):
            find_stack(engine_with(), where)


@pytest.fixture
def in_parts(folders: tuple[Path, Path]) -> FakeEngine:
    """Give an engine on which the stack of folder a has lost its API's container, beside the whole b and c."""
    a, b = folders
    (a / "compose.yml").write_text(FILES.replace("chap:", "our-api:"))
    engine = engine_with(a, b, make_folder(a.parent / "c"))
    engine.boxes = {id: box for id, box in engine.boxes.items() if (box.project, box.service) != ("a", "chap")}
    return engine


def test_a_stack_without_an_api_container_is_still_selected(in_parts: FakeEngine, folders: tuple[Path, Path]) -> None:
    a, b = folders
    wheres = at(a), at(a / "deeper"), at(b, name="a"), at(b, a / "compose.yml"), at(b, directory=a)
    for where in wheres:
        for find in (find_stack, find_local_stack, find_directory):
            with pytest.raises(
                StackError, match="container of 'a' is gone. Still running: db, redis, worker"
            ) as refused:
                find(in_parts, where)
            assert refused.value.hint == (
                f"Create it again: docker compose -p a --project-directory {a} -f {a}/compose.yml up -d --no-deps"
                " our-api"
            )
    assert find_stack(in_parts, at(b)).project.name == find_stack(in_parts, at(a, name="b")).project.name == "b"
    # A run that was cut off left it so: then it is not started by hand.
    begin_run(a, "upgrade", {}, world(in_parts).clock, stack=Origin("a", "engine-1", "north").to_json())
    for where in wheres:
        with pytest.raises(Interrupted, match="The upgrade of 'a'"):
            find_stack(in_parts, where)
        assert find_directory(in_parts, where) == a


def test_no_other_stack_is_selected_in_the_folder_of_a_stopped_stack(
    in_parts: FakeEngine, folders: tuple[Path, Path]
) -> None:
    a, b = folders
    in_parts.boxes = {id: box for id, box in in_parts.boxes.items() if (box.project, box.service) != ("a", "worker")}
    with pytest.raises(StackError, match=f"The CHAP stack of {a}/compose.yml has no containers"):
        find_stack(in_parts, at(a))
    with pytest.raises(StackError, match="several CHAP stacks on this engine: b, c"):
        find_stack(in_parts, at(a.parent))
    assert find_stack(in_parts, at(a, exported={"COMPOSE_PROJECT_NAME": "b"})).project.name == "b"


# Another user than root


@pytest.fixture
def of_root() -> Iterator[Path]:
    """Give a folder with a stack that root has used the tool on, which everybody may look into."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user for a while")
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        os.chmod(made, 0o755)
        folder = make_folder(Path(made, "p"))
        for kept in (folder / "backups", folder / ".docker-chap"):
            private_folder(kept)
        write(folder / "backups", NOW, pinned=False)
        yield folder


@contextmanager
def nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_unreadable_records_are_reported(of_root: Path) -> None:
    engine, other = engine_with(of_root), engine_with(make_folder(of_root.parent / "q"))
    with nobody():
        for where in (at(of_root), at(of_root, of_root / "compose.yml"), at(Path("/"))):
            assert find_stack(engine, where).project.local
            with pytest.raises(StateError, match=r"/p/\.docker-chap cannot be read by this user") as refused:
                find_local_stack(engine, where)
            assert "sudo" in refused.value.hint and not isinstance(refused.value, Interrupted)
        for read in (lambda: history(of_root), lambda: catalogue.list_backups([of_root / "backups"])):
            with pytest.raises(StateError, match="cannot be read by this user"):
                read()
        # Without the stack of this folder nobody knows whether it was cut off: another one is not changed for it.
        assert find_stack(other, at(of_root)).project.name == "q"
        for find in (find_local_stack, find_directory):
            with pytest.raises(StateError, match=r"/p/\.docker-chap cannot be read by this user"):
                find(other, at(of_root))
    assert find_local_stack(engine, at(of_root)).project.name == "p"


def test_a_status_names_what_may_not_be_read_and_makes_up_no_number(of_root: Path) -> None:
    engine = engine_with(of_root)
    here = world(engine)
    seen = status.look(here, find_stack(engine, at(of_root)))
    assert seen.last_backup and seen.backups_known and seen.open_run == {}
    with nobody():
        seen = status.look(here, find_stack(engine, at(of_root)))
    assert seen.last_backup is None and not seen.backups_known and seen.open_run is None
    assert [problem for problem in seen.problems if f"{of_root}/.docker-chap cannot be read" in problem]
    assert [problem for problem in seen.problems if f"{of_root}/backups cannot be read" in problem]
    numbers = metrics.text(seen, None, NOW)
    assert "last_backup" not in numbers and "run_open" not in numbers and "status_success{" in numbers
    assert "Last backup  not known" in status_text(seen, NOW)


def test_a_folder_that_may_not_be_entered_is_no_bug(of_root: Path) -> None:
    engine = engine_with(of_root)
    of_root.chmod(0o700)
    with nobody():
        seen = status.look(world(engine), find_stack(engine, at(Path("/"))))
        assert f"{of_root}/compose.yml cannot be read by this user." in seen.problems
        with pytest.raises(StateError, match="compose.yml cannot be read by this user"):
            find_local_stack(engine, at(Path("/")))
        with pytest.raises(StateError, match="compose.yml cannot be read by this user"):
            find_stack(engine, at(Path("/"), of_root / "compose.yml"))


def test_a_folder_called_as_an_env_file_is_passed_over_as_compose_does(folders: tuple[Path, Path]) -> None:
    (folders[0] / ".env").mkdir()
    assert location.layout_of(at(folders[0])).env_files == ()


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "missing", "null"])
def test_an_env_file_that_is_no_file_raises_an_error_at_once(kind: str, folders: tuple[Path, Path]) -> None:
    a, _ = folders
    named = {"device": Path("/dev/zero"), "folder": a, "null": Path("/dev/null")}.get(kind, a / "x.env")
    if kind == "fifo":
        os.mkfifo(named)
    where = replace(at(a), env_files=(named,))
    if kind == "null":
        assert location.read_project(where).services
        return
    with pytest.raises(ComposeFileError, match="a FIFO|a device|a folder|does not exist") as refused:
        location.read_project(where)
    assert str(named) in refused.value.message


def test_files_at_an_address_are_named_as_such(folders: tuple[Path, Path]) -> None:
    a, b = folders
    for address in ("oci://registry.example/stack:1", "https://example.org/compose.yml"):
        with pytest.raises(ComposeFileError, match="names a file on another server"):
            find_stack(engine_with(a, b), at(a, Path(address)))
        with pytest.raises(ComposeFileError, match="names a file on another server"):
            location.read_project(at(a, Path(address)))


def test_a_variable_that_must_be_set_and_is_not_is_named(folders: tuple[Path, Path]) -> None:
    a, _ = folders
    (a / "compose.yml").write_text("services: {chap: {image: 'x/chap-core:${TAG:?set TAG}'}}")
    with pytest.raises(ComposeFileError, match="required variable TAG is missing a value: set TAG"):
        chap_services(location.read_project(at(a)))
