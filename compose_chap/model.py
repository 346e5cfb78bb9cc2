"""What a CHAP stack is: containers, services and their roles. Pure: no engine, no files.

Services are recognised by what they are (image, command, environment), never by their name:
operators rename them, and the two upstream stacks already differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from compose_chap.errors import StackError
from compose_chap.image import Reference


class Role(Enum):
    """What a service is for."""

    API = "api"
    WORKER = "worker"
    DATABASE = "database"
    BROKER = "broker"
    MODEL = "model"
    DHIS2 = "dhis2"
    DHIS2_DATABASE = "dhis2-database"
    OTHER = "other"


@dataclass(frozen=True)
class Project:
    """A Compose project as `docker compose` has to be told of it: name, folder, files and env files, all absolute.

    `absent` are those of the files that are not on this machine, as where the engine is elsewhere.
    """

    name: str
    directory: Path
    files: tuple[Path, ...]
    env_files: tuple[Path, ...] = ()
    absent: tuple[Path, ...] = ()

    @property
    def here(self) -> bool:
        """Whether the main file, with what is kept beside it, is on this machine."""
        return not self.absent or self.absent[0] != self.files[0]


@dataclass(frozen=True)
class Origin:
    """Which stack a record is of: its project, its engine's id and name. What is empty is any: older ones lack it."""

    project: str = ""
    engine: str = ""
    server: str = ""

    def to_json(self) -> dict[str, str]:
        """Return it as a record can hold it."""
        return {"project": self.project, "engine": self.engine, "server": self.server}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Origin:
        """Return which stack a run is of, as far as its record says."""
        return cls(**record.get("stack", {}))

    def owns(self, other: Origin) -> bool:
        """Whether a record of `other` is one of this stack."""
        pairs = zip((self.project, self.engine), (other.project, other.engine))
        return all(own == its or not (own and its) for own, its in pairs)

    def __str__(self) -> str:
        return f"'{self.project}'" + (f" on {self.server}" if self.server else "")


@dataclass(frozen=True)
class Container:
    """A container of a Compose project, as the engine described it.

    `image` is the reference it was created from, `image_id` what that was. `command` is entrypoint and
    command in one. `names` and `addresses` are what it is known by on its networks.
    `environment` holds passwords: it is for the process only, never for output.
    """

    id: str
    name: str
    project: str
    service: str
    image: str
    image_id: str
    state: str
    health: str
    exit_status: int
    restarts: int
    started_at: str
    command: tuple[str, ...]
    names: frozenset[str]
    addresses: frozenset[str]
    labels: Mapping[str, str] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)

    @property
    def running(self) -> bool:
        """Whether its process runs now."""
        return self.state == "running"


@dataclass(frozen=True)
class Service:
    """A service of the stack with its role and its containers (several when it is scaled)."""

    name: str
    role: Role
    containers: tuple[Container, ...]

    @property
    def image(self) -> Reference:
        """The image its first container was created from."""
        return Reference.parse(self.containers[0].image)

    @property
    def running(self) -> bool:
        """Whether every container of it runs."""
        return all(container.running for container in self.containers)


# SQLAlchemy's own pattern, with which CHAP reads it: a password may hold every sign but @, a host keeps its case.
_DATABASE_URL = re.compile(
    r"[\w+]+://(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?:\[(?P<ipv6>[^/?]+)\]|(?P<name>[^/:?]+))?(?::(?P<port>[^/?]*))?(?:/(?P<database>[^?]*))?"
)


@dataclass(frozen=True)
class DatabaseUrl:
    """CHAP_DATABASE_URL in its parts, user and password decoded; each is empty where it has none."""

    user: str = ""
    password: str = field(default="", repr=False)
    host: str = ""
    port: str = ""
    database: str = ""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> DatabaseUrl:
        """Return that of a container or service. One that SQLAlchemy could not read has no parts."""
        match = _DATABASE_URL.match(environment.get("CHAP_DATABASE_URL", ""))
        user, password, ipv6, name, port, database = match.groups("") if match else [""] * 6
        return cls(unquote(user), unquote(password), name or ipv6, port, database)


@dataclass(frozen=True)
class DatabaseAccess:
    """Where CHAP keeps its data: the database's name, its owner, and the role that may create databases."""

    name: str
    owner: str
    admin: str


@dataclass(frozen=True)
class Stack:
    """A CHAP stack: one Compose project with one API, its workers and its database."""

    project: Project
    services: tuple[Service, ...]

    def of(self, role: Role) -> tuple[Service, ...]:
        """Return the services with this role, none, one or more."""
        return tuple(service for service in self.services if service.role is role)

    def one(self, role: Role) -> Service:
        """Return the one service with this role. Raise StackError when there is none or more than one."""
        services = self.of(role)
        if len(services) == 1:
            return services[0]
        if not services:
            raise StackError(
                f"Project '{self.project.name}' has no {role.value} service.",
                hint=f"Look at it with: docker compose -p {self.project.name} ps -a",
            )
        names = ", ".join(service.name for service in services)
        raise StackError(f"Project '{self.project.name}' has several {role.value} services: {names}.")

    @property
    def api(self) -> Service:
        """The service that serves CHAP's REST API and migrates the database at start."""
        return self.one(Role.API)

    @property
    def database(self) -> Service:
        """The PostgreSQL service that CHAP's own settings point at. Raise StackError when no container is it."""
        found = self.of(Role.DATABASE)
        if not found:
            host = self.database_host or "nowhere"
            raise StackError(
                f"CHAP's database is at '{host}', and project '{self.project.name}' has no container of that name.",
                hint=f"If its container is gone: cd {self.project.directory} && docker compose up -d --no-deps {host}\n"
                "If it is outside of the project, this tool leaves it alone: back it up where it runs.",
            )
        return self.one(Role.DATABASE)

    @property
    def database_host(self) -> str:
        """The name under which CHAP looks for its database, in a project that of its service."""
        return self.database_url.host

    @property
    def database_url(self) -> DatabaseUrl:
        """Where and as whom CHAP looks for its database. It holds the password."""
        return DatabaseUrl.of(self.api.containers[0].environment)

    @property
    def writers(self) -> tuple[Service, ...]:
        """The services that write to the database and that an upgrade replaces: the API and every worker."""
        return (self.api, *self.of(Role.WORKER))

    @property
    def workers(self) -> int:
        """How many worker containers there are."""
        return sum(len(service.containers) for service in self.of(Role.WORKER))

    @property
    def access(self) -> DatabaseAccess:
        """Name, owner and administrator of CHAP's database, from CHAP's settings and the database container's."""
        url, server = self.database_url, self.database.containers[0].environment
        owner = url.user or server.get("POSTGRES_USER", "postgres")
        admin = server.get("POSTGRES_USER") or owner
        return DatabaseAccess(url.database or server.get("POSTGRES_DB", admin), owner, admin)


def detect(containers: Iterable[Container], *marks: Role) -> tuple[Stack, ...]:
    """Return every CHAP stack among the containers of an engine, ordered by project name.

    A project is a CHAP stack when one of its services is CHAP's API, or has one of the roles `marks`. One-off
    containers (`docker compose run`) do not count.
    """
    projects: dict[str, list[Container]] = {}
    for container in containers:
        if container.project and container.labels.get("com.docker.compose.oneoff", "False") != "True":
            projects.setdefault(container.project, []).append(container)

    stacks = (_stack(name, members) for name, members in sorted(projects.items()))
    return tuple(stack for stack in stacks if any(service.role in (Role.API, *marks) for service in stack.services))


def classify(image: str, command: Sequence[str], environment: Mapping[str, str], dockerfile: str = "") -> Role:
    """Return the role of a service by what it runs. The database of CHAP is told apart by `detect` alone.

    The sources of these marks are the Compose files of chap-core and docker-dhis2-core.
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
    # The engine's name service takes CHAP-DB and chap-db for one.
    host = DatabaseUrl.of(apis[0].environment).host.lower() if apis else ""
    for service, members in groups.items():
        if host in map(str.lower, members[0].names) and roles[service] in (Role.OTHER, Role.DHIS2_DATABASE):
            roles[service] = Role.DATABASE

    services = tuple(Service(service, roles[service], tuple(members)) for service, members in sorted(groups.items()))
    newest = max(containers, key=lambda container: container.started_at)
    return Stack(project(name, apis[0].labels if apis else newest.labels), services)


def project(name: str, labels: Mapping[str, str]) -> Project:
    """Return the project as Compose recorded it in the labels of a container."""
    prefix = "com.docker.compose.project."

    def paths(label: str) -> tuple[Path, ...]:
        return tuple(Path(path) for path in labels.get(prefix + label, "").split(",") if path)

    return Project(
        name, Path(labels.get(prefix + "working_dir", "/")), paths("config_files"), paths("environment_file")
    )
