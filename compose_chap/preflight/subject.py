"""The subject of the preflight: facts that are read lazily and cached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, Generic, TypeVar

from compose_chap.edit import Edit
from compose_chap.engine.registries.registry import ImageManifest, Registry
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, EngineError, RegistryError, StackError
from compose_chap.image import Reference, release_key
from compose_chap.model import Stack
from compose_chap.postgres.server import Database, Server
from compose_chap.preflight import env_variables
from compose_chap.preflight.env_variables import Variable
from compose_chap.project import checkout, compose_files, pin
from compose_chap.project.checkout import Checkout, Head, Move
from compose_chap.project.compose_files import Model, ServiceDefinition
from compose_chap.records.files import durable
from compose_chap.stack import releases, schema
from compose_chap.stack.chap import Chap, Jobs, Overview
from compose_chap.stack.databases import database_of, server_of
from compose_chap.stack.schema import Schema
from compose_chap.transaction.run.baseline import Baseline, baseline_of

T = TypeVar("T")


class shared_property(Generic[T]):
    """A cached property for several threads: the first computes it, the others wait."""

    def __init__(self, ask: Callable[[Any], T]) -> None:
        self._ask = ask
        self.__doc__ = ask.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: Any = None) -> T:
        answers = vars(instance)
        with answers.setdefault(f"_lock_of_{self._name}", RLock()):
            if self._name not in answers:
                answers[self._name] = self._ask(instance)
            answer: T = answers[self._name]
            return answer


@dataclass(frozen=True)
class Subject:
    """The subject of the preflight: a stack, its files, and the version it should move to (empty for none).

    With `digest`, the files will name the registry's digests too.
    """

    world: World
    stack: Stack
    model: Model
    target: str
    registry: Registry
    backups: Path
    digest: bool = False

    @shared_property
    def server(self) -> Server:
        """The stack's PostgreSQL."""
        return server_of(self.world.engine, self.stack)

    @shared_property
    def database(self) -> Database:
        """CHAP's database."""
        return database_of(self.server, self.stack.access)

    @shared_property
    def chap(self) -> Chap:
        """The running API."""
        return Chap(self.world.engine, self.stack.api.containers[0].id)

    @shared_property
    def overview(self) -> Overview:
        """The state that the running API reports."""
        return self.chap.overview() if self.stack.api.containers[0].running else Overview.empty()

    @shared_property
    def version(self) -> str:
        """The running version, empty when unknown. The overview has it too, but takes a second."""
        return self.chap.version() if self.stack.api.containers[0].running else ""

    @shared_property
    def release(self) -> str:
        """The running release, without the `v`: the checkout's tag, if the code reports the same version."""
        tag = self.checkout.release if self.checkout else ""
        return tag.removeprefix("v") if tag and releases.reported_version(tag) == self.version else self.version

    @shared_property
    def baseline(self) -> Baseline:
        """The state that the upgrade must preserve."""
        return baseline_of(self.world, self.stack, lambda: self.overview)

    @shared_property
    def schema(self) -> Schema:
        """How the database compares with the running code. Raise EngineError, DatabaseError when one cannot be read."""
        return schema.of_stack(self.world, self.stack)

    @shared_property
    def jobs(self) -> Jobs:
        """The running, waiting and dead jobs. Raise EngineError when the workers cannot be asked."""
        # CHAP takes a second for its overview. Where a change follows, the jobs are asked for again before the stop.
        with ThreadPoolExecutor(1) as pool:
            active = pool.submit(self.chap.active, self.stack.workers)
            listed = self.overview.listed
        if isinstance(listed, EngineError):
            raise listed
        return Jobs.of(listed, active.result())

    @shared_property
    def built(self) -> bool:
        """Whether the writers are built from source. Raise ChapError when only some are."""
        kinds = {service.name: _is_built(self._definition(self.model, service.name)) for service in self.stack.writers}
        if len(set(kinds.values())) > 1:
            named = ", ".join(name for name, built in kinds.items() if built)
            raise ChapError(
                f"Only some of CHAP's services are built from source: {named}.",
                hint="Let the Compose files build all of them, or none.",
            )
        return kinds[self.stack.api.name]

    @shared_property
    def checkout(self) -> Checkout | None:
        """The checkout that the writers are built from, None for images. Raise ChapError for none or several."""
        if not self.built:
            return None
        contexts = {self.model.services[service.name].build.get("context", "") for service in self.stack.writers}
        checkouts = {checkout.find(Path(context)) if context.startswith("/") else None for context in contexts}
        candidate = next(iter(checkouts))
        if len(checkouts) > 1 or candidate is None:
            raise StackError(
                f"CHAP is built from {', '.join(sorted(contexts))}, and that is not one Git checkout.",
                hint="Clone CHAP with git clone, so that its releases can be checked out.",
            )
        return candidate

    @shared_property
    def move(self) -> Move | None:
        """The move of the checkout to the target; its tag is fetched if missing. None for images."""
        if self.checkout is None or not self.target:
            return None
        return Move(self.checkout.folder, self.checkout.head, Head(checkout.commit_of(self.checkout, self.target)))

    @shared_property
    def after(self) -> Model:
        """The project as its files will define it after the upgrade. Raise ChapError when they cannot be read.

        Nothing is changed: the files of a release are read from Git.
        """
        if self.move is None:
            return pin.edited(self.model, self._pins) if self.target else self.model
        return self._released(self.move, {}, *self.edits)

    def _released(self, move: Move, more: Mapping[str, str], *edits: Edit) -> Model:
        """Return the project as the files of the target define it, with more variables, or after edits of env files."""
        layout, read = self.model.layout, checkout.reader(move)
        written = {edit.path: edit.after for edit in edits if edit.after is not None}
        return compose_files.load(
            layout.files,
            layout.project_directory,
            tuple(dict.fromkeys((*layout.env_files, *written))),
            {**self.model.environ, **more},
            lambda path: written[path] if path in written else read(path),
        )

    @shared_property
    def missing_variables(self) -> tuple[Variable, ...]:
        """The unset variables that the target's files need in an env file, from the running containers."""
        if self.move is None:
            return ()
        # CHAP's current URL comes first: the database's own variables may be out of date.
        services = (*self.stack.writers, self.stack.database)
        return env_variables.find(partial(self._released, self.move), services)

    @property
    def env_file(self) -> Path:
        """The env file to write missing variables into."""
        layout = self.model.layout
        return layout.env_files[-1] if layout.env_files else layout.project_directory / ".env"

    @shared_property
    def images(self) -> dict[str, Reference]:
        """The image that each writer should have after the upgrade, by name. Raise ChapError."""
        # An image built by Compose has a name without a slash, and no registry has it.
        if self.stack.project.absent and any("/" not in writer.image.repository for writer in self.stack.writers):
            raise StackError(
                "CHAP is built from source, and its checkout is not on this machine.",
                hint="Run this on the server where it is.",
            )
        return {service.name: self._image(service.name) for service in self.stack.writers}

    def _image(self, name: str) -> Reference:
        if self.built:
            # Compose names a built image after project and service.
            image = self._definition(self.after, name).image
            return Reference.parse(str(image or f"{self.stack.project.name}-{name}"))
        repository = Reference.parse(str(self._definition(self.model, name).image)).repository
        reference = Reference(repository, self.target)
        if not self.digest:
            return reference
        manifest = self.registry.manifest(reference, self.platform)
        if manifest is None:
            raise RegistryError(f"The registry does not have {reference}.", hint="See: docker chap versions")
        return Reference(repository, self.target, manifest.digest)

    @staticmethod
    def _definition(model: Model, name: str) -> ServiceDefinition:
        definition = model.services.get(name)
        if definition is None:
            raise ChapError(
                f"The running service '{name}' is not in the Compose files.", hint="Name all files with -f."
            )
        return definition

    @shared_property
    def _pins(self) -> tuple[Edit, ...]:
        wanted = {name: pin.NewTag(reference.tag, reference.digest) for name, reference in self.images.items()}
        return pin.edits(self.model, wanted)

    @shared_property
    def edits(self) -> tuple[Edit, ...]:
        """The edits of the files; from source, those of an env file. Raise ComposeFileError when they are not safe."""
        if self.built:
            before = durable.content_of(self.env_file)
            return (
                (env_variables.edit(self.env_file, before, self.missing_variables, self.target),)
                if self.missing_variables
                else ()
            )
        return self._pins

    @property
    def changed_files(self) -> list[Path]:
        """The Compose and env files that the checkout of the target changes."""
        if self.move is None:
            return []
        differing = {self.move.folder / path for path in checkout.changed(self.move)}
        return [path for path in {**self.model.contents, **self.after.contents} if path in differing]

    @property
    def changes_files(self) -> bool:
        """Whether the upgrade changes a file or the commit."""
        return bool(self.edits) or bool(self.move and self.move.before.commit != self.move.after.commit)

    @property
    def diff(self) -> str:
        """Every change of the Compose and env files, as a unified diff without the values of missing variables."""
        if self.move is None:
            return pin.diff(self._pins if not self.built else ())
        added = "".join(env_variables.diff(edit, self.missing_variables) for edit in self.edits)
        return checkout.diff(self.move, self.changed_files) + added

    @shared_property
    def platform(self) -> str:
        """The platform of the running images."""
        image = self.world.engine.image(self.stack.api.containers[0].image_id)
        return image.platform if image else "linux/amd64"

    @shared_property
    def manifests(self) -> dict[str, ImageManifest | None]:
        """The manifest of each new image, None where the registry has none. Raise RegistryError without an answer."""
        return {name: self.registry.manifest(reference, self.platform) for name, reference in self.images.items()}


def _is_built(definition: ServiceDefinition) -> bool:
    image = definition.image
    # With both `build` and a release tag, `docker compose up` would pull that release.
    return bool(definition.build) and (image is None or release_key(Reference.parse(str(image)).tag) is None)
