"""The Docker engine and `docker compose`. The only door of the `docker` package; knows nothing of CHAP.

Both ways to the engine, the API and the children that run `docker compose`, start from the one command
that docker was called with, so that they can never talk to two different engines.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from compose_chap import compose_labels, timeline
from compose_chap.engine.description import container_of
from compose_chap.engine.execution import Execution, bounded
from compose_chap.engine.execution import watched as under_watchdog
from compose_chap.engine.failures import engine_errors
from compose_chap.engine.http import Http
from compose_chap.engine.link import Link, link_of
from compose_chap.engine.registries import docker_login
from compose_chap.engine.registries.address import is_loopback, is_within
from compose_chap.engine.sdk import connect
from compose_chap.errors import EngineError
from compose_chap.model import Container, Origin, Project
from compose_chap.processes import process
from compose_chap.processes.process import Finished

if TYPE_CHECKING:
    from docker import APIClient

T = TypeVar("T")

OLDEST_COMPOSE = (2, 20)

_CHUNK = 64 * 1024
_SIDE_BY_SIDE = 6


@dataclass(frozen=True)
class Image:
    """An image that the engine has: id, the digests it was pulled by, bytes on disk, platform, names of its labels."""

    id: str
    digests: tuple[str, ...]
    size: int
    platform: str
    volumes: tuple[str, ...]
    labels: tuple[str, ...] = ()


class Engine:
    """One Docker engine, reached as the command `docker` (with its global flags) reaches it."""

    def __init__(self, docker: Sequence[str] = ("docker",)) -> None:
        self.docker = tuple(docker)
        self._answers: dict[Hashable, Any] = {}
        self._locks: defaultdict[Hashable, Lock] = defaultdict(Lock)

    def once(self, key: Hashable, ask: Callable[[], T]) -> T:
        """Return what `ask` answered the first time: for what does not change while a command runs.

        Other threads wait for that answer. What `ask` raises passes through, and the next caller asks again.
        """
        with self._locks[key]:
            if key not in self._answers:
                self._answers[key] = ask()
            answer: T = self._answers[key]
            return answer

    # Containers and images, through the engine's API

    @cached_property
    def _http(self) -> Http:
        return Http(self._link.socket)

    @cached_property
    def api(self) -> APIClient:
        """The SDK's client, for the other modules of this folder."""
        return connect(self._link)

    def errors(self, doing: str) -> AbstractContextManager[None]:
        """Turn what the engine's clients raise in the block into EngineErrors."""
        return engine_errors(doing, self._link)

    @cached_property
    def _link(self) -> Link:
        return link_of(self.docker)

    @property
    def address(self) -> str:
        """Where the engine is, as Docker has it: `unix:///var/run/docker.sock`, `ssh://user@host`."""
        return self._link.address

    @property
    def remote(self) -> bool:
        """Whether it is on another machine: it has another host name, and is reached by more than a Unix socket."""
        return self._link.folder is not None and str(self._info["Name"]) != socket.gethostname()

    def origin(self, project: str) -> Origin:
        """Return the origin that records of a project on this engine carry."""
        info = self._info
        return Origin(project, str(info["ID"]), str(info["Name"]))

    def version(self) -> str:
        """Return the engine's version. Raise EngineError when it does not answer."""
        with self.errors("ask the Docker engine for its version"):
            return str(self._http.get("/version")["Version"])

    @cached_property
    def _info(self) -> dict[str, Any]:
        # The answer of `docker info`.
        with self.errors("ask the Docker engine about itself"):
            return dict(self._http.get("/info"))

    @property
    def memory(self) -> int:
        """The bytes of memory that the engine's machine has."""
        return int(self._info["MemTotal"])

    def containers(self, project: str = "") -> tuple[Container, ...]:
        """Return the Compose containers of the engine, running and stopped, of one project or of all."""
        label = compose_labels.PROJECT + (f"={project}" if project else "")
        with self.errors("list the containers"):
            listed = self._http.get("/containers/json", all=1, filters=json.dumps({"label": [label]}))
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            inspected = pool.map(self._inspect, [summary["Id"] for summary in listed])
            return tuple(container_of(facts) for facts in inspected if facts)

    def container(self, identity: str) -> Container | None:
        """Return a container by id or name, None where there is none."""
        facts = self._inspect(identity)
        return container_of(facts) if facts else None

    def health_log(self, identity: str) -> list[dict[str, Any]]:
        """Return the last results of a container's healthcheck, oldest first."""
        facts = self._inspect(identity) or {}
        return list((facts.get("State", {}).get("Health") or {}).get("Log") or [])

    def _inspect(self, identity: str) -> dict[str, Any] | None:
        with self.errors("inspect a container"):
            return self._http.look_up(f"/containers/{identity}/json")

    def _inspect_image(self, reference: str) -> dict[str, Any] | None:
        with self.errors("inspect an image"):
            return self._http.look_up(f"/images/{reference}/json")

    def creation(self, identity: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what a container was created with, as `docker inspect` has it, and the Config of its image.

        Both may hold secrets: they are for comparing only. Both are empty where the container is gone.
        """
        facts = self._inspect(identity)
        if not facts:
            return {}, {}
        image = self._inspect_image(facts["Image"]) or {}
        return facts, dict(image.get("Config") or {})

    def logs(self, identity: str, lines: int = 200) -> str:
        """Return the last lines that a container wrote, with times."""
        with self.errors("read the logs of a container"):
            text: bytes = self.api.logs(identity, tail=lines, timestamps=True)
        return text.decode(errors="replace")

    def volumes(self, identity: str) -> list[tuple[str, str]]:
        """Return the named volumes of a container, each with the path where it is mounted."""
        mounts = (self._inspect(identity) or {}).get("Mounts") or ()
        # The name of an anonymous volume is 64 hexadecimal digits.
        return sorted(
            (mount["Name"], mount["Destination"])
            for mount in mounts
            if mount.get("Type") == "volume" and not re.fullmatch(r"[0-9a-f]{64}", mount["Name"])
        )

    def archive(self, identity: str, path: str) -> Iterator[bytes]:
        """Yield a tar archive of a file or folder of a container, running or not."""
        with self.errors(f"read {path} of a container"):
            pieces, _ = self.api.get_archive(identity, path, chunk_size=_CHUNK)
            yield from pieces

    def changed_files(self, identity: str) -> list[str]:
        """Return what was added to or changed in a container's own layer, folders included."""
        with self.errors("compare a container with its image"):
            return sorted(change["Path"] for change in self.api.diff(identity) or () if change["Kind"] != 2)

    def start(self, identity: str) -> None:
        """Start a stopped container; it keeps its id, files and network."""
        with self.errors("start a container"):
            self.api.start(identity)

    def rename(self, identity: str, name: str) -> None:
        """Give a container another name."""
        with self.errors("rename a container"):
            self.api.rename(identity, name)

    def stop(self, identity: str, *, at_once: bool = False) -> None:
        """Stop a container, by its own stop signal and time limit, or `at_once` if it has nothing to finish."""
        limit = ((self._inspect(identity) or {}).get("Config") or {}).get("StopTimeout")
        with self.errors("stop a container"):
            # Without its own limit here, the SDK would not wait longer than 70 seconds for the engine's answer.
            self.api.stop(identity, timeout=0 if at_once else limit)

    def image(self, reference: str) -> Image | None:
        """Return an image of the engine by reference or id, None where it does not have it."""
        facts = self._inspect_image(reference)
        if not facts:
            return None
        return Image(
            facts["Id"],
            tuple(facts.get("RepoDigests") or ()),
            int(facts.get("Size", 0)),
            f"{facts.get('Os', 'linux')}/{facts.get('Architecture', '')}",
            tuple((facts.get("Config") or {}).get("Volumes") or ()),
            tuple((facts.get("Config") or {}).get("Labels") or ()),
        )

    def tag(self, image_id: str, repository: str, tag: str) -> None:
        """Add a tag to an image; when another image had that tag, it moves to this one."""
        with self.errors(f"tag an image as {repository}:{tag}"):
            self.api.tag(image_id, repository, tag)

    def tags(self, repository: str) -> dict[str, str]:
        """Return the image id of each tag of a repository that the engine has."""
        with self.errors("list images"):
            images = self._http.get("/images/json", filters=json.dumps({"reference": [repository]}))
        return {name: image["Id"] for image in images for name in image.get("RepoTags") or ()}

    def untag(self, reference: str) -> None:
        """Remove a tag; the image itself goes with its last tag. No error where the tag is gone already."""
        import docker.errors

        with self.errors(f"remove the tag {reference}"):
            try:
                self.api.remove_image(reference, noprune=True)
            except docker.errors.ImageNotFound:
                pass

    def pull(self, repository: str, tag: str, platform: str, progress: Callable[[int, int], None]) -> None:
        """Pull one image; `progress` gets the bytes done and the bytes known of so far.

        Raise EngineError with the registry's own message when it fails. Layers that arrived stay: a second
        pull goes on where the first one stopped.
        """
        layers: dict[str, tuple[int, int]] = {}

        with self.errors(f"pull {repository}:{tag}"):
            login = docker_login.stored(self.docker, docker_login.registry_of(repository))
            for event in self.api.pull(
                repository, tag=tag, platform=platform, stream=True, decode=True, auth_config=login
            ):
                if "error" in event:
                    raise EngineError(
                        f"Cannot pull {repository}:{tag}: {event['error']}",
                        hint=f"Try it by hand: docker pull {repository}:{tag}",
                    )
                detail = event.get("progressDetail") or {}
                if event.get("status") == "Downloading" and "total" in detail:
                    layers[event["id"]] = (detail["current"], detail["total"])
                    progress(sum(now for now, _ in layers.values()), sum(total for _, total in layers.values()))

    def insecure_registry(self, registry: str) -> bool:
        """Return whether the engine speaks plain HTTP to this registry (`host:port`)."""
        configured = self._info.get("RegistryConfig") or {}
        index = (configured.get("IndexConfigs") or {}).get(registry) or {}
        networks = configured.get("InsecureRegistryCIDRs") or ()
        return index.get("Secure") is False or is_loopback(registry) or is_within(registry, networks)

    def credentials(self, registry: str) -> tuple[str, str] | None:
        """Return the user and password that `docker login` stored for a registry, None where there are none."""
        return docker_login.credentials(self.docker, registry)

    # Processes inside containers

    @contextmanager
    def execute(
        self,
        container: str,
        command: Sequence[str],
        *,
        watched: bool = True,
        environment: Mapping[str, str] | None = None,
        user: str = "",
        folder: str = "",
        privileged: bool = False,
    ) -> Iterator[Execution]:
        """Run a command in a container and yield its streams.

        A `watched` command has no standard input and ends when this process does, however it dies.
        A command that is not watched reads what `send` writes. Secrets go in by `environment` or `send`,
        never by `command`.
        """
        called = timeline.program(command)
        with timeline.during("question", called):
            if watched:
                command = under_watchdog(command)
            with self.errors(f"run {called} in a container"):
                request = {
                    **dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr"), True),
                    "Cmd": list(command),
                    "Env": [f"{name}={value}" for name, value in (environment or {}).items()],
                    "User": user,
                    "WorkingDir": folder,
                    "Privileged": privileged,
                }
                identity = self._http.post(f"/containers/{container}/exec", request)["Id"]
                execution = Execution(self._http, self._link, identity)
            try:
                yield execution
            finally:
                execution.close()

    def run(
        self,
        container: str,
        command: Sequence[str],
        *,
        stdin: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        user: str = "",
        folder: str = "",
        privileged: bool = False,
        on_output: Callable[[], None] = lambda: None,
    ) -> Finished:
        """Run a command in a container to its end, with `stdin` as its standard input, and return what it did.

        The command has to read `stdin` before it writes much. `on_output` is called whenever it has written something.
        Raise EngineError when it writes more than 64 MiB.
        """
        watched = stdin is None
        with self.execute(
            container,
            command,
            watched=watched,
            environment=environment,
            user=user,
            folder=folder,
            privileged=privileged,
        ) as execution:
            if stdin is not None:
                execution.feed([stdin])
            stdout = b"".join(bounded(execution.output(), on_output))
            status = execution.status()
        return Finished(status, stdout.decode(errors="replace"), execution.stderr.decode(errors="replace"))

    def discard(self, identity: str) -> None:
        """Remove a container and its anonymous volumes, running or not. No error where it is gone."""
        import docker.errors

        with self.errors("remove a container"):
            for _ in range(300):
                try:
                    return self.api.remove_container(identity, force=True, v=True)
                except docker.errors.NotFound:
                    return
                except docker.errors.APIError as error:
                    # The engine is removing it already.
                    if error.status_code != 409:
                        raise
                time.sleep(0.1)
        raise EngineError("Docker does not finish removing a container.")

    # docker compose

    def compose_version(self) -> str:
        """Return the version of Compose. Raise EngineError when it is missing or older than 2.20."""
        answer = self._docker("compose", "version", "--short")
        version = answer.stdout.strip().removeprefix("v")

        if answer.status != 0:
            raise EngineError(
                "Docker Compose v2 is not installed (`docker compose` does not answer).",
                hint="Install the package docker-compose-plugin, then try again.",
            )
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if numbers < OLDEST_COMPOSE:
            raise EngineError(
                f"Docker Compose {version} is too old: CHAP's files need 2.20 or newer.",
                hint="Upgrade the package docker-compose-plugin, then try again.",
            )
        return version

    def compose(
        self, project: Project, *arguments: str, on_line: Callable[[str], None] | None = None
    ) -> process.Finished:
        """Run `docker compose` on a project with every file and env file named, as it was started.

        All profiles are on, because a running service may be in any. A caller that starts something names the services.
        """
        words = (*project.compose, "--profile", "*", *arguments)
        return self._docker(*words, on_line=on_line).without_content()

    def _docker(self, *words: str, on_line: Callable[[str], None] | None = None) -> Finished:
        environment = {**process.FOR_COMPOSE, **self._link.environment}
        return process.run([*self.docker, *words], environment=environment, on_line=on_line)

    def compose_config(self, project: Project) -> dict[str, Any]:
        """Return the project as Compose itself resolves it: merged, included and interpolated."""
        finished = self.compose(project, "config", "--format", "json")
        return dict(json.loads(process.check(finished, "Reading the Compose files with docker compose")))


# How services are started; their names follow. Without dependencies, and never with a pull or a build.
UP_ALONE = ("up", "-d", "--no-deps", "--no-build", "--pull", "never")
