"""Temporary containers of our own: none has a network.

Each has a label that names the process that made it, so that a later run can remove what a killed run left behind.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

from compose_chap.engine.engine import Engine
from compose_chap.errors import EngineError

_LABEL = "docker-chap.throwaway"
_MOST_MEMORY = 2 << 30
_MOST_PROCESSES = 256


@dataclass(frozen=True)
class Recipe:
    """How to make a container. It has no network but itself, and calls itself by all its `names`.

    `shares` is the id of another container whose network, and names, it has instead.
    Where `command` and `entrypoint` are empty, the image's own are used. `volumes` are the paths of anonymous volumes,
    `tmpfs` those of file systems in memory.
    A `confined` container gets no capabilities, no new privileges, a read-only root, and limits on memory and
    processes. Its command reads its standard input, which closes when this process ends, however it dies;
    when the command ends, the engine itself removes the container.
    """

    image: str
    environment: Mapping[str, str] = field(repr=False)
    names: Sequence[str] = ()
    shares: str = ""
    command: Sequence[str] = ()
    entrypoint: Sequence[str] = ()
    user: str = ""
    volumes: Sequence[str] = ()
    tmpfs: Sequence[str] = ()
    confined: bool = False


@contextmanager
def throwaway(engine: Engine, recipe: Recipe) -> Iterator[str]:
    """Run a container while the block runs, then remove it with its volumes; yield its id."""
    with engine.errors(f"start a throwaway container of {recipe.image}"):
        created = engine.api.create_container(
            recipe.image,
            command=list(recipe.command) or None,
            entrypoint=list(recipe.entrypoint) or None,
            user=recipe.user or None,
            environment=dict(recipe.environment),
            volumes=list(recipe.volumes) or None,
            labels={_LABEL: _owner()},
            stdin_open=recipe.confined,
            host_config=engine.api.create_host_config(
                network_mode=f"container:{recipe.shares}" if recipe.shares else "none",
                tmpfs=dict(tmpf.partition(":")[::2] for tmpf in recipe.tmpfs) or None,
                init=True,
                # Without a network there is no DNS, but the names must still resolve.
                extra_hosts={name: "127.0.0.1" for name in recipe.names},
                **(_confinement(engine.memory) if recipe.confined else {}),
            ),
        )["Id"]
    try:
        with _life_line(engine, created) if recipe.confined else nullcontext():
            engine.start(created)
            yield created
    finally:
        # Its work is done, or has failed for its own reason. What cannot be removed now, a later run removes.
        with suppress(EngineError):
            engine.discard(created)


def _confinement(memory: int) -> dict[str, Any]:
    most = min(_MOST_MEMORY, memory // 2)
    return {
        "auto_remove": True,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": most,
        "memswap_limit": most,
        "pids_limit": _MOST_PROCESSES,
    }


@contextmanager
def _life_line(engine: Engine, container: str) -> Iterator[None]:
    # The engine sees the end of this connection, and with it that of the container's standard input.
    with engine.errors("attach to a container"):
        line = engine.api.attach_socket(container, params={"stdin": 1, "stream": 1})
    try:
        yield
    finally:
        # The SDK keeps the connection behind this.
        line._response.close()
        line.close()


def remove_abandoned(engine: Engine) -> None:
    """Remove the containers that killed runs on this machine left behind."""
    with engine.errors("list the containers"):
        containers = engine.api.containers(all=True, filters={"label": _LABEL})
    for container in containers:
        if _abandoned(container["Labels"][_LABEL]):
            engine.discard(container["Id"])


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
