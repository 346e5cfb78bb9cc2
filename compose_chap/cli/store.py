"""The repository of copies, and the copy in it, that an operator names; the options that name them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from compose_chap.cli.call import Call
from compose_chap.cli.options import at_least, usable
from compose_chap.cli.screen import copies as screen
from compose_chap.cli.screen.layout import paragraph
from compose_chap.cli.values import files
from compose_chap.copies import catalogue
from compose_chap.copies.catalogue import Copy
from compose_chap.copies.repository import repository
from compose_chap.copies.restic import Restic
from compose_chap.errors import ChapError
from compose_chap.model import Origin
from compose_chap.stack import observe

# Seconds: what a killed run began, such as counting what was sent, may still be under way in the repository.
_LEAST_PATIENCE = 30

_Function = TypeVar("_Function", bound=Callable[..., Any])


def limit_option(default: int | None = 0) -> Callable[[_Function], _Function]:
    """Give a command the option that limits what it sends."""
    return click.option(
        "--limit-upload",
        type=int,
        callback=at_least(0),
        default=default,
        metavar="KIB",
        help="Send at most this many KiB a second.",
    )


@dataclass(frozen=True)
class Store:
    """The repository that an operator names, and the files with its password and its keys."""

    location: str = ""
    password_file: str = ""
    keys_file: str = ""

    @property
    def named(self) -> bool:
        """Whether a repository is meant at all."""
        return bool(self.location or self.password_file or self.keys_file)

    def open(self, call: Call, limit_upload: int = 0) -> Restic:
        """Return restic on it, which waits for other runs as long as the call says. Raise UsageError, CopyError."""
        named = repository(self.location, self.password_file, self.keys_file, dict(os.environ))
        return Restic(named, limit_upload=limit_upload, patience=max(call.wait_lock, _LEAST_PATIENCE))


def _repository_options(word: str, about: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that name a repository; it gets them as `store`."""
    options = (
        click.option(word, "location", default="", metavar="REPOSITORY", help=about),
        _file_option(
            "--password-file", "password_file", "The file with the repository's password, or RESTIC_PASSWORD."
        ),
        _file_option("--keys", "keys_file", "A file of NAME=VALUE lines for restic, such as the keys of an S3 server."),
    )

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def wrapped(*words: Any, location: str, password_file: str, keys_file: str, **rest: Any) -> None:
            function(*words, store=Store(location, password_file, keys_file), **rest)

        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def _file_option(word: str, name: str, about: str) -> Callable[[_Function], _Function]:
    return click.option(word, name, type=usable, default="", shell_complete=files, metavar="FILE", help=about)


def to_repository(word: str = "--to") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options to name a repository that copies go to."""
    about = "Where copies go, as restic writes it, or disk:LABEL/FOLDER; else RESTIC_REPOSITORY."
    return _repository_options(word, about)


from_repository = _repository_options("--from", "The repository of copies, as restic writes it, or disk:LABEL/FOLDER.")


def wanted_copy(call: Call, restic: Restic, wanted: str) -> Copy:
    """Return the copy that an operator means: of the stack, or of any where there is none, as on a new machine."""
    restic.check_reachable()
    engine, origin = call.world().engine, Origin()
    with suppress(ChapError):
        origin = engine.origin(observe.find_stack(engine, call.where()).project.name)
    return catalogue.find(wanted, catalogue.scan(restic), origin, restic.named)


def warn_of_same_disk(call: Call, restic: Restic, folder: Path) -> None:
    """Warn of a repository that is lost together with a folder of this machine."""
    if restic.shares_disk(folder):
        call.tell(paragraph(f"Warning: {screen.ON_SAME_DISK}", sys.stderr))
