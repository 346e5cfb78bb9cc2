"""The right to change one stack, held on its engine: who works from another machine, with files of its own, sees it.

A container stands for it, because an engine gives a name only once. It does nothing but read its standard input,
which this process holds open. When the process dies, however, its connection ends, with that the container, and
the engine removes it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from compose_chap.engine.engine import Engine
from compose_chap.engine.world import World
from compose_chap.errors import EngineError, Locked, StateError
from compose_chap.model import Container, Role, Stack
from compose_chap.reading import Value
from compose_chap.records import lock
from compose_chap.records.run_records import operator
from compose_chap.units import moment

_LABEL = "docker-chap.lock"

# A container that was just let go, or whose process was killed, takes a moment to be gone.
_GOING = 5.0
_PAUSE = 0.25


@contextmanager
def locked(world: World, stack: Stack, operation: str) -> Iterator[None]:
    """Hold the lock of a stack while the block runs: beside its files, where they are here, and on its engine.

    Raise Locked, with who holds it, when another run does.
    """
    project, services = stack.project, (*stack.of(Role.DATABASE), *stack.services)
    images = [container.image_id for service in services for container in service.containers]
    here = lock.locked(project.directory, operation, world.clock()) if project.here else nullcontext()
    with here, held(world, project.name, images, operation):
        yield


@contextmanager
def held(world: World, project: str, images: Iterable[str], operation: str) -> Iterator[None]:
    """Hold the lock of a project on its engine alone while the block runs.

    The container is made of the first of `images` that the engine has and that can do it; where there is none, the
    engine has no lock, and that is told. Raise Locked when another run holds it.
    """
    labels = {
        _LABEL: project,
        f"{_LABEL}.operation": operation,
        f"{_LABEL}.by": operator(),
        f"{_LABEL}.since": world.clock().isoformat(),
    }
    connection = None
    for image in dict.fromkeys(images):
        with suppress(_Unfit):
            connection = _take(world.engine, _name(project), image, labels)
            break
    else:
        world.notify("check", "the lock: no image of the stack can hold one on the engine, only this folder is locked")
    try:
        yield
    finally:
        if connection:
            _let_go(connection)


def holder(engine: Engine, project: str) -> dict[str, str] | None:
    """Return who works on a project now, as `operation`, `by` and `since` (ISO 8601, or empty); None for nobody."""
    found = engine.container(_name(project))
    return _said(found) if found and found.running else None


class _Unfit(Exception):
    """The engine has no such image, or nothing in it can read a standard input."""


def _take(engine: Engine, name: str, image: str, labels: Mapping[str, str]) -> Any:
    """Return the connection that holds the lock. Raise Locked when another run has it, _Unfit."""
    patience = _GOING
    while True:
        if connection := _made(engine, name, image, labels):
            return connection
        other = engine.container(name)
        if other and patience <= 0 and (other.running or patience < -_GOING):
            raise _held_by(other, name)
        if patience < -_GOING:
            raise EngineError(f"The engine gives nobody the name {name}.", state="This command changed nothing.")
        if other and patience <= 0:
            # Its process died between making and starting it. One that is only slow cannot start it then, and ends.
            with suppress(EngineError):
                engine.discard(other.id)
        time.sleep(_PAUSE)
        patience -= _PAUSE


def _made(engine: Engine, name: str, image: str, labels: Mapping[str, str]) -> Any:
    """Return the standard input of a container with this name, None where there is one already. Raise _Unfit."""
    import docker.errors

    found = engine.image(image)
    if found is None:
        raise _Unfit
    with engine.errors("lock this stack"):
        try:
            created = engine.api.create_container(
                image,
                entrypoint=["cat"],
                stdin_open=True,
                name=name,
                # An image that Compose built has the labels of its stack, and nobody may take this for a part of that.
                labels={**{label: "" for label in found.labels if label.startswith("com.docker.compose.")}, **labels},
                healthcheck={"Test": ["NONE"]},
                user="65534",
                host_config=engine.api.create_host_config(
                    auto_remove=True,
                    network_mode="none",
                    read_only=True,
                    cap_drop=["ALL"],
                    # Not the anonymous volumes that the image would bring: filling them takes time.
                    tmpfs=dict.fromkeys(found.volumes, "") or None,
                ),
            )["Id"]
        except docker.errors.APIError as error:
            if error.status_code == 409:
                return None
            raise
    try:
        with engine.errors("lock this stack"):
            # Open before it starts, and only once: what it reads ends with this connection.
            connection = engine.api.attach_socket(created, params={"stdin": 1, "stream": 1})
            # A Compose that outlives this process still works on the stack: it inherits the lock.
            connection._sock.set_inheritable(True)
            try:
                engine.api.start(created)
            except docker.errors.APIError as error:
                if error.is_client_error() and error.status_code != 404:
                    raise _Unfit from None
                raise
    except BaseException:
        with suppress(EngineError):
            engine.discard(created)
        raise
    return connection


def _let_go(connection: Any) -> None:
    # The engine is not waited for: whoever comes next waits until the container is gone.
    with suppress(OSError):
        connection._sock.shutdown(socket.SHUT_RDWR)
    connection._response.close()
    connection.close()


def _held_by(other: Container, name: str) -> Locked:
    who = _said(other)
    since = moment(who["since"]) if who["since"] else "an unknown time"
    return Locked(
        f"Another run works on this stack: {who['operation']} by {who['by']}, since {since}.",
        state="This command changed nothing.",
        hint="Wait until it has ended, then try again. See it with: docker chap status\n"
        f"If the machine that works is gone for good: docker rm -f {name}",
    )


def _said(found: Container) -> dict[str, str]:
    who = {fact: found.labels.get(f"{_LABEL}.{fact}", "") for fact in ("operation", "by", "since")}
    try:
        _ = Value(who["since"], "The lock", StateError, "since").moment()
    except StateError:
        who["since"] = ""
    return who


def _name(project: str) -> str:
    return f"docker-chap-lock-{project}"
