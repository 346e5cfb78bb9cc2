"""Where the backups of a stack lie: where a new backup is written, and where earlier backups are looked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from compose_chap.errors import StackError, StateError
from compose_chap.model import Stack
from compose_chap.schedule import plan


def folder_for(stack: Stack, chosen: Path | None, environment: Mapping[str, str]) -> Path:
    """Return the folder for backups of a stack: the chosen one, DOCKER_CHAP_BACKUPS, or beside the Compose file."""
    if not (stack.project.local or chosen or environment.get("DOCKER_CHAP_BACKUPS")):
        raise StackError(
            f"Backups of '{stack.project.name}' are kept beside its Compose files, which are not on this machine:"
            f" {stack.project.files[0]}.",
            state="Nothing was changed.",
            hint="Name a folder on this machine with -o FOLDER, or in the environment variable DOCKER_CHAP_BACKUPS.",
        )
    return folder_beside(stack.project.directory, chosen, environment)


def folder_beside(directory: Path, chosen: Path | None, environment: Mapping[str, str]) -> Path:
    """Return the folder for backups of the stack whose main folder is `directory`."""
    if chosen:
        return chosen.absolute()
    if environment.get("DOCKER_CHAP_BACKUPS"):
        return Path(environment["DOCKER_CHAP_BACKUPS"]).absolute()
    return directory / "backups"


def all_folders(stack: Stack, chosen: Path | None, environment: Mapping[str, str]) -> list[Path]:
    """Return the folders that backups are looked for in; see `folders_beside`. Raise as `folder_for` does."""
    folder = folder_for(stack, chosen, environment)
    return folders_beside(stack.project.directory, chosen, environment) if stack.project.local else [folder]


def folders_beside(directory: Path, chosen: Path | None, environment: Mapping[str, str]) -> list[Path]:
    """Return the chosen folder alone, else where backups usually are and where the stack's schedule puts them."""
    folder, output = folder_beside(directory, chosen, environment), ""
    if not chosen:
        with suppress(StateError):  # which is reported where the schedule is looked at
            schedule = plan.read(directory)
            output = schedule.output or schedule.environment.get("DOCKER_CHAP_BACKUPS", "") if schedule else ""
    apart = output and os.path.realpath(output) != os.path.realpath(folder)
    return [folder, Path(output)] if apart else [folder]
