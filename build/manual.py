"""Write the page for `man docker-chap` from the commands' own help, so that the two cannot differ.

Packages that do this write one page per command, and know neither examples nor exit statuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import click

from compose_chap import __version__
from compose_chap.cli import app
from compose_chap.cli.command_table import COMMANDS, EXIT_STATUSES

_ENVIRONMENT = {
    "DOCKER_HOST, DOCKER_CONTEXT, DOCKER_CONFIG": "As for every command of docker.",
    "COMPOSE_FILE, COMPOSE_PROJECT_NAME": "As for docker compose.",
    "DOCKER_CHAP_BACKUPS": "The folder of the backups, instead of backups/ beside the main Compose file.",
    "DHIS2_USERNAME, DHIS2_PASSWORD, DHIS2_TOKEN": "Who checks through DHIS2.",
    "DHIS2_PASSWORD_FILE, DHIS2_TOKEN_FILE": "The file that has the password or the token.",
    "NO_COLOR": "When it is set, nothing is coloured.",
    "DOCKER_CHAP_TIMELINE": "A file that gets a line for each step and question, with its begin and end.",
    "CHAP_PYTHON": "The Python to run with, instead of the first that is 3.10 or newer.",
}
_FILES = {
    "backups/": "The backups, beside the main Compose file.",
    ".docker-chap/": "Records of all that was done, and logs of failed runs, beside the main Compose file.",
    "~/.cache/docker-chap/": "The unpacked program, and which versions the registry has. It may be removed.",
}


def page() -> str:
    """Return the page, in the language of troff's `man` macros."""
    context = click.Context(app.chap, info_name="docker chap")
    commands = [(name, app.chap.get_command(context, name)) for name in app.chap.list_commands(context)]
    return "\n".join(
        [
            f'.TH DOCKER-CHAP 1 "" "docker chap {__version__}" "User Commands"',
            *(".SH NAME", r"docker\-chap \- back up, upgrade and restore a running CHAP stack"),
            *(".SH SYNOPSIS", r".B docker chap", r"[\fIOPTIONS\fP] \fICOMMAND\fP [\fIOPTIONS\fP] [\fIARGUMENTS\fP]"),
            *(".SH DESCRIPTION", _text(app.chap.help or "")),
            "The options of every command may stand before its name or behind it.",
            *(".SH OPTIONS OF EVERY COMMAND", *_options(app.chap, context)),
            ".SH COMMANDS",
            *(line for name, command in commands if command for line in _command(name, command, context)),
            *(".SH EXIT STATUS", *_list({str(status): meaning for status, meaning in EXIT_STATUSES.items()})),
            *(".SH ENVIRONMENT", *_list(_ENVIRONMENT)),
            *(".SH FILES", *_list(_FILES)),
            *(".SH SEE ALSO", ".BR docker (1),", ".BR docker\\-compose (1)"),
            "",
        ]
    )


def _command(name: str, command: click.Command, above: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=above)
    arguments = [
        parameter.make_metavar(context) for parameter in command.params if isinstance(parameter, click.Argument)
    ]
    yield ".SS " + _text(" ".join([name, *arguments]))
    yield "\n.PP\n".join(map(_text, (command.help or "").split("\n\n")))
    yield from _options(command, context, without=app.chap.get_params(context))
    yield from (".PP", ".nf", ".RS")
    yield from (_text(f"$ docker chap {example}") for example in COMMANDS[name].examples)
    yield from (".RE", ".fi")


def _options(command: click.Command, context: click.Context, without: Sequence[click.Parameter] = ()) -> list[str]:
    known = {one.name for one in without}
    shown = [
        parameter
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option) and parameter.name not in known
    ]
    return _list(dict(record for one in shown if (record := one.get_help_record(context))))


def _list(entries: dict[str, str]) -> list[str]:
    return [line for name, text in entries.items() for line in (".TP", rf"\fB{_text(name)}\fP", _text(text))]


def _text(text: str) -> str:
    """Return text in which troff reads nothing as its own; what stands between backquotes is bold."""
    plain = " ".join(text.split()).replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    shown = re.sub(r"`([^`]+)`", r"\\fB\1\\fP", plain)
    return rf"\&{shown}" if shown.startswith((".", "'")) else shown
