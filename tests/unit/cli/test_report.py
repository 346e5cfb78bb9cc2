"""The command `report`: where it writes, what it refuses, and what it costs the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compose_chap.cli import app
from compose_chap.errors import EngineError, SeveralStacks
from compose_chap.records import audit
from compose_chap.records.run_records import FOLDER
from compose_chap.stack import observe
from tests.fakes import FakeEngine
from tests.unit.report import years

Run = Callable[..., Any]


@pytest.fixture
def off(engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine be off, beside a stack with records."""
    years.write(tmp_path, 3)
    monkeypatch.setenv("PATH", "/nowhere")

    def off(*_: Any) -> Any:
        raise EngineError("The engine does not answer.")

    monkeypatch.setattr(observe, "find_stack", off)


@pytest.fixture
def run(capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Return what runs the command and returns its exit status and its output."""

    def run(*words: str) -> tuple[int, str, str]:
        capsysbinary.readouterr()
        status = app.main(["report", *words])
        output = capsysbinary.readouterr()
        return status, output.out.decode(), output.err.decode()

    return run


def test_it_goes_to_this_folder_and_replaces_only_its_own(off: None, run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        status, output, _errors = run()
        file = tmp_path / "report.html"
        assert status == 0 and str(file) in output and "problems are open" in output
        assert file.read_text().startswith("<!doctype html>") and file.stat().st_mode & 0o777 == 0o600
        file.write_text(file.read_text().replace("CHAP report", "an older report"))
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".docker-chap") and path.name != FOLDER]


@pytest.mark.parametrize(
    "content", ["a letter", "<!doctype html><title>Other</title>", " " * 9000 + "docker chap report"]
)
def test_another_file_stays(off: None, run: Run, tmp_path: Path, content: str) -> None:
    file = tmp_path / "mine.html"
    file.write_text(content)
    status, _, errors = run("-o", str(file))
    assert status == 1 and "is not a report of this tool" in errors and "-o FILE" in errors
    assert file.read_text() == content
    file.write_text("")  # as `touch` or mktemp leaves it
    assert run("-o", str(file))[0] == 0


def test_what_is_no_file_is_refused(off: None, run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, why in (
        ("pipe", "is a FIFO"),
        (".", "is a folder"),
        ("none/report.html", "There is no folder"),
        ("", "empty"),
    ):
        status, output, errors = run("-o", name)
        assert status in (1, 2) and why in errors and not output, name


def test_standard_output_gets_the_page_alone(off: None, run: Run, tmp_path: Path) -> None:
    status, output, _ = run("-o", "-")
    assert status == 0 and output.startswith("<!doctype html>") and output.endswith("</html>\n")
    assert not (tmp_path / "report.html").exists()
    status, _, errors = run("-o", "-", "--json")
    assert status == 2 and "both need standard output" in errors


def test_json_has_the_facts_and_writes_a_page_only_where_it_is_named(off: None, run: Run, tmp_path: Path) -> None:
    status, output, _ = run("--json")
    known = json.loads(output)
    assert status == 0 and known["file"] is None and not (tmp_path / "report.html").exists()
    assert known["project"] == "chap" and not known["live"] and len(known["backups"]) == 3
    assert [window["days"] for window in known["reached"]] == [30, 90, 365]
    status, output, _ = run("--json", "-o", "page.html")
    assert json.loads(output)["file"] == str(tmp_path / "page.html") and (tmp_path / "page.html").exists()


def test_records_that_cannot_be_read_are_a_problem_in_it(off: None, run: Run, tmp_path: Path) -> None:
    records = tmp_path / FOLDER
    (records / "schedule.json").write_text("[]")
    (records / "journal.json").write_text("{}")
    (records / audit.FILE).chmod(0o666)
    status, output, _ = run("--json")
    problems = " ".join(json.loads(output)["problems"])
    assert status == 0 and all(
        name in problems for name in ("schedule.json", "journal.json", "may be written by others")
    )
    assert len(json.loads(output)["backups"]) == 3


def test_of_several_stacks_nobody_knows_which(off: None, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def several(*_: Any) -> Any:
        raise SeveralStacks("There are several.")

    monkeypatch.setattr(observe, "find_stack", several)
    assert run()[0] == 1


def test_without_engine_and_records_it_says_what_is_wrong(
    engine: FakeEngine, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off(*_: Any) -> Any:
        raise EngineError("The engine does not answer.")

    monkeypatch.setattr(observe, "find_stack", off)
    status, _, errors = run()
    assert status == 1 and "The engine does not answer." in errors and not (tmp_path / "report.html").exists()


def test_no_other_command_loads_what_draws() -> None:
    code = "import importlib, sys; from compose_chap.cli.command_table import COMMANDS\n"
    code += "[importlib.import_module(f'compose_chap.cli.commands.{entry.module}') for entry in COMMANDS.values()]\n"
    code += "print([name for name in sys.modules if name.startswith(('leather', 'compose_chap.report'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
