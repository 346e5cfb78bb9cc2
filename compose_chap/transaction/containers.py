"""The containers of a change: stopped, started and recreated, for the way forward and the way back."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from compose_chap.engine.engine import UP_ALONE
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, EngineError, StackError
from compose_chap.image import Reference
from compose_chap.model import Container, Project
from compose_chap.postgres.server import Server
from compose_chap.processes.process import check as succeeded
from compose_chap.records.steps import Step
from compose_chap.transaction import hooks
from compose_chap.transaction.hooks import Hooks
from compose_chap.transaction.run.change import Change

# Seconds that PostgreSQL may take to answer: it may have to replay its log after a crash.
_PATIENCE = 120.0

# Compose creates the new container under such a temporary name, and renames it when the old one is gone.
_UNFINISHED = re.compile(r"[0-9a-f]{12}_(.+)")


def containers_of(world: World, project: Project, service: str) -> list[Container]:
    """Return the containers of one service as they are now."""
    return [container for container in world.engine.containers(project.name) if container.service == service]


def has_own(world: World, change: Change, service: str) -> bool:
    """Whether a writer has exactly the containers that it had before the change: nobody created or removed one."""
    return {container.id for container in containers_of(world, change.project, service)} == {
        *change.containers[service]
    }


def may_be_changed(world: World, change: Change, begun: Collection[str]) -> bool:
    """Whether the new version may have changed the live data: the run has started it, or somebody else has.

    Whoever calls Compose while the files name the new version starts it; which one it was, nobody knows later.
    """
    return Step.START_API in begun or not all(has_own(world, change, name) for name in change.writers)


def server_of(world: World, change: Change) -> Server:
    """Return the stack's PostgreSQL. Raise StackError when its container is gone."""
    containers = containers_of(world, change.project, change.database)
    if not containers:
        up = change.project.by_hand("up", "-d", "--no-deps", change.database)
        raise StackError(f"The database service {change.database} has no container.", hint=f"Create it again: {up}")
    return Server(world.engine, containers[0].id, change.admin, change.owner)


def stop_services(
    world: World,
    change: Change,
    services: Sequence[str],
    hooked: Hooks,
    *,
    forgiving: bool = False,
    at_once: Collection[str] = (),
) -> None:
    """Stop services, whatever containers they have now, in parallel: each may take ten seconds.

    Their pre-stop hooks run first; with `forgiving` a hook may fail. Containers in `at_once` have nothing to finish.
    """
    containers = [container for name in services for container in containers_of(world, change.project, name)]
    for container in containers:
        if container.running:
            hooks.run(world, hooked, hooks.PRE_STOP, container, forgiving=forgiving)
    running = [
        container.id for container in containers if container.running or container.state in ("restarting", "paused")
    ]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda identity: world.engine.stop(identity, at_once=identity in at_once), running))


def start_service(world: World, change: Change, name: str, hooked: Hooks, *, forgiving: bool = False) -> None:
    """Start the containers that a service has now, and run its post-start hooks."""
    for container in containers_of(world, change.project, name):
        world.engine.start(container.id)
        if not container.running:
            hooks.run(world, hooked, hooks.POST_START, container, forgiving=forgiving)


def start_what_ran(world: World, change: Change) -> None:
    """Start the containers of other services that ran before and do not run now.

    Without a restart policy, everything is stopped after a restart of the engine or the machine.
    """
    for ids in change.baseline.untouched.values():
        for identity, ran in ids.items():
            container = world.engine.container(identity)
            if ran and container and not container.running:
                world.engine.start(identity)


def wait_for_server(world: World, change: Change) -> Server:
    """Start what ran before, and return PostgreSQL when it answers. Raise ChapError after two minutes of silence.

    The engine may be away for a moment too: an update of Docker restarts it.
    """
    logs = f"docker compose -p {change.project.name} logs --tail 50 {change.database}"
    failure: ChapError = StackError(
        f"The database service {change.database} does not answer.", hint=f"See what it wrote last: {logs}"
    )
    silent = failure

    def answering(waited: float) -> Server | None:
        nonlocal failure
        failure = silent
        try:
            server = server_of(world, change)
            # Each time again: what is still dying when it is looked at first is dead a moment later.
            start_what_ran(world, change)
            return server if server.ready() else None
        except EngineError as error:
            failure = error
            return None

    if server := world.until(answering, _PATIENCE):
        return server
    raise failure


def recreate(
    world: World,
    change: Change,
    services: Sequence[str],
    images: Mapping[str, Mapping[str, str]],
    *,
    force: bool = False,
) -> None:
    """Recreate services with Compose, without dependencies, pull and build, and look at the images that run then.

    With `force`, also those that Compose considers up to date.
    """
    for name in services:
        name_image(world, images[name])
        _remove_unfinished(world, change.project, name)
    # Always, because the files may set another scale.
    scale = [f"--scale={name}={len(change.containers[name])}" for name in services]
    words = ["--force-recreate"] if force else []
    finished = world.engine.compose(change.project, *UP_ALONE, *words, *scale, *services)
    succeeded(finished, f"Starting {', '.join(services)}")

    for name in services:
        for container in containers_of(world, change.project, name):
            if container.image_id != images[name]["id"]:
                raise StackError(f"{container.name} does not run the image {images[name]['reference']}.")


def _remove_unfinished(world: World, project: Project, service: str) -> None:
    """Remove what a killed `docker compose` left behind: a new container that does not have its name yet."""
    containers = containers_of(world, project, service)
    for container in containers:
        if unfinished := _UNFINISHED.fullmatch(container.name):
            if any(other.name == unfinished[1] for other in containers):
                world.engine.discard(container.id)
            else:
                world.engine.rename(container.id, unfinished[1])


def name_image(world: World, image: Mapping[str, str]) -> None:
    """Give an image back the name in the Compose files, if another image has it now.

    Raise StackError when the image is gone: `docker system prune -a` removes every image without a container.
    """
    reference = Reference.parse(image["reference"])
    now = world.engine.image(image["reference"])
    if reference.digest or (now and now.id == image["id"]):
        return
    if world.engine.image(image["id"]) is None:
        raise StackError(
            f"The image {reference} that ran before ({image['id'][:19]}) is no longer on this server.",
            hint=f"Get it back: docker pull {reference}",
        )
    world.engine.tag(image["id"], reference.repository, reference.tag or "latest")
