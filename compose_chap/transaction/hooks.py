"""The pre-stop and post-start hooks of services in a Compose file, run as Compose runs them.

We stop and start containers by their id, to keep the same container; so we run the hooks that Compose would run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compose_chap.engine.world import World
from compose_chap.errors import ChapError, EngineError
from compose_chap.model import Container, Project
from compose_chap.project.variables import unescaped

PRE_STOP, POST_START = "pre_stop", "post_start"

# The hooks of each kind, by service.
Hooks = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]


def of(world: World, project: Project) -> Hooks:
    """Return the hooks of a project's services. Files that Compose cannot read have none."""
    try:
        services = world.engine.compose_config(project)["services"]
    except ChapError:
        return {}
    return {
        kind: {name: service[kind] for name, service in services.items() if service.get(kind)}
        for kind in (PRE_STOP, POST_START)
    }


def run(world: World, hooks: Hooks, kind: str, container: Container, *, forgiving: bool = False) -> None:
    """Run the hooks of one kind of a container in turn. Raise EngineError when one fails, unless `forgiving`."""
    for hook in hooks.get(kind, {}).get(container.service, ()):
        try:
            _run(world, container, kind, hook)
        except EngineError:
            if not forgiving:
                raise


def _run(world: World, container: Container, kind: str, hook: Mapping[str, Any]) -> None:
    # Compose writes null for a variable that the shell does not have.
    command = hook["command"] if isinstance(hook["command"], list) else [hook["command"]]
    environment = {name: unescaped(value) for name, value in (hook.get("environment") or {}).items() if value}
    done = world.engine.run(
        container.id,
        [unescaped(word) for word in command],
        stdin=b"",
        environment=environment,
        user=str(hook.get("user") or ""),
        folder=str(hook.get("working_dir") or ""),
        privileged=bool(hook.get("privileged")),
    )
    if done.status != 0:
        raise EngineError(f"The {kind} hook of {container.name} failed (exit status {done.status}): {done.last_lines}")
