"""The lock of a stack on its engine, for runs that work on it from another machine with other files.

The lock is a container, because a container name is unique on an engine. It only reads its standard input, which this
process holds open. When the process dies, however that happens, the connection closes, the container ends, and the
engine removes it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from compose_chap import compose_labels
from compose_chap.engine.engine import Engine
from compose_chap.engine.world import World
from compose_chap.errors import EngineError, Locked, StateError
from compose_chap.model import Container, Role, Stack
from compose_chap.reading import Value
from compose_chap.records import lock
from compose_chap.records.run_records import operator
from compose_chap.units import moment

_LABEL = "docker-chap.lock"

# Seconds that the engine may take to remove the container of a lock that was released, or whose process was killed.
_REMOVAL_SECONDS = 5.0
_PAUSE = 0.25


@contextmanager
def locked(world: World, stack: Stack, operation: str) -> Iterator[None]:
    """Hold the lock of a stack while the block runs: beside its files, if they are on this machine, and on its engine.

    Raise Locked, naming the holder, when another run holds it.
    """
    project, services = stack.project, (*stack.of(Role.DATABASE), *stack.services)
    images = [container.image_id for service in services for container in service.containers]
    here = lock.locked(project.directory, operation, world.clock()) if project.local else nullcontext()
    with here, locked_on_engine(world, project.name, images, operation):
        yield


@contextmanager
def locked_on_engine(world: World, project: str, images: Iterable[str], operation: str) -> Iterator[None]:
    """Hold the lock of a project on its engine only while the block runs.

    The container is made from the first of `images` that works. Where none does, there is no lock on the engine,
    and a message says so. Raise Locked when another run holds it.
    """
    labels = {
        _LABEL: project,
        f"{_LABEL}.operation": operation,
        f"{_LABEL}.by": operator(),
        f"{_LABEL}.since": world.clock().isoformat(),
    }
    connection = None
    for image in dict.fromkeys(images):
        with suppress(_UnusableImage):
            connection = _acquire(world.engine, _name(project), image, labels)
            break
    else:
        world.notify("check", "the lock: no image of the stack can hold one on the engine, only this folder is locked")
    try:
        yield
    finally:
        if connection:
            _release(connection)


def holder(engine: Engine, project: str) -> dict[str, str] | None:
    """Return the run that works on a project now: `operation`, `by`, `since` (ISO 8601, or empty). None for none."""
    container = engine.container(_name(project))
    return _labels_of(container) if container and container.running else None


class _UnusableImage(Exception):
    """The engine does not have the image, or it has no `cat`."""


def _acquire(engine: Engine, name: str, image: str, labels: Mapping[str, str]) -> Any:
    """Return the connection that holds the lock. Raise Locked when another run has it, _UnusableImage."""
    patience = _REMOVAL_SECONDS
    while True:
        if connection := _create(engine, name, image, labels):
            return connection
        other = engine.container(name)
        if other and patience <= 0 and (other.running or patience < -_REMOVAL_SECONDS):
            raise _locked_by(other, name)
        if patience < -_REMOVAL_SECONDS:
            raise EngineError(f"The engine refuses the container name {name}.", state="This command changed nothing.")
        if other and patience <= 0:
            # Its process died between create and start. If it is only slow, its start fails then, and it gives up.
            with suppress(EngineError):
                engine.discard(other.id)
        time.sleep(_PAUSE)
        patience -= _PAUSE


def _create(engine: Engine, name: str, image: str, labels: Mapping[str, str]) -> Any:
    """Return the stdin of a new container of this name, None when the name is taken. Raise _UnusableImage."""
    import docker.errors

    local_image = engine.image(image)
    if local_image is None:
        raise _UnusableImage
    with engine.errors("lock this stack"):
        try:
            created = engine.api.create_container(
                image,
                entrypoint=["cat"],
                stdin_open=True,
                name=name,
                # An image built by Compose has the labels of its stack: blank them, the lock is no part of the stack.
                labels={
                    **{label: "" for label in local_image.labels if label.startswith(compose_labels.PREFIX)},
                    **labels,
                },
                healthcheck={"Test": ["NONE"]},
                user="65534",
                host_config=engine.api.create_host_config(
                    auto_remove=True,
                    network_mode="none",
                    read_only=True,
                    cap_drop=["ALL"],
                    # In place of the image's anonymous volumes: filling those takes time.
                    tmpfs=dict.fromkeys(local_image.volumes, "") or None,
                ),
            )["Id"]
        except docker.errors.APIError as error:
            if error.status_code == 409:
                return None
            raise
    try:
        with engine.errors("lock this stack"):
            # Attach before the start: `cat` ends when this connection closes.
            connection = engine.api.attach_socket(created, params={"stdin": 1, "stream": 1})
            # A `docker compose` that outlives this process still works on the stack: it inherits the lock.
            connection._sock.set_inheritable(True)
            try:
                engine.api.start(created)
            except docker.errors.APIError as error:
                if error.is_client_error() and error.status_code != 404:
                    raise _UnusableImage from None
                raise
    except BaseException:
        with suppress(EngineError):
            engine.discard(created)
        raise
    return connection


def _release(connection: Any) -> None:
    # Do not wait for the engine: the next run waits until the container is gone.
    with suppress(OSError):
        connection._sock.shutdown(socket.SHUT_RDWR)
    connection._response.close()
    connection.close()


def _locked_by(other: Container, name: str) -> Locked:
    owner = _labels_of(other)
    since = moment(owner["since"]) if owner["since"] else "an unknown time"
    return Locked(
        f"Another run works on this stack: {owner['operation']} by {owner['by']}, since {since}.",
        state="This command changed nothing.",
        hint="Wait until it has ended, then try again. See it: docker chap status\n"
        f"If the machine that works is gone for good: docker rm -f {name}",
    )


def _labels_of(container: Container) -> dict[str, str]:
    holder_facts = {fact: container.labels.get(f"{_LABEL}.{fact}", "") for fact in ("operation", "by", "since")}
    try:
        _ = Value(holder_facts["since"], "The lock", StateError, "since").moment()
    except StateError:
        holder_facts["since"] = ""
    return holder_facts


def _name(project: str) -> str:
    return f"docker-chap-lock-{project}"
