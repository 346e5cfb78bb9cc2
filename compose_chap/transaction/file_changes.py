"""How the files of a change are changed and reverted: image tags in Compose files, or a checkout that moves."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compose_chap.engine.world import World
from compose_chap.errors import ChapError, StateError
from compose_chap.image import release_key, release_tag
from compose_chap.model import Project
from compose_chap.project import checkout_move
from compose_chap.project.checkout import Checkout, Move
from compose_chap.records.files import durable
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.transaction.containers import name_image
from compose_chap.transaction.run.change import Change, begin


@dataclass(frozen=True)
class Reverted:
    """Files that somebody else changed meanwhile: those `left` as they are, and those `set_aside`."""

    left: tuple[Path, ...] = ()
    set_aside: tuple[str, ...] = ()


class FileChanges(ABC):
    """The files that the containers of a change are made from."""

    def __init__(self, change: Change) -> None:
        self.change = change

    def prepare(self, world: World) -> None:
        """Do, while CHAP still serves, what takes time. Raise ChapError when the result would not be as planned."""

    @abstractmethod
    def apply(self, world: World, journal: Journal) -> None:
        """Change the files. Raise ChapError when they changed since the plan."""

    def check(self, world: World) -> None:
        """Look at what can only be looked at in the changed files. Raise ChapError as `prepare` does."""

    @abstractmethod
    def revert(self, world: World, journal: Journal) -> Reverted:
        """Revert the files, even after an interruption. Does nothing when the run had not changed any yet."""

    @abstractmethod
    def name_others(self, world: World, files: tuple[Path, ...]) -> bool:
        """Whether Compose would create other containers from the files that were left as they are."""

    @abstractmethod
    def by_hand(self) -> list[str]:
        """Return the instructions to revert the files by hand."""

    @abstractmethod
    def how_to_get(self, reference: str, backup: str) -> str:
        """Return how to get a previous image that is gone; `backup`, empty for none, is from before the change."""

    def state(self) -> list[str]:
        """Return the state of each file, a line for each."""
        lines = []
        for edit in self.change.edits:
            with suppress(OSError):
                content = durable.content_of(edit.path)
                known = {edit.after: "new", edit.before: "old"}
                lines.append(f"{edit.path}: {known.get(content, 'changed by someone else')}")
        return lines

    @property
    def _files(self) -> str:
        return ", ".join(str(edit.path) for edit in self.change.edits)


class TagEdits(FileChanges):
    """Image tags in Compose and env files."""

    def __init__(self, change: Change) -> None:
        super().__init__(change)
        self._before: dict[str, Any] = {}

    def prepare(self, world: World) -> None:
        if self.change.edits:
            project = self.change.project
            self._before = self._all_but_images(world, project)
            drafts = durable.draft_edits(self.change.edits)
            files, env_files = (
                tuple(drafts.get(path, path) for path in paths) for paths in (project.files, project.env_files)
            )
            self._compare(world, replace(project, files=files, env_files=env_files))

    def apply(self, world: World, journal: Journal) -> None:
        if self.change.edits:
            begin(world, journal, Step.REWRITE, self._files)
            durable.replace_by_drafts(self.change.edits)

    def check(self, world: World) -> None:
        project = self.change.project
        # Compose finds `.env`, and what a file includes or extends, under their own names only.
        if not {edit.path for edit in self.change.edits} <= {*project.files, *project.env_files}:
            self._compare(world, project)

    def revert(self, world: World, journal: Journal) -> Reverted:
        if journal.began(Step.STOP):
            return Reverted(tuple(durable.revert_edits(self.change.edits)))
        # Before the stop we wrote nothing but drafts, so changes in the files then are somebody else's.
        durable.remove_drafts(self.change.edits)
        return Reverted()

    def name_others(self, world: World, files: tuple[Path, ...]) -> bool:
        if not files:
            return False
        try:
            services = world.engine.compose_config(self.change.project)["services"]
        except ChapError:
            # Whoever changed the file may not be done with it.
            return True
        images = {name: image["reference"] for name, image in self.change.images.items()}
        return any(services.get(name, {}).get("image") != images[name] for name in self.change.writers)

    def by_hand(self) -> list[str]:
        return [f"# put the old image tags back into {self._files}"] if self.change.edits else []

    def how_to_get(self, reference: str, backup: str) -> str:
        pull = f"Get it back: docker pull {reference}"
        restore = f"Then use the backup: docker chap restore {backup} --with-version"
        return f"{pull}\nIf the tag has moved since, this fetches another image. {restore}" if backup else pull

    def _compare(self, world: World, project: Project) -> None:
        if self._before != self._all_but_images(world, project):
            raise StateError("The edit would change more than the image tags, so it was not used.")

    def _all_but_images(self, world: World, project: Project) -> dict[str, Any]:
        config = world.engine.compose_config(project)
        for name in self.change.writers:
            config["services"][name].pop("image", None)
        # Extensions are prose to Compose: an anchor that holds an image may stand there.
        services = {
            name: {key: value for key, value in service.items() if not key.startswith("x-")}
            for name, service in config["services"].items()
        }
        return {**{key: value for key, value in config.items() if not key.startswith("x-")}, "services": services}


class CheckoutMove(FileChanges):
    """A Git checkout that moves, and variables that its new files need. The images are built from it."""

    def __init__(self, change: Change, move: Move) -> None:
        super().__init__(change)
        self._move = move

    def apply(self, world: World, journal: Journal) -> None:
        if journal.began(Step.CHECKOUT):
            return
        where = f"{self.change.expected or self._move.after} in {self._move.folder}"
        begin(world, journal, Step.CHECKOUT, where)
        checkout_move.go(self._move)
        durable.apply_edits(self.change.edits)

    def revert(self, world: World, journal: Journal) -> Reverted:
        if not journal.began(Step.CHECKOUT):
            return Reverted()
        left = durable.revert_edits(self.change.edits)
        # A build gave the names of the old images to new ones.
        for name in self.change.writers:
            name_image(world, self.change.images[name])

        def save(path: str, content: bytes) -> None:
            journal.evidence(f"changed-meanwhile-{path.replace('/', '_')}", content)

        return Reverted(tuple(left), tuple(checkout_move.go_back(self._move, save)))

    def name_others(self, world: World, files: tuple[Path, ...]) -> bool:
        # Its edits are variables that the old files do not use.
        return False

    def state(self) -> list[str]:
        lines = super().state()
        with suppress(ChapError):
            lines.append(f"{self._move.folder}: {Checkout(self._move.folder).head}")
        return lines

    def by_hand(self) -> list[str]:
        before = self._move.before
        start = before.branch.removeprefix("refs/heads/") or before.commit
        edits = [f"# remove again what was written into {self._files}"] if self.change.edits else []
        return [*edits, shlex.join(["git", "-C", str(self._move.folder), "checkout", start])]

    def how_to_get(self, reference: str, backup: str) -> str:
        version = self.change.expected
        if not (backup and release_key(version)):
            return "See which backups there are: docker chap backups"
        build = f"docker chap upgrade {release_tag(version)} --allow-downgrade"
        return f"Build that version again: {build}\nThen: docker chap restore {backup}"


def file_changes_of(change: Change) -> FileChanges:
    """Return how the files of a change are changed."""
    return CheckoutMove(change, change.move) if change.move else TagEdits(change)
