"""Find the CHAP stacks among the containers of an engine. Pure: no engine, no files.

Services are recognised by what they are (image, command, environment), never by their name:
operators rename them, and the two upstream stacks already differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from compose_chap import compose_labels
from compose_chap.image import Reference
from compose_chap.model import Container, DatabaseUrl, Project, Role, Service, Stack

_POOLERS = ("pgbouncer", "pgpool", "pgcat", "pgdog", "odyssey", "supavisor")


def detect(containers: Iterable[Container], *marks: Role) -> tuple[Stack, ...]:
    """Return every CHAP stack among the containers of an engine, ordered by project name.

    A project is a CHAP stack when one of its services is CHAP's API, or has one of the roles `marks`. One-off
    containers (`docker compose run`) do not count.
    """
    projects: dict[str, list[Container]] = {}
    for container in containers:
        if container.project and container.labels.get(compose_labels.RUN_ONCE, "False") != "True":
            projects.setdefault(container.project, []).append(container)

    stacks = (_stack(name, members) for name, members in sorted(projects.items()))
    return tuple(stack for stack in stacks if any(service.role in (Role.API, *marks) for service in stack.services))


def classify(image: str, command: Sequence[str], environment: Mapping[str, str], dockerfile: str = "") -> Role:
    """Return the role of a service by what it runs. Only `detect` can say which database is CHAP's.

    The marks come from the Compose files of chap-core and docker-dhis2-core.
    """
    name = Reference.parse(image).name
    words = " ".join(command)
    if name == "chap-worker" or ("celery" in words and "chap" in words) or dockerfile.startswith("Dockerfile.worker"):
        return Role.WORKER
    serves = dockerfile or re.search(r"gunicorn|uvicorn|fastapi", words)
    if name == "chap-core" or ("CHAP_DATABASE_URL" in environment and serves):
        return Role.API
    if "SERVICEKIT_ORCHESTRATOR_URL" in environment:
        return Role.MODEL
    if name in ("valkey", "redis") or re.search(r"(^|[/ ])(valkey|redis)-server\b", words):
        return Role.BROKER
    if any(pooler in name or re.search(rf"(^|[/ ]){pooler}\b", words) for pooler in _POOLERS):
        return Role.POOLER
    if name in ("postgres", "postgis", "postgresql"):
        return Role.DHIS2_DATABASE if "dhis" in environment.get("POSTGRES_DB", "") else Role.OTHER
    if Reference.parse(image).repository.endswith(("dhis2/core", "dhis2/dhis2-core", "/dhis2-core")):
        return Role.DHIS2
    return Role.OTHER


def _stack(name: str, containers: Sequence[Container]) -> Stack:
    groups: dict[str, list[Container]] = {}
    for container in sorted(containers, key=lambda container: container.name):
        groups.setdefault(container.service, []).append(container)

    roles = {
        service: classify(members[0].image, members[0].command, members[0].environment)
        for service, members in groups.items()
    }
    apis = [groups[service][0] for service, role in roles.items() if role is Role.API]
    host = apis[0].knows_as(DatabaseUrl.of(apis[0].environment).host) if apis else ""
    for service, members in groups.items():
        if members[0].answers_to(host) and roles[service] in (Role.OTHER, Role.DHIS2_DATABASE):
            roles[service] = Role.DATABASE

    services = tuple(Service(service, roles[service], tuple(members)) for service, members in sorted(groups.items()))
    newest = max(containers, key=lambda container: container.started_at)
    return Stack(project(name, apis[0].labels if apis else newest.labels), services)


def project(name: str, labels: Mapping[str, str]) -> Project:
    """Return the project as Compose recorded it in the labels of a container."""
    directory = labels.get(compose_labels.DIRECTORY, "")
    if not directory.startswith("/"):
        directory = "/"  # a label that Compose did not write; it must not mean the current folder

    def paths(label: str) -> tuple[Path, ...]:
        return tuple(map(Path, _listed(labels.get(label, ""), directory)))

    return Project(name, Path(directory), paths(compose_labels.CONFIG_FILES), paths(compose_labels.ENV_FILES))


def _listed(text: str, directory: str) -> list[str]:
    """Return the paths that Compose joined with commas; they are absolute, and may hold commas themselves."""
    # No path holds a NUL: it stands for the project's folder, whose own commas must not split.
    hidden = text.replace(f"{directory}/", "\0/") if "," in directory else text
    return [part.replace("\0", directory) for part in re.split(r",(?=[/\0]|-(?:,|$)|$)", hidden) if part]
