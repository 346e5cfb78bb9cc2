"""The commands of copies in another place: copy, copies."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from compose_chap import units
from compose_chap.backups import catalogue as backup_catalogue
from compose_chap.cli.call import Call, common
from compose_chap.cli.commands import command
from compose_chap.cli.options import output_option
from compose_chap.cli.screen.layout import paragraph, table
from compose_chap.cli.values import backups, files
from compose_chap.copies import catalogue, send
from compose_chap.copies.catalogue import Copy
from compose_chap.copies.repository import repository
from compose_chap.copies.restic import Restic
from compose_chap.errors import StackError
from compose_chap.model import Origin
from compose_chap.stack import observe
from compose_chap.stack.databases import server_of

_Function = TypeVar("_Function", bound=Callable[..., Any])


_PASSWORD_FILE = click.option(
    "--password-file",
    default="",
    shell_complete=files,
    metavar="FILE",
    help="The file with the repository's password. Without it restic's own variables are used.",
)


def _repository_option(word: str, about: str) -> Callable[[_Function], _Function]:
    return click.option(word, "location", default="", metavar="REPOSITORY", help=about)


def from_repository(function: _Function) -> _Function:
    """Give a command that takes a backup the options to take a copy of it instead."""
    about = "Take it from this repository of copies, as restic writes it, or disk:LABEL/FOLDER."
    return _repository_option("--from", about)(_PASSWORD_FILE(function))


def opened(location: str, password_file: str, limit_upload: int = 0) -> Restic:
    """Return restic on the repository that the options or the environment name."""
    return Restic(repository(location, password_file, dict(os.environ)), limit_upload=limit_upload)


def wanted_copy(call: Call, restic: Restic, wanted: str) -> Copy:
    """Return the copy that an operator means: of the stack, or of any where there is none, as on a new machine."""
    engine, origin = call.world().engine, Origin()
    with suppress(StackError):
        origin = engine.origin(observe.find_stack(engine, call.where()).project.name)
    return catalogue.find(wanted, catalogue.look(restic, origin).copies)


@command("copy")
@click.argument("wanted", shell_complete=backups, metavar="[BACKUP]", default="latest")
@_repository_option("--to", "Where copies go, as restic writes it, or disk:LABEL/FOLDER. Without it RESTIC_REPOSITORY.")
@_PASSWORD_FILE
@click.option("--init", "new", is_flag=True, help="Make the repository if it does not exist yet.")
@click.option(
    "--limit-upload", type=click.IntRange(1), default=None, metavar="KIB", help="Send at most this many KiB a second."
)
@output_option
@common
def copy_command(
    call: Call, wanted: str, location: str, password_file: str, new: bool, limit_upload: int | None, output: Path | None
) -> None:
    """Copy a backup to another place, encrypted.

    restic keeps the copies: in a folder, on a USB disk, or on a server (sftp, rest, S3). Only what is new since the
    last copy is sent. A copy that was cut off goes on where it ended. Without BACKUP it is `latest`.
    """
    restic = opened(location, password_file, limit_upload or 0)
    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    folder = backup_catalogue.folder_for(stack, output, where.environment)
    backup = backup_catalogue.find(wanted, folder, world.engine.origin(stack.project.name), sound=True)
    if new and not restic.exists():
        restic.init()
    sent = send.send(world, restic, backup, server_of(world.engine, stack))
    if sent.existed:
        text = f"Backup {backup.id} is already copied to {restic.location}."
    else:
        text = f"Backup {backup.id} is copied to {restic.location}. {units.size(sent.added)} were sent."
    call.result({"copy": copy_document(sent.copy), "sent": sent.added, "existed": sent.existed}, paragraph(text))


@command("copies")
@from_repository
@common
def copies_command(call: Call, location: str, password_file: str) -> None:
    """List the copies of backups in another place."""
    restic = opened(location, password_file)
    world = call.world()
    stack = observe.find_stack(world.engine, call.where())
    listing = catalogue.look(restic, world.engine.origin(stack.project.name))
    rows = [[copy.id, units.age(copy.created_at, call.clock()), units.size(copy.sql_size)] for copy in listing.copies]
    text = table([["COPY", "MADE", "AS SQL"], *rows]) if rows else f"No copies in {restic.location}."
    if listing.incomplete:
        text += f"\n\n{len(listing.incomplete)} snapshots belong to copies that were cut off, and do not count."
    documents = [copy_document(copy) for copy in listing.copies]
    call.result({"repository": restic.location, "copies": documents, "incomplete": listing.incomplete}, text)


def copy_document(copy: Copy) -> dict[str, Any]:
    """Return a copy as JSON can hold it."""
    return {
        "id": copy.id,
        "snapshot": copy.snapshot,
        "sql_snapshot": copy.sql_snapshot,
        "size": copy.sql_size,
        "sha256": copy.sql_sha256,
    }
