"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from compose_chap.cli.values import files


def filled(text: str) -> str:
    """Return a word. Raise BadParameter for an empty one, which would mean the current folder."""
    if not text:
        raise click.BadParameter("It is empty. Is a variable of your shell not set?")
    return text


def _path(text: str) -> Path:
    return Path(filled(text))


yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
output_option = click.option(
    "-o",
    "--output",
    type=_path,
    shell_complete=files,
    metavar="FOLDER",
    help="The folder of the backups, instead of backups/ beside the Compose file.",
)
allow_unmounted_option = click.option(
    "--allow-unmounted",
    is_flag=True,
    envvar="DOCKER_CHAP_ALLOW_UNMOUNTED",
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
    type=click.FloatRange(0),
    default=0,
    help="Wait up to this long for another run on this stack to end, instead of refusing at once.",
)
