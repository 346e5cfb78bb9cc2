"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from compose_chap.cli.values import files

_LONGEST_SHOWN = 200  # letters


def filled(text: str) -> str:
    """Return a word. Raise BadParameter for an empty one, which would mean the current folder."""
    if not text:
        raise click.BadParameter("It is empty. Is a variable of your shell not set?")
    return text


_Number = TypeVar("_Number", int, float)


def at_least(least: int) -> Callable[[click.Context, click.Parameter, _Number], _Number]:
    """Return the check of a number; click's own types would write `x>=0` into the help. It raises BadParameter."""

    def check(_context: click.Context, _parameter: click.Parameter, value: _Number) -> _Number:
        # Where an option has no default, it is None when it was not given.
        if value is not None and not value >= least:  # nan is not either
            raise click.BadParameter(f"{value} is less than {least}.")
        return value

    return check


def usable(text: str) -> str:
    """Return a word that may name a file. Raise BadParameter where no file can: its name, or no permission.

    Later, each question about such a file would fail.
    """
    try:
        os.lstat(text)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no file can have this name"
        raise click.BadParameter(f"{text[:_LONGEST_SHOWN]}: {why}") from None
    return text


def path(text: str) -> Path:
    """Return a path. Raise BadParameter as `usable` does."""
    return Path(usable(text))


def output_file(text: str) -> str:
    """Return a word that names a file. Raise BadParameter as `filled` and `usable` do."""
    return usable(filled(text))


def _output(text: str) -> Path:
    return Path(output_file(text))


yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
output_option = click.option(
    "-o",
    "--output",
    type=_output,
    shell_complete=files,
    metavar="FOLDER",
    help="The folder of the backups, instead of backups/ beside the Compose file.",
)
allow_drift_option = click.option(
    "--allow-drift", is_flag=True, help="Recreate containers even if they would differ from those that run."
)
ALLOW_UNMOUNTED = "DOCKER_CHAP_ALLOW_UNMOUNTED"
allow_unmounted_option = click.option(
    "--allow-unmounted",
    is_flag=True,
    envvar=ALLOW_UNMOUNTED,
    help="Write backups to FOLDER even if no disk seems to be mounted there.",
)
patience_option = click.option(
    "--wait",
    "patience",
    metavar="SECONDS",
    type=float,
    default=120,
    show_default=True,
    help="How long CHAP may show no activity before it counts as stuck.",
)
detach_option = click.option(
    "--detach",
    is_flag=True,
    help="Ask first, then continue in the background, even if this terminal closes. See: docker chap attach --help.",
)
wait_lock_option = click.option(
    "--wait-lock",
    metavar="SECONDS",
    type=float,
    callback=at_least(0),
    default=0,
    help="Wait up to this long for another run on this stack, or in the repository, to end; do not refuse at once.",
)
