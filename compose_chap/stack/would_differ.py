"""What recreated containers would get that those which run do not have: from changed files, or from another shell.

Compose's config hash is compared first. Where it differs, a dry run says whether Compose would really recreate the
container, and `drift` names the differences, without values that may be secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from compose_chap import compose_labels
from compose_chap.engine.engine import UP_ALONE, Engine
from compose_chap.errors import ChapError, StateError
from compose_chap.model import Container, Project
from compose_chap.processes.process import check as succeeded
from compose_chap.stack import drift

# The containers of services, by the services' names.
_Containers = Mapping[str, Sequence[Container]]

# Another version of Compose gives another hash to the same settings, so this alone is no reason to refuse a way back.
_UNNAMED = "something other than variables, ports, volumes, networks and command"


NOT_COMPARED = "Whether recreated containers get the same settings as before was not checked."


def differences(engine: Engine, project: Project, containers: _Containers) -> dict[str, list[str]]:
    """Return, by service, how a container that Compose makes now would differ from the one that it would replace."""
    recorded = {name: of[0].labels.get(compose_labels.CONFIG_HASH) for name, of in containers.items() if of}
    if not any(recorded.values()):
        return {}
    finished = engine.compose(project, "config", "--hash", "*")
    lines = succeeded(finished, "docker compose config").splitlines()
    hashes = dict(line.split(" ", 1) for line in lines if " " in line)
    changed = [name for name, known in recorded.items() if known and hashes.get(name, known) != known]
    return {
        name: _named(engine, project, name, containers[name][0])
        for name in changed
        if _would_be_recreated(engine, project, name, containers[name])
    }


def text(differing: Mapping[str, Sequence[str]]) -> str:
    """Return such differences for people."""
    return ". ".join(f"{name}: {', '.join(parts)}" for name, parts in differing.items())


def refuse(engine: Engine, project: Project, containers: _Containers, *, variables_only: bool = False) -> str:
    """Raise StateError where recreated containers would differ by name; with `variables_only`, in their variables.

    Where that cannot be compared, return a note for people: a way back is not refused for that alone. Else "".
    """
    try:
        differing = differences(engine, project, containers)
    except ChapError as error:
        return f"{NOT_COMPARED} {error.message}"
    kind = "variables " if variables_only else ""
    chosen = {
        name: [part for part in parts if part.startswith(kind) and part != _UNNAMED]
        for name, parts in differing.items()
    }
    if named := {name: parts for name, parts in chosen.items() if parts}:
        raise StateError(
            f"A recreated container would differ from the one that runs. {text(named)}.",
            state="Nothing was changed.",
            hint="Set variables as they were in the shell that started CHAP, or write them into .env, and name all of"
            " its Compose files.\nThen run the command again. If this is what you want, add --allow-drift.",
        )
    return ""


def _named(engine: Engine, project: Project, name: str, container: Container) -> list[str]:
    config = engine.compose_config(project)
    written = config["services"].get(name, {})
    differing = drift.differences(*engine.creation(container.id), written, config)
    return differing or [_UNNAMED]


def _would_be_recreated(engine: Engine, project: Project, name: str, containers: Sequence[Container]) -> bool:
    # The hash of Compose 2.26 also depends on which dependencies were started along: after --no-deps, as in every
    # upgrade, none. A label has their names.
    first = containers[0]
    recorded = first.labels.get(compose_labels.DEPENDS_ON, "")
    started = [name, *(entry.partition(":")[0] for entry in recorded.split(",") if entry)]
    finished = engine.compose(project, "--dry-run", *UP_ALONE, f"--scale={name}={len(containers)}", *started)
    recreated = rf"Container {re.escape(first.name)} +Recreate"
    return finished.status != 0 or bool(re.search(recreated, finished.stderr + finished.stdout))
