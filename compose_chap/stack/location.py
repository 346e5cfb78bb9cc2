"""Where the operator says that the stack is, and the Compose files there. Nothing here needs an engine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compose_chap import ownership
from compose_chap.records import run_records

if TYPE_CHECKING:
    from compose_chap.project.compose_files import Layout, Model


@dataclass(frozen=True)
class Where:
    """How the operator selects a stack: Compose's own options, the current folder and the environment."""

    files: tuple[Path, ...]
    name: str
    directory: Path | None
    env_files: tuple[Path, ...]
    folder: Path
    environment: Mapping[str, str]

    @property
    def named(self) -> bool:
        """Whether an option selects the stack."""
        return bool(self.name or self.files or self.directory)

    @property
    def explicit(self) -> bool:
        """Whether an option or the environment selects the stack."""
        return self.named or bool(self.chosen or self.environment.get("COMPOSE_PROJECT_NAME"))

    @property
    def chosen(self) -> tuple[Path, ...]:
        """The Compose files named by options, else by the environment, absolute; empty where neither names any."""
        exported = self.environment.get("COMPOSE_FILE", "")
        separator = self.environment.get("COMPOSE_PATH_SEPARATOR", ":")
        return self.absolute(self.files or [Path(part) for part in exported.split(separator) if part])

    @property
    def record_folders(self) -> tuple[Path, ...]:
        """The folders where the records may be: those of the named files, else the current folder and its parents.

        Records of other users in a parent are ignored: the operator did not choose them.
        """
        named = (self.directory,) if self.directory else tuple(path.parent for path in self.chosen)
        return self.absolute(named) or tuple(filter(run_records.records_are_own, ownership.upwards(self.folder)))

    @property
    def folder_and_parents(self) -> tuple[Path, ...]:
        """The current folder and its parents, nearest first, links resolved.

        The root is none of them: a stack whose containers do not say where its files are counts as one of there.
        """
        folder = self.folder.resolve()
        return (folder, *(parent for parent in folder.parents if parent != Path(parent.anchor)))

    def absolute(self, paths: Iterable[Path]) -> tuple[Path, ...]:
        """Return paths relative to the current folder as absolute paths."""
        return tuple(self.folder / path for path in paths)


def read_project(where: Where) -> Model:
    """Return the project that Compose would use in this folder with these options. Raise ComposeFileError."""
    from compose_chap.project import (
        compose_files,
        project_file,
    )  # not above: it brings YAML, and finding a stack needs none

    layout = layout_of(where)
    return compose_files.load(
        layout.files, layout.project_directory, layout.env_files, _environment(where), project_file.read_project_file
    )


def layout_of(where: Where) -> Layout:
    """Return the files that Compose would use in this folder with these options. Raise ComposeFileError."""
    from compose_chap.project import compose_files, project_file

    return compose_files.discover(
        where.folder,
        _environment(where),
        # Compose ignores a folder of such a name.
        lambda path: os.path.exists(path) and not os.path.isdir(path),
        project_file.read_project_file,
        files=where.files,
        project_directory=where.directory,
        env_files=where.env_files,
    )


def _environment(where: Where) -> dict[str, str]:
    return {**where.environment, **({"COMPOSE_PROJECT_NAME": where.name} if where.name else {})}
