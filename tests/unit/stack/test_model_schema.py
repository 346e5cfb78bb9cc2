"""What an image's models want: asked once, kept where only its user can write, and believed only when it is whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compose_chap.detection import detect
from compose_chap.engine.world import World
from compose_chap.errors import EngineError
from compose_chap.postgres.database_schema import Column
from compose_chap.processes.process import Finished
from compose_chap.stack import model_schema
from tests.fakes import FakeEngine, world

IMAGE = "sha256:api2"


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    """Return an engine with a stack."""
    return FakeEngine(tmp_path)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home folder."""
    return tmp_path / "home"


def command(engine: FakeEngine, home: Path) -> World:
    """Return the world of one more command of the same user: it remembers nothing of the one before."""
    engine._answers.clear()
    return replace(world(engine), environment={"HOME": str(home)})


def kept(home: Path) -> Path:
    """Return the only file in the cache."""
    (path,) = (home / ".cache/docker-chap").glob("models-*.json")
    return path


def test_an_image_is_asked_once_by_a_container_with_nothing_of_productions(engine: FakeEngine, home: Path) -> None:
    first, again = command(engine, home), command(engine, home)
    wanted = model_schema.of_image(first, IMAGE)
    assert wanted.tables["observation"][1] == Column("b", "INTEGER", nullable=True, default=False)
    assert model_schema.of_image(first, IMAGE) == model_schema.of_image(again, IMAGE) == wanted
    assert engine.asked == [IMAGE]
    assert engine.recipes == [{"environment": {}, "network_disabled": True, "volumes": None}]
    assert kept(home).stat().st_mode & 0o777 == 0o600 and kept(home).parent.stat().st_mode & 0o777 == 0o700

    assert model_schema.of_image(again, "sha256:api1").tables["observation"][1:] == ()
    assert engine.asked == [IMAGE, "sha256:api1"]


def test_how_long_an_import_takes_here_is_known_once_an_image_was_asked(engine: FakeEngine, home: Path) -> None:
    here = command(engine, home)
    (stack,) = detect(engine.containers())
    assert model_schema.import_seconds(here, stack) == 0
    model_schema.of_stack(here, stack)
    assert model_schema.import_seconds(command(engine, home), stack) == 1.85
    record = json.loads(kept(home).read_text())
    kept(home).write_text(json.dumps({name: value for name, value in record.items() if name != "seconds"}))
    assert model_schema.import_seconds(command(engine, home), stack) == 0


def test_where_nothing_can_be_kept_it_is_remembered_while_the_command_runs(engine: FakeEngine) -> None:
    first = world(engine)
    assert model_schema.of_image(first, IMAGE) is model_schema.of_image(first, IMAGE)
    assert engine.asked == [IMAGE]


def _rewritten(change: Callable[[Any], Any]) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(change(json.loads(path.read_text()))))


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut off": lambda path: path.write_text(path.read_text()[:-20]),
    "empty": lambda path: path.write_text(""),
    "no object": lambda path: path.write_text("[]"),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe"),
    "nested": lambda path: path.write_text("[" * 100_000),
    "no tables": _rewritten(lambda answer: answer | {"tables": {}}),
    "a field is missing": _rewritten(lambda answer: {key: answer[key] for key in answer if key != "chain"}),
    "a type is wrong": _rewritten(lambda answer: answer | {"heads": [1]}),
    "a truth value is wrong": _rewritten(
        lambda answer: answer | {"tables": {"x": [{"name": "a", "type": "INTEGER", "nullable": 0, "default": False}]}}
    ),
    "of another image": _rewritten(lambda answer: answer | {"image": "sha256:api1"}),
    "others may write it": lambda path: path.chmod(0o666),
    "others may write the folder": lambda path: path.parent.chmod(0o777),
    "a link": _link,
    "a folder": _folder,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_cannot_be_believed_is_asked_again(
    engine: FakeEngine, home: Path, damage: Callable[[Path], object]
) -> None:
    wanted = model_schema.of_image(command(engine, home), IMAGE)
    damage(kept(home))
    assert model_schema.of_image(command(engine, home), IMAGE) == wanted
    assert engine.asked == [IMAGE, IMAGE]


def test_what_belongs_to_another_user_is_asked_again(
    engine: FakeEngine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_schema.of_image(command(engine, home), IMAGE)
    monkeypatch.setattr("os.geteuid", lambda: kept(home).stat().st_uid + 1)
    # What root wrote is root's, and root is believed.
    again = [IMAGE] if kept(home).stat().st_uid == 0 else [IMAGE, IMAGE]
    model_schema.of_image(command(engine, home), IMAGE)
    assert engine.asked == again


def test_another_question_is_not_answered_by_an_old_answer(
    engine: FakeEngine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_schema.of_image(command(engine, home), IMAGE)
    monkeypatch.setattr("compose_chap.stack.chap_scripts.MODELS", "print('another')")
    model_schema.of_image(command(engine, home), IMAGE)
    assert engine.asked == [IMAGE, IMAGE]


def test_where_the_image_is_gone_its_running_container_is_asked(
    engine: FakeEngine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(image: str, **kwargs: Any) -> Any:
        raise EngineError("No such image.")

    monkeypatch.setattr(engine, "_create", gone)
    with pytest.raises(EngineError, match="No such image"):
        model_schema.of_image(command(engine, home), IMAGE)
    running = next(box.id for box in engine.boxes.values() if box.service == "chap")
    assert model_schema.of_image(command(engine, home), "sha256:api1", running).version == "1"


@pytest.mark.parametrize(
    ("finished", "words"),
    [
        (Finished(1, "", "ModuleNotFoundError: No module named 'chap_core.database'"), "No module named"),
        (Finished(0, "", ""), "it gave no output"),
        (Finished(0, "Welcome!\n", ""), "not JSON"),
        (Finished(0, '{"version": "1"}\n', ""), "tables is missing"),
    ],
)
def test_an_image_that_cannot_say_it_is_an_error_in_words_and_is_not_kept(
    engine: FakeEngine, home: Path, monkeypatch: pytest.MonkeyPatch, finished: Finished, words: str
) -> None:
    monkeypatch.setattr(engine, "run", lambda *args, **named: finished)
    with pytest.raises(EngineError, match=words):
        model_schema.of_image(command(engine, home), IMAGE)
    assert not list(home.rglob("models-*"))
