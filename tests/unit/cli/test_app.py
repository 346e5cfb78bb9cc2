"""The words as an operator meets them: help, examples, mistakes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click
import pytest

from compose_chap.cli import app
from compose_chap.cli.command_table import COMMANDS

NAMES = app.chap.list_commands(click.Context(app.chap))


def command(name: str) -> click.Command:
    result = app.chap.get_command(click.Context(app.chap), name)
    assert result
    return result


@pytest.mark.parametrize("name", NAMES)
def test_help_says_what_and_shows_how(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([name, "--help"]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"Usage: docker chap {name}")
    assert (command(name).help or "").split("\n")[0] in " ".join(output.split())
    [_, examples] = output.split("Examples:\n")
    for example in examples.splitlines():
        words = shlex.split(example)
        assert words[:3] == ["docker", "chap", name]
        command(name).make_context(name, words[3:])


@pytest.mark.parametrize("name", NAMES)
def test_the_list_of_commands_says_what_the_command_says(name: str) -> None:
    assert COMMANDS[name].summary == command(name).get_short_help_str(100)


@pytest.mark.parametrize(
    ("word", "meant"), [("upgarde", "upgrade"), ("statsu", "status"), ("restor", "restore"), ("qwerty", "")]
)
def test_a_mistyped_command_gets_a_suggestion(word: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([word]) == 2
    errors = capsys.readouterr().err
    assert f"Did you mean '{meant}'?" in errors if meant else "Did you mean" not in errors


def test_version_is_an_option_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--version"]) == 0 and app.main(["version"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_help_lists_the_commands_before_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert text.index("Commands:") < text.index("Options:") < text.index("Exit status:")


@pytest.mark.parametrize("name", NAMES)
def test_every_option_says_what_it_is_for(name: str) -> None:
    options = [parameter for parameter in command(name).params if isinstance(parameter, click.Option)]
    assert options and all(option.help and option.help.endswith((".", ")")) for option in options)


@pytest.mark.parametrize("name", NAMES)
def test_the_usage_shows_what_may_be_left_away(name: str) -> None:
    context = click.Context(command(name))
    arguments = [parameter for parameter in command(name).params if isinstance(parameter, click.Argument)]
    assert all(argument.make_metavar(context).startswith("[") != argument.required for argument in arguments)


@pytest.mark.parametrize("words", [["nosuch"], ["upgrade"], ["status", "--nosuch"], ["upgrade", "v1", "v2"]])
def test_a_usage_error_points_to_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "--help" in captured.err and "Error:" in captured.err
    for spelled in (["--json", *words], [*words, "--json"]):
        assert app.main(spelled) == 2
        captured = capsys.readouterr()
        document = json.loads(captured.out)
        assert (document["ok"], document["exit_status"], document["error"]["code"]) == (False, 2, "usage")
        assert document["error"]["message"] and "--help" in document["error"]["hint"] and "Error:" in captured.err


def test_no_words_are_a_question_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([]) == 0
    output = capsys.readouterr().out
    assert all(f"  {name} " in output for name in NAMES)


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "{}"),
        ("restore", "{}"),
        ("backups", "-o", "{}"),
        ("backup", "--dump-only", "{}"),
        ("rehearse", "v2.1.0", "--from", "{}"),
        ("status", "--metrics-file", "{}"),
        ("pin", "v2.1.0", "-f", "{}"),
        ("recover", "--project-directory", "{}"),
        ("pin", "v2.1.0", "--env-file", "{}"),
    ],
)
@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000, "loop/x", "\0"])
def test_a_name_that_no_file_can_have_is_a_mistake_of_the_words(
    words: tuple[str, ...],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    assert app.main([word.format(name) for word in words]) == 2
    errors = capsys.readouterr().err
    assert "Invalid value for" in errors and len(errors) < 1000, errors


@pytest.mark.parametrize("columns", [34, 40, 80, 200])
@pytest.mark.parametrize("words", [["--help"], ["upgrade", "--help"], ["prune", "--help"]])
def test_a_help_fits_the_terminal(
    words: list[str], columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert app.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    # Only examples to copy and single words are never broken.
    assert max(len(line) for line in lines if "docker chap" not in line and len(line.split()) > 1) <= min(columns, 100)


def test_an_interruption_writes_no_line_that_is_not_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command("version"), "callback", interrupt)
    assert app.main(["version", "--progress", "json"]) == 130
    assert [json.loads(line)["exit_status"] for line in capsys.readouterr().err.splitlines()] == [130]
    assert app.main(["version"]) == 130
    assert "Cancelled" in capsys.readouterr().err
