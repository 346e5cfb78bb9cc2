"""What a CHAP stack is: containers, services and their roles. Pure: no engine, no files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from compose_chap.errors import StackError
from compose_chap.image import Reference
from compose_chap.units import clipped

# PostgreSQL truncates longer names, at this many bytes.
LONGEST_NAME = 63


class Role(Enum):
    """What a service is for."""

    API = "api"
    WORKER = "worker"
    DATABASE = "database"
    BROKER = "broker"
    MODEL = "model"
    DHIS2 = "dhis2"
    DHIS2_DATABASE = "dhis2-database"
    POOLER = "pooler"
    OTHER = "other"


@dataclass(frozen=True)
class Project:
    """A Compose project as `docker compose` needs it: name, folder, files and env files, all absolute.

    `absent` are the files that are not on this machine, for example when the engine is on another.
    """

    name: str
    directory: Path
    files: tuple[Path, ...]
    env_files: tuple[Path, ...] = ()
    absent: tuple[Path, ...] = ()

    @property
    def local(self) -> bool:
        """Whether the main file, and with it the folder of records, is on this machine."""
        return not self.absent or self.absent[0] != self.files[0]

    @property
    def compose(self) -> tuple[str, ...]:
        """The arguments after `docker` that point Compose at exactly this project, from any folder."""
        words = ["compose", "-p", self.name, "--project-directory", str(self.directory)]
        words += [word for file in self.files for word in ("-f", str(file))]
        words += [word for file in self.env_files for word in ("--env-file", str(file))]
        return tuple(words)

    def by_hand(self, *words: str) -> str:
        """Return the shell command with which a person, in any folder, runs `docker compose` with these words."""
        return shlex.join(["docker", *self.compose, *words])


@dataclass(frozen=True)
class Origin:
    """The stack that a record belongs to: project, engine's id and name. Empty means any: older records lack it."""

    project: str = ""
    engine: str = ""
    server: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the origin as records store it."""
        return {"project": self.project, "engine": self.engine, "server": self.server}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Origin:
        """Return the origin in a run's record, empty parts where the record lacks them."""
        stack = record.get("stack") or {}
        return cls(*(str(stack.get(part, "")) for part in ("project", "engine", "server")))

    def owns(self, other: Origin) -> bool:
        """Whether a record with the origin `other` belongs to this stack."""
        pairs = zip((self.project, self.engine), (other.project, other.engine))
        return all(own == its or not (own and its) for own, its in pairs)

    def __str__(self) -> str:
        return f"'{self.project}'" + (f" on {self.server}" if self.server else "")


@dataclass(frozen=True)
class Container:
    """A container of a Compose project, as the engine described it.

    `image` is the reference it was created from, `image_id` the image it was then. `command` is entrypoint and
    command together. `names` and `addresses` are those on its networks; `links` maps names that only this container
    knows to a container's name or address. `published` are the addresses on the engine's machine, `host:port`.
    `environment` holds passwords: never print it.
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
    links: Mapping[str, str] = field(default_factory=dict)
    published: tuple[str, ...] = ()

    def knows_as(self, host: str) -> str:
        """Return the name or address that a host name resolves to in this container."""
        # The engine's DNS ignores case.
        plain = host.lower().removesuffix(".")
        return self.links.get(plain, plain).lower()

    def answers_to(self, host: str) -> bool:
        """Whether a name or address, in lower case, is this container's."""
        return host in self.addresses or host in map(str.lower, self.names)

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


# SQLAlchemy's own pattern, as CHAP reads the URL: a password may hold any character but @, a host keeps its case.
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
        """Return the URL in an environment. All parts are empty when SQLAlchemy could not read it."""
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

    def single(self, role: Role) -> Service:
        """Return the only service with this role. Raise StackError when there is none or more than one."""
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
        return self.single(Role.API)

    @property
    def database(self) -> Service:
        """The PostgreSQL service that CHAP's settings point at. Raise StackError when it has no container."""
        candidates = self.of(Role.DATABASE)
        if not candidates and (pooler := self.pooler):
            raise StackError(
                f"CHAP reaches its database through '{pooler.name}' ({pooler.image}), a connection pooler. Which server"
                " is behind it cannot be seen, and it keeps connections open, which block the change.",
                hint="Let CHAP_DATABASE_URL name the PostgreSQL service itself, then recreate CHAP: "
                + self.project.by_hand("up", "-d", "--no-deps", *(service.name for service in self.writers)),
            )
        if not candidates:
            host = self.database_host
            create = (
                f"If its container is gone: {self.project.by_hand('up', '-d', '--no-deps', host)}\n" if host else ""
            )
            raise StackError(
                f"CHAP's database is at '{host or 'nowhere'}', and project '{self.project.name}' has no container of"
                " that name.",
                hint=f"{create}If it is outside of the project, this tool leaves it alone: back it up where it runs.",
            )
        return self.single(Role.DATABASE)

    @property
    def pooler(self) -> Service | None:
        """The connection pooler that CHAP's settings point at, None where they point at something else."""
        host = self.api.containers[0].knows_as(self.database_host)
        return next((value for value in self.of(Role.POOLER) if value.containers[0].answers_to(host)), None)

    @property
    def database_host(self) -> str:
        """The name or address under which CHAP looks for its database, most often the name of its service."""
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
        admin = server.get("POSTGRES_USER") or "postgres"
        # PostgreSQL truncates the name in a connection just as the name in CREATE DATABASE.
        return DatabaseAccess(clipped(url.database or server.get("POSTGRES_DB", admin), LONGEST_NAME), owner, admin)
