"""The check of what runs against what the files say: what a recreated container would get, and this one has not.

Compose's own config hash is asked first. Where it differs, a dry run says whether the container would really be made
anew, and `drift` names the difference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from compose_chap import drift
from compose_chap.process import check as succeeded
from compose_chap.stack import Service
from compose_chap.subject import Subject
from compose_chap.verify import Check


def _drift(subject: Subject) -> Check:
    finished = subject.world.engine.compose(subject.stack.project, "config", "--hash", "*")
    hashes = dict(
        line.split(" ", 1) for line in succeeded(finished, "docker compose config").splitlines() if " " in line
    )
    found = {service.name: _differences(subject, service, hashes) for service in subject.stack.writers}
    if differing := [f"{name}: {', '.join(told)}" for name, told in found.items() if told]:
        return Check(
            "",
            "fail",
            f"What runs is not what the files say. {'. '.join(differing)}.",
            "A recreated container would get the new settings. Put them back as they were, or use --allow-drift.",
            {"services": {name: told for name, told in found.items() if told}},
        )
    return Check("", "ok", "The running containers are what the files say.")


def _differences(subject: Subject, service: Service, hashes: Mapping[str, str]) -> list[str]:
    """Name what differs between a service's containers and the files, never a value that may be secret."""
    wanted = subject.model.services[service.name].image
    found = [
        f"{one.name} runs {one.image}, the files say {wanted}"
        for one in service.containers
        if wanted is not None and str(wanted) != one.image
    ]
    first = service.containers[0]
    recorded = first.labels.get("com.docker.compose.config-hash")
    if not recorded or hashes.get(service.name, recorded) == recorded:
        return found
    if not found and not _would_be_made_anew(subject, service):
        return []
    config = subject.world.engine.compose_config(subject.stack.project)
    written = config["services"].get(service.name, {})
    found += drift.differences(*subject.world.engine.creation(first.id), written, config)
    return found or ["something else than variables, ports, volumes, networks and command"]


def _would_be_made_anew(subject: Subject, service: Service) -> bool:
    # Compose 2.26 hashes also which of the services that a service depends on it was told to start: after --no-deps,
    # as in every upgrade, none. A label keeps their names.
    first = service.containers[0]
    recorded = first.labels.get("com.docker.compose.depends_on", "")
    told = [service.name, *(entry.partition(":")[0] for entry in recorded.split(",") if entry)]
    scale = f"--scale={service.name}={len(service.containers)}"
    words = ("--dry-run", "up", "-d", "--no-deps", "--no-build", "--pull", "never", scale, *told)
    finished = subject.world.engine.compose(subject.stack.project, *words)
    made_anew = rf"Container {re.escape(first.name)} +Recreate"
    return finished.status != 0 or bool(re.search(made_anew, finished.stderr + finished.stdout))


CHECK = ("drift", ("stack", "compose", "compose_files"), _drift)
