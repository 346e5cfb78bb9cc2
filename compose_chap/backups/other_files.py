"""The parts of a stack besides the rows of its database: files, source checkout, images, versions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from shlex import quote

from compose_chap.backups.manifest import ChapFacts, CheckoutFacts, FilePart, ImageFacts, Part
from compose_chap.detection import project
from compose_chap.engine.engine import Engine
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, DumpError, EngineError
from compose_chap.model import Role, Stack
from compose_chap.project import checkout
from compose_chap.project.project_file import read_project_file
from compose_chap.records.files import own_folder
from compose_chap.stack import chap, schema

MARKETPLACE = "compose.marketplace.yml"


def copy_files(project_files: Iterable[Path], stack: Stack, folder: Path) -> tuple[FilePart, ...]:
    """Copy the `project_files`, a checkout's model configurations, and the files of other containers.

    The copies go into `folder`/files. Return the facts of each for the manifest.
    """
    directory = stack.project.directory
    models = sorted(path for path in (directory / "config" / "configured_models").glob("**/*") if path.is_file())
    paths = dict.fromkeys([*project_files, *models, *_others(stack)])
    return tuple(_copy_file(path, directory, folder) for path in paths)


def _others(stack: Stack) -> list[Path]:
    """Return the existing files in the labels of any container, and the marketplace's, which no label names."""
    projects = [project("", container.labels) for service in stack.services for container in service.containers]
    paths = {path for project in projects for path in (*project.files, *project.env_files)}
    return sorted(path for path in {*paths, stack.project.files[0].with_name(MARKETPLACE)} if path.is_file())


def _copy_file(path: Path, directory: Path, folder: Path) -> FilePart:
    inside = path.is_relative_to(directory) and ".." not in path.parts
    relative = path.relative_to(directory) if inside else Path("outside", *path.resolve().parts[1:])
    copy = folder / "files" / relative
    # One by one: with `parents`, mkdir gives the parents the umask's mode.
    for parent in reversed(copy.relative_to(folder).parents[:-1]):
        (folder / parent).mkdir(mode=0o700, exist_ok=True)
    content = read_project_file(path)
    own_folder.write(copy, content)
    name = str(copy.relative_to(folder))
    return FilePart(name, len(content), hashlib.sha256(content).hexdigest(), path=str(path))


def copy_checkout(directory: Path, folder: Path) -> CheckoutFacts | None:
    """Describe the source checkout that a stack was started from and save its local changes; None for none."""
    local_checkout = checkout.find(directory)
    try:
        head = local_checkout.head if local_checkout else None
    except ChapError:
        head = None
    if local_checkout is None or head is None:
        return None
    patch = None
    try:
        content = local_checkout.diff
    except EngineError as error:
        raise DumpError(
            f"The local changes in {local_checkout.folder} cannot be kept as a patch. {error.message}",
            hint="Run the command again, in case somebody was just changing them."
            f"\nSee what Git says: git -C {quote(str(local_checkout.folder))} diff --binary HEAD"
            "\nA dump does not need them: docker chap backup --dump-only FILE",
        ) from None
    if content:
        own_folder.write(folder / "local-changes.diff", content)
        patch = Part("local-changes.diff", len(content), hashlib.sha256(content).hexdigest())
    return CheckoutFacts(head.commit, head.branch, local_checkout.name, local_checkout.address, patch)


def image_facts(engine: Engine, stack: Stack) -> tuple[ImageFacts, ...]:
    """Return the identity of every image of the stack."""
    facts = []
    for service in stack.services:
        identity = service.containers[0].image_id
        image = engine.image(identity)
        digests = tuple(image.digests) if image else ()
        facts.append(ImageFacts(service.name, service.role.value, str(service.image), identity, digests))
    return tuple(facts)


def chap_facts(world: World, stack: Stack) -> ChapFacts:
    """Return versions and schema verdict of CHAP; empty where unknown, for example when it is down."""
    version, worker_version, verdict = "", "", None
    engine, api = world.engine, stack.api.containers[0]

    workers = [worker.containers[0].id for worker in stack.of(Role.WORKER) if worker.containers[0].running]
    with ThreadPoolExecutor() as pool:
        versions = [pool.submit(chap.version_in, engine, worker) for worker in workers]
        if api.running:
            version = chap.version_in(engine, api.id)
        with suppress(ChapError):
            verdict = schema.of_stack(world, stack).to_json()
    for future in versions:
        worker_version = future.result()
    return ChapFacts(version, worker_version, verdict)
