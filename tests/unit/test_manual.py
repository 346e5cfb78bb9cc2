"""The page for `man docker-chap`: it says all that the help says, and troff finds nothing wrong in it."""

from __future__ import annotations

import shutil
import subprocess

import click
import pytest

from build import manual
from compose_chap import __version__
from compose_chap.cli import app
from compose_chap.cli.command_table import COMMANDS, EXIT_STATUSES

GROFF = ("groff", "-ww", "-man", "-Tascii", "-P-cbou", "-rLL=1000n")
NAMES = app.chap.list_commands(click.Context(app.chap))

needs_groff = pytest.mark.skipif(not shutil.which("groff"), reason="groff, which reads the page, is not installed")


@pytest.fixture(scope="module")
def read() -> str:
    done = subprocess.run(GROFF, input=manual.page(), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return " ".join(done.stdout.split())


@needs_groff
@pytest.mark.parametrize("name", NAMES)
def test_everything_in_help_is_in_the_manual(name: str, read: str) -> None:
    context = click.Context(app.chap, info_name="docker chap")
    command = app.chap.get_command(context, name)
    assert command and command.help
    records = [
        parameter.get_help_record(context) for parameter in command.params if isinstance(parameter, click.Option)
    ]
    texts = [command.help.replace("`", ""), *(text for record in records if record for text in record)]
    for text in (*texts, *(f"$ docker chap {example}" for example in COMMANDS[name].examples)):
        assert " ".join(text.split()) in read


@needs_groff
def test_the_page_says_what_a_status_means_and_which_version_it_is_of(read: str) -> None:
    assert all(meaning.replace("`", "") in read for meaning in EXIT_STATUSES.values())
    assert f"docker chap {__version__}" in read


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc, a second reader, is not installed")
def test_another_reader_of_such_pages_finds_nothing_wrong() -> None:
    words = ["mandoc", "-Tlint", "-W", "warning"]
    output = subprocess.run(words, input=manual.page(), capture_output=True, text=True, check=False).stdout
    # A date would be that of the build, and two builds of one source are the same.
    assert [line for line in output.splitlines() if "missing date" not in line] == []


def test_nothing_in_a_text_is_taken_for_a_command_of_troff() -> None:
    assert manual._text(".prom isn't a \\macro: `it`") == r"\&.prom isn\(aqt a \emacro: \fBit\fP"
