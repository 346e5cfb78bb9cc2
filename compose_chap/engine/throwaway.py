"""Containers and networks of our own, for trying things out. With `engine` the door of the `docker` package.

Each carries a label that names the process that made it, so that a later run finds what a killed one left.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from compose_chap.engine.engine import Engine

_LABEL = "docker-chap.throwaway"


@dataclass(frozen=True)
class Recipe:
    """How to make a container: `network` empty for none at all, `names` what it is called by there.

    `command` and `entrypoint` empty are the image's own. `places` become anonymous volumes, `tmpfs` lie in memory.
    """

    image: str
    environment: Mapping[str, str] = field(repr=False)
    network: str = ""
    names: Sequence[str] = ()
    command: Sequence[str] = ()
    entrypoint: Sequence[str] = ()
    user: str = ""
    places: Sequence[str] = ()
    tmpfs: Sequence[str] = ()


@contextmanager
def throwaway(engine: Engine, recipe: Recipe) -> Iterator[str]:
    """Run a container while the block runs, then remove it with its volumes; hand out its id."""
    with engine.errors(f"start a throwaway container of {recipe.image}"):
        created = engine.api.create_container(
            recipe.image,
            command=list(recipe.command) or None,
            entrypoint=list(recipe.entrypoint) or None,
            user=recipe.user or None,
            environment=dict(recipe.environment),
            volumes=list(recipe.places) or None,
            labels={_LABEL: _owner()},
            network_disabled=not recipe.network,
            networking_config=_network(recipe),
            host_config=engine.api.create_host_config(
                network_mode=recipe.network or None,
                tmpfs=dict(one.partition(":")[::2] for one in recipe.tmpfs) or None,
                init=True,
            ),
        )["Id"]
    try:
        engine.start(created)
        yield created
    finally:
        engine.discard(created)


def _network(recipe: Recipe) -> dict[str, Any] | None:
    return {"EndpointsConfig": {recipe.network: {"Aliases": list(recipe.names)}}} if recipe.network else None


@contextmanager
def private_network(engine: Engine, name: str, *, way_out: bool) -> Iterator[str]:
    """Have a network for throwaway containers alone while the block runs; without `way_out` nothing leads out of it."""
    with engine.errors("make a network"):
        engine.api.create_network(name, driver="bridge", internal=not way_out, labels={_LABEL: _owner()})
    try:
        yield name
    finally:
        _remove_network(engine, name)


def remove_abandoned(engine: Engine) -> None:
    """Remove the containers, and then the networks, that killed runs on this machine left behind."""
    with engine.errors("list the containers"):
        containers = engine.api.containers(all=True, filters={"label": _LABEL})
        networks = engine.api.networks(filters={"label": _LABEL})
    for one in containers:
        if _abandoned(one["Labels"][_LABEL]):
            engine.discard(one["Id"])
    for one in networks:
        if _abandoned(one["Labels"][_LABEL]):
            _remove_network(engine, one["Id"])


def _remove_network(engine: Engine, identity: str) -> None:
    import docker.errors

    with engine.errors("remove a network"):
        try:
            engine.api.remove_network(identity)
        except docker.errors.NotFound:
            pass


def _owner() -> str:
    return f"{os.getpid()}@{socket.gethostname()}"


def _abandoned(owner: str) -> bool:
    process_id, _, host = owner.partition("@")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(process_id), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
