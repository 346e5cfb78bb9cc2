"""What the preflight looks at, each fact asked once and only when a check needs it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from compose_chap import backup, pin
from compose_chap.baseline import Baseline, baseline_of
from compose_chap.chap import Active, Chap, Jobs, Overview, Schema
from compose_chap.errors import ChapError, EngineError, RegistryError
from compose_chap.postgres import Database, Server
from compose_chap.project import Model
from compose_chap.registry import Manifest, Registry
from compose_chap.stack import Reference, Stack
from compose_chap.state import Edit
from compose_chap.world import World

_T = TypeVar("_T")


def _answer(found: _T | EngineError) -> _T:
    if isinstance(found, EngineError):
        raise found
    return found


@dataclass(frozen=True)
class Subject:
    """What the preflight looks at: a stack, its files, and the version it should move to (empty for none).

    With `digest` the files are to name the registry's digests too.
    """

    world: World
    stack: Stack
    model: Model
    target: str
    registry: Registry
    backups: Path
    digest: bool = False

    @cached_property
    def server(self) -> Server:
        """The stack's PostgreSQL."""
        return backup.server_of(self.world.engine, self.stack)

    @cached_property
    def database(self) -> Database:
        """CHAP's database."""
        return backup.database_of(self.server, self.stack.access)

    @cached_property
    def chap(self) -> Chap:
        """The running API."""
        return Chap(self.world.engine, self.stack.api.containers[0].id)

    @cached_property
    def overview(self) -> Overview:
        """What the running API says of itself, asked once."""
        return self.chap.overview() if self.stack.api.containers[0].running else Overview.of_nothing()

    @property
    def version(self) -> str:
        """The version that runs, empty when it does not say."""
        return self.overview.version

    @cached_property
    def baseline(self) -> Baseline:
        """What has to be kept."""
        return baseline_of(self.world, self.stack, self.overview)

    @cached_property
    def _inspection(self) -> tuple[Schema | EngineError, Active | EngineError]:
        return self.chap.inspection(self.stack.workers)

    @property
    def schema(self) -> Schema:
        """How the database stands to the running code. Raise EngineError when CHAP cannot tell."""
        return _answer(self._inspection[0])

    @property
    def jobs(self) -> Jobs:
        """The jobs that run, wait, or only say so. Raise EngineError when the workers cannot be asked."""
        return Jobs.of(self.overview.listed, _answer(self._inspection[1]))

    @cached_property
    def images(self) -> dict[str, Reference]:
        """The image that each writer should have after the upgrade. Raise ChapError for one that is built."""
        return {service.name: self._image(service.name) for service in self.stack.writers}

    def _image(self, name: str) -> Reference:
        definition = self.model.services.get(name)
        if definition is None:
            raise ChapError(
                f"The running service '{name}' is not in the Compose files.", hint="Name all files with -f."
            )
        if definition.image is None:
            raise ChapError(
                f"The service '{name}' is built from source. This version of the tool upgrades images only.",
                hint="Use the prebuilt images (compose.ghcr.yml) or follow CHAP's own guide.",
            )
        repository, _, _ = pin.split(str(definition.image))
        reference = Reference(repository, self.target)
        if not self.digest:
            return reference
        manifest = self.registry.manifest(reference, self.platform)
        if manifest is None:
            raise RegistryError(f"The registry does not have {reference}.", hint="See: docker chap versions")
        return Reference(repository, self.target, manifest.digest)

    @cached_property
    def edits(self) -> tuple[Edit, ...]:
        """The edits of the files. Raise ComposeFileError when they cannot be made safely."""
        wanted = {name: pin.Reference(reference.tag, reference.digest) for name, reference in self.images.items()}
        return tuple(Edit(edit.path, edit.before, edit.after) for edit in pin.edits(self.model, wanted))

    @cached_property
    def platform(self) -> str:
        """The platform of the images that run."""
        image = self.world.engine.image(self.stack.api.containers[0].image_id)
        return image.platform if image else "linux/amd64"

    @cached_property
    def manifests(self) -> dict[str, Manifest | None]:
        """What the registry has for each new image. Raise RegistryError when it does not answer."""
        return {name: self.registry.manifest(reference, self.platform) for name, reference in self.images.items()}
