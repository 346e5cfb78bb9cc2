"""What makes a stack beside the rows of its database: files, source checkout, images, versions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from compose_chap.backups.manifest import ChapFacts, CheckoutFacts, ImageFacts, KeptFile, Part
from compose_chap.detection import project
from compose_chap.engine.engine import Engine
from compose_chap.engine.world import World
from compose_chap.errors import ChapError
from compose_chap.model import Role, Stack
from compose_chap.project import checkout
from compose_chap.project.project_file import read_project_file
from compose_chap.records import own_folder
from compose_chap.stack import chap, schema

MARKETPLACE = "compose.marketplace.yml"


def keep_files(sources: Iterable[Path], stack: Stack, folder: Path) -> tuple[KeptFile, ...]:
    """Copy the `sources`, a checkout's model configurations, and what other containers were made from.

    Copies go into `folder`/files. Return what a manifest holds of each.
    """
    directory = stack.project.directory
    models = sorted(path for path in (directory / "config" / "configured_models").glob("**/*") if path.is_file())
    paths = dict.fromkeys([*sources, *models, *_others(stack)])
    return tuple(_keep_file(path, directory, folder) for path in paths)


def _others(stack: Stack) -> list[Path]:
    """Return the files that any container names, as far as they are there, and the marketplace's, which none names."""
    projects = [project("", container.labels) for service in stack.services for container in service.containers]
    paths = {path for project in projects for path in (*project.files, *project.env_files)}
    return sorted(path for path in {*paths, stack.project.files[0].with_name(MARKETPLACE)} if path.is_file())


def _keep_file(path: Path, directory: Path, folder: Path) -> KeptFile:
    inside = path.is_relative_to(directory) and ".." not in path.parts
    relative = path.relative_to(directory) if inside else Path("outside", *path.resolve().parts[1:])
    copy = folder / "files" / relative
    # One by one: `parents` makes the others as the umask says.
    for place in reversed(copy.relative_to(folder).parents[:-1]):
        (folder / place).mkdir(mode=0o700, exist_ok=True)
    content = read_project_file(path)
    own_folder.write(copy, content)
    name = str(copy.relative_to(folder))
    return KeptFile(name, len(content), hashlib.sha256(content).hexdigest(), path=str(path))


def keep_checkout(directory: Path, folder: Path) -> CheckoutFacts | None:
    """Describe the source checkout that a stack was started from and keep a diff of local changes; None for none."""
    found = checkout.find(directory)
    try:
        place = found.head if found else None
    except ChapError:
        place = None
    if found is None or place is None:
        return None
    kept = None
    if diff := found.diff:
        content = diff.encode(errors="replace")
        own_folder.write(folder / "local-changes.diff", content)
        kept = Part("local-changes.diff", len(content), hashlib.sha256(content).hexdigest())
    return CheckoutFacts(place.commit, place.branch, found.name, found.address, kept)


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
    """Return versions and schema verdict of CHAP; what it cannot say, as when it is down, is left empty."""
    version, worker_version, judgement = "", "", None
    engine, api = world.engine, stack.api.containers[0]

    workers = [worker.containers[0].id for worker in stack.of(Role.WORKER) if worker.containers[0].running]
    with ThreadPoolExecutor() as pool:
        versions = [pool.submit(chap.version_in, engine, worker) for worker in workers]
        if api.running:
            version = chap.version_in(engine, api.id)
        with suppress(ChapError):
            judgement = schema.of_stack(world, stack).to_json()
    for asked in versions:
        worker_version = asked.result()
    return ChapFacts(version, worker_version, judgement)
