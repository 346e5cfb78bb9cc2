"""Where the password for DHIS2 comes from: the environment, a file, a question; never the command line."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import click
import pytest

from compose_chap.cli.call import Call
from compose_chap.cli.command_table import COMMANDS, WITH_FOLDER
from compose_chap.cli.dhis2_login import dhis2_credentials
from compose_chap.errors import UsageError
from compose_chap.stack.chap import basic_credentials

CALL = Call(("docker",))


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing of DHIS2."""
    for name in ("USERNAME", "PASSWORD", "TOKEN", "PASSWORD_FILE", "TOKEN_FILE"):
        monkeypatch.delenv(f"DHIS2_{name}", raising=False)


def test_a_password_or_a_token_may_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text(" dis:trict\r\n")
    assert dhis2_credentials(CALL, "") == {}
    monkeypatch.setenv("DHIS2_PASSWORD_FILE", str(file))
    assert dhis2_credentials(CALL, "") == {}
    assert dhis2_credentials(CALL, "admin") == basic_credentials("admin", " dis:trict")
    monkeypatch.setenv("DHIS2_PASSWORD", "other")
    assert dhis2_credentials(CALL, "admin") == basic_credentials("admin", "other")
    file.write_text("d2pat_1\n")
    monkeypatch.setenv("DHIS2_TOKEN_FILE", str(file))
    assert dhis2_credentials(CALL, "admin") == {"Authorization": "ApiToken d2pat_1"}


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    if content:
        file.write_bytes(content)
    monkeypatch.setenv("DHIS2_PASSWORD_FILE", str(file))
    with pytest.raises(UsageError, match=f"Cannot read {file}, which DHIS2_PASSWORD_FILE names"):
        dhis2_credentials(CALL, "admin")


def test_a_command_to_copy_is_whole_for_the_stack_that_was_named() -> None:
    call = Call(("docker", "--context", "north"), files=(Path("my file.yml"),), project_name="chap")
    complete = call.full_command("Finish or undo it: docker chap recover")
    assert complete == "Finish or undo it: docker --context north chap -f 'my file.yml' -p chap recover"
    assert CALL.full_command("See: docker chap status") == "See: docker chap status"
    assert call.full_command("A docker chap 0.1.0 made it.") == "A docker chap 0.1.0 made it."


def test_a_command_to_copy_looks_in_the_folder_that_was_named() -> None:
    call = Call(("docker",), "upgrade", output=Path("/mnt/my disk"))
    for plain, complete in (
        ("restore X --with-version", "restore -o '/mnt/my disk' X --with-version"),
        ("backups", "backups -o '/mnt/my disk'"),
        ("backup -o FOLDER", "backup -o FOLDER"),
        ("rollback", "rollback"),
        ("restore --undo", "restore --undo"),
        ("copies", "copies"),
    ):
        assert call.full_command(f"Next: docker chap {plain}") == f"Next: docker chap {complete}"
    assert replace(call, command="report").full_command("docker chap backups") == "docker chap backups"
    north = replace(call, docker=("docker", "--context", "north"))
    assert north.full_command("docker chap verify X") == "docker --context north chap verify -o '/mnt/my disk' X"


def test_the_commands_with_a_folder_are_those_that_have_the_option() -> None:
    for name, entry in COMMANDS.items():
        module = importlib.import_module(f"compose_chap.cli.commands.{entry.module}")
        options = [
            p.opts for c in vars(module).values() if isinstance(c, click.Command) and c.name == name for p in c.params
        ]
        # That of a report is another; a schedule and a recovery write backups there, and look for none.
        other = name in ("report", "schedule", "recover")
        assert (["-o", "--output"] in options and not other) == (name in WITH_FOLDER), name
