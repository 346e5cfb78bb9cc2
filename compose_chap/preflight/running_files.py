"""Checks of the running containers against the files: how a recreated container would differ.

When the files name another image than the running one, a rollback would be impossible: this cannot be overridden. For
everything else, Compose's config hash is compared first. Where it differs, a dry run says whether Compose would really
recreate the container, and `drift` names the differences.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from compose_chap import compose_labels
from compose_chap.check import Finding, fail, ok
from compose_chap.engine.engine import UP_ALONE
from compose_chap.model import Service
from compose_chap.preflight.subject import Subject
from compose_chap.processes.process import check as succeeded
from compose_chap.stack import drift


def _named_images(subject: Subject) -> Finding:
    differing = {
        f"{container.name} runs {container.image}, the files say {wanted}": service.name
        for service in subject.stack.writers
        if service.name in subject.model.services and (wanted := subject.model.services[service.name].image) is not None
        for container in service.containers
        if str(wanted) != container.image
    }
    if differing:
        names = dict.fromkeys(differing.values())
        return fail(
            f"{'. '.join(differing)}. An upgrade that fails could not go back to what runs.",
            "Let the files name what runs: docker chap pin VERSION\nOr first run what they name: "
            + subject.stack.project.by_hand("up", "-d", "--no-deps", *names),
        )
    return ok("The files name the images that run.")


def _drift(subject: Subject) -> Finding:
    finished = subject.world.engine.compose(subject.stack.project, "config", "--hash", "*")
    hashes = dict(
        line.split(" ", 1) for line in succeeded(finished, "docker compose config").splitlines() if " " in line
    )
    differences = {service.name: _differences(subject, service, hashes) for service in subject.stack.writers}
    if differing := [
        f"{name}: {', '.join(differing_names)}" for name, differing_names in differences.items() if differing_names
    ]:
        return fail(
            f"What runs differs from the files. {'. '.join(differing)}.",
            "A recreated container would get the new settings. Put them back as they were, or use --allow-drift.",
            {"services": {name: differing_names for name, differing_names in differences.items() if differing_names}},
        )
    return ok("The running containers are what the files say.")


def _differences(subject: Subject, service: Service, hashes: Mapping[str, str]) -> list[str]:
    """Return the differences between a service's containers and the files, without values that may be secret."""
    first = service.containers[0]
    recorded = first.labels.get(compose_labels.CONFIG_HASH)
    if not recorded or hashes.get(service.name, recorded) == recorded or not _would_be_recreated(subject, service):
        return []
    config = subject.world.engine.compose_config(subject.stack.project)
    written = config["services"].get(service.name, {})
    differing = drift.differences(*subject.world.engine.creation(first.id), written, config)
    return differing or ["something other than variables, ports, volumes, networks and command"]


def _would_be_recreated(subject: Subject, service: Service) -> bool:
    # The hash of Compose 2.26 also depends on which dependencies were started along: after --no-deps, as in every
    # upgrade, none. A label has their names.
    first = service.containers[0]
    recorded = first.labels.get(compose_labels.DEPENDS_ON, "")
    started = [service.name, *(entry.partition(":")[0] for entry in recorded.split(",") if entry)]
    scale = f"--scale={service.name}={len(service.containers)}"
    finished = subject.world.engine.compose(subject.stack.project, "--dry-run", *UP_ALONE, scale, *started)
    recreated = rf"Container {re.escape(first.name)} +Recreate"
    return finished.status != 0 or bool(re.search(recreated, finished.stderr + finished.stdout))


CHECKS = (
    ("named_images", ("stack", "compose_files"), _named_images),
    ("drift", ("compose", "named_images"), _drift),
)
