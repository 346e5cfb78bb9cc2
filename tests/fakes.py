"""A Docker engine in memory with a CHAP stack on it, that can fail, be interrupted or be killed at any call.

It knows what the procedures ask of `Engine`, and the programs of `chap_scripts`; its PostgreSQL is `fake_server`.
"""

from __future__ import annotations

import copy
import errno
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compose_chap.backups.manifest import ChapFacts, DatabaseFacts, DumpPart, Manifest, ProjectFacts, ServerFacts
from compose_chap.engine.engine import Engine, Image
from compose_chap.engine.world import World
from compose_chap.errors import EngineError
from compose_chap.model import Container, Origin, Project
from compose_chap.processes.process import Finished
from compose_chap.stack import chap_scripts
from tests.fake_server import Database, unknown

API, WORKER = "registry.example/chap-core", "registry.example/chap-worker"


def manifest(**facts: Any) -> Manifest:
    """Return the manifest of a small backup, with these facts instead."""
    now = datetime(2026, 11, 23, 4, tzinfo=timezone.utc)
    known: dict[str, Any] = {
        **{"id": "20261123T040000Z", "created_at": now, "proven_at": now, "reason": "", "tables": {}},
        **{"project": ProjectFacts("p"), "chap": ChapFacts("2.0.0"), "server": ServerFacts(170006)},
        **{"database": DatabaseFacts("chap_core", 1), "dump": DumpPart("a.dump", 1, "0" * 64)},
    }
    return Manifest(**{**known, **facts})


def run_record(**facts: Any) -> dict[str, Any]:
    """Return the record of an upgrade that succeeded, with these facts instead, as its file holds it."""
    known = {"id": "1", "operation": "upgrade", "by": "ops@host", "started_at": "2026-01-01T00:00:00+00:00"}
    return {**known, "result": "done", "facts": {}, "steps": [], **facts}


class Killed(BaseException):
    """The process is gone: nothing that it still tries has any effect."""


class _Connection:
    """A connection that leads nowhere."""

    def __init__(self) -> None:
        self._sock = self._response = self

    def set_inheritable(self, inheritable: bool) -> None: ...

    def shutdown(self, how: int) -> None: ...

    def close(self) -> None: ...


@dataclass
class FakeEngine(Engine):
    """Containers, images and databases as plain data. `strike(n)` is called before and after the n-th call."""

    folder: Path
    strike: Callable[[int, str], None] = lambda number, name: None
    calls: int = 0
    dead: bool = False
    remote: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self.images = {
            f"{API}:v1": "sha256:api1",
            f"{WORKER}:v1": "sha256:worker1",
            f"{API}:v2": "sha256:api2",
            f"{WORKER}:v2": "sha256:worker2",
        }
        self.databases = {
            "chap_core": Database({"public.observation": 10}, {"a"}, "old"),
            "postgres": Database({}),
        }
        self.boxes: dict[str, Container] = {}
        self.made = 0
        first = {"chap": f"{API}:v1", "worker": f"{WORKER}:v1", "db": "postgres:17", "redis": "valkey:8"}
        for service, image in first.items():
            self._make(service, image)
        self.asked: list[str] = []  # the images that a throwaway container was made of
        self.recipes: list[dict[str, Any]] = []  # and how
        self.sick: str = ""
        self.log = ""  # of every container
        self.makes: dict[str, int] = {}  # rows of tables that v2's migration makes
        self.port = "8000"  # that Compose gives to containers which are made now
        self.room = 1 << 20  # KiB that are free on the server's disk
        self.quiet = True  # nobody writes to the database during a backup
        self.jobs: list[dict[str, str]] = []  # those of CHAP's own list
        self.queue: int | None = 0  # jobs in the broker, None where it does not answer
        self.busy = False  # whether the worker has a job
        self.stops: list[tuple[str, bool]] = []  # the services that were stopped, and whether at once
        self.backups_of_new_data: list[Database] = []  # made where there was no room for it beside the old

    # What happens at a call

    def at(self, name: str) -> None:
        """Count a call and let the fault strike."""
        if self.dead:
            raise Killed
        self.calls += 1
        try:
            self.strike(self.calls, name)
        except Killed:
            self.dead = True
            raise

    def copy(self) -> FakeEngine:
        """Return an engine in the same state, for the next process."""
        twin = FakeEngine(self.folder)
        twin.images, twin.databases = copy.deepcopy((self.images, self.databases))
        twin.log, twin.makes = self.log, self.makes
        twin.boxes, twin.made, twin.sick, twin.room = dict(self.boxes), self.made, self.sick, self.room
        twin.quiet, twin.backups_of_new_data = self.quiet, self.backups_of_new_data
        return twin

    def _make(self, service: str, image: str, files: tuple[Path, ...] = ()) -> Container:
        self.made += 1
        environment = {"CHAP_DATABASE_URL": "postgresql://chap:pw@db:5432/chap_core", "POSTGRES_USER": "chap"}
        environment["CELERY_BROKER"] = "redis://redis:6379"
        made = Container(
            id=f"{self.made:012x}",
            name=f"p-{service}-1",
            project="p",
            service=service,
            image=image,
            image_id=self.images.get(image, image),
            state="running",
            health="healthy",
            exit_status=0,
            restarts=0,
            started_at=f"{self.made:04d}",
            command=(),
            names=frozenset({service}),
            addresses=frozenset(),
            labels={
                "com.docker.compose.project.working_dir": str(self.folder),
                "com.docker.compose.project.config_files": ",".join(map(str, files or [self.folder / "compose.yml"])),
            },
            environment=environment,
        )
        self.boxes[made.id] = made
        return made

    def _set(self, identity: str, **changes: Any) -> None:
        self.boxes[identity] = replace(self.boxes[identity], **changes)

    # The engine

    def containers(self, project: str = "") -> tuple[Container, ...]:
        self.at("containers")
        return tuple(self.boxes.values())

    def container(self, identity: str) -> Container | None:
        self.at("container")
        return self.boxes.get(identity)

    def creation(self, identity: str) -> tuple[dict[str, Any], dict[str, Any]]:
        self.at("creation")
        ports = {"8000/tcp": [{"HostIp": "", "HostPort": self.port}]}
        return {"Config": {}, "HostConfig": {"PortBindings": ports}}, {}

    def health_log(self, identity: str) -> list[dict[str, Any]]:
        return []

    def logs(self, identity: str, lines: int = 200) -> str:
        return self.log

    def start(self, identity: str) -> None:
        self.at("start")
        if identity not in self.boxes:  # a throwaway container, which no project has
            return
        self._set(identity, state="running")
        self._boot(self.boxes[identity])
        self.at("started")

    def stop(self, identity: str, *, at_once: bool = False) -> None:
        self.at("stop")
        self.stops.append((self.boxes[identity].service, at_once))
        self._set(identity, state="exited")
        self.at("stopped")

    def rename(self, identity: str, name: str) -> None:
        self.at("rename")
        self._set(identity, name=name)

    def discard(self, identity: str) -> None:
        self.at("discard")
        self.boxes.pop(identity, None)

    @property
    def api(self) -> Any:
        """There are no throwaway containers and networks of other runs, and nobody else has the lock."""

        def nothing(**kwargs: Any) -> list[Any]:
            self.at("throwaways")
            return []

        return SimpleNamespace(
            containers=nothing,
            networks=nothing,
            create_host_config=dict,
            create_container=lambda image, **kwargs: self._create(image, **kwargs),
            attach_socket=lambda *kwargs, **words: _Connection(),
            start=lambda identity: self.at("locked"),
        )

    def _create(self, image: str, **kwargs: Any) -> dict[str, str]:
        if "docker-chap.throwaway" not in kwargs["labels"]:
            self.at("lock")
            return {"Id": "lock"}
        self.at("throwaway made")
        self.asked.append(image)
        alone = {"network_disabled": kwargs["host_config"]["network_mode"] == "none"}
        self.recipes.append({key: kwargs[key] for key in ("environment", "volumes")} | alone)
        return {"Id": f"throwaway of {image}"}

    def origin(self, project: str) -> Origin:
        return Origin(project, "engine-1", "north")

    def errors(self, doing: str) -> AbstractContextManager[None]:
        return nullcontext()

    def image(self, reference: str) -> Image | None:
        self.at("image")
        result = self.images.get(reference) or (reference if reference in self.images.values() else "")
        return Image(result, (), 1, "linux/amd64", ()) if result else None

    def tag(self, image_id: str, repository: str, tag: str) -> None:
        self.at("tag")
        self.images[f"{repository}:{tag}"] = image_id
        self.at("tagged")

    def tags(self, repository: str) -> dict[str, str]:
        self.at("tags")
        return {name: image for name, image in self.images.items() if name.startswith(f"{repository}:")}

    def untag(self, reference: str) -> None:
        self.at("untag")
        self.images.pop(reference, None)

    def pull(self, repository: str, tag: str, platform: str, progress: Callable[[int, int], None]) -> None:
        self.at("pull")

    # Compose: the file is one line per service, `service image`

    def _file(self, project: Project) -> dict[str, str]:
        lines = [line.split() for line in (self.folder / "compose.yml").read_text().splitlines()]
        if any(len(line) != 2 for line in lines):
            raise EngineError("Compose cannot read compose.yml.")
        images = {name: image for name, image in lines}
        for path in project.files[1:]:
            images |= {name: load["image"] for name, load in json.loads(path.read_text())["services"].items()}
        return images

    def compose_config(self, project: Project) -> dict[str, Any]:
        self.at("compose config")
        return {"services": {name: {"image": image} for name, image in self._file(project).items()}}

    def compose(self, project: Project, *arguments: str, on_line: Callable[[str], None] | None = None) -> Finished:
        self.at("compose up")
        wanted, words = self._file(project), list(arguments)
        recreated = "--force-recreate" in words
        for service in [word for word in words if word in wanted]:
            existing = [box for box in self.boxes.values() if box.service == service]
            old = existing[0] if existing else None
            same = old and (old.image, old.image_id) == (wanted[service], self.images[wanted[service]])
            if old and same and len(existing) == 1 and not recreated:
                self._set(old.id, state="running")
            else:
                # As Compose does it: the new one beside the old one, the old one away, then its name.
                new = self._make(service, wanted[service], project.files)
                if old:
                    self._set(new.id, name=f"{old.id[:12]}_{old.name}", state="created")
                    self.at("compose made")
                    for container in existing:
                        self.boxes.pop(container.id)
                    self.at("compose removed")
                self._set(new.id, name=f"p-{service}-1", state="running")
            self._boot(next(box for box in self.boxes.values() if box.service == service))
            self.at("compose started")
        return Finished(0, "", "")

    def _boot(self, box: Container) -> None:
        """Migrate the live database as CHAP does at its start."""
        live = self.databases.get("chap_core")
        if box.service == "chap" and live and box.image.endswith(":v2"):
            live.columns = live.columns | {"b"}
            for table, rows in self.makes.items():
                live.rows.setdefault(table, rows)
            if self.sick == "ends":
                self._set(box.id, state="exited", exit_status=3)
            if self.sick == "loses rows":
                live.rows["public.observation"] -= 1

    # Inside the containers

    def run(
        self,
        container: str,
        command: Any,
        *,
        stdin: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        user: str = "",
        folder: str = "",
        privileged: bool = False,
        on_output: Callable[[], None] = lambda: None,
    ) -> Finished:
        self.at("run")
        if chap_scripts.MODELS in command:
            return Finished(0, json.dumps(self.models("v2" if container.endswith("2") else "v1")), "")
        box = self.boxes.get(container)
        if box is None or box.state != "running":
            raise EngineError(f"Docker could not run that: container {container} is not running.")
        if "LLEN" in " ".join(command):
            assert box.service == "redis"
            return Finished(0, f"{self.queue}\n", "") if self.queue is not None else Finished(127, "", "")
        if any("df -Pk" in word for word in command):
            return Finished(0, f"disk 9 9 {self.room} 9% /data", "")
        version = box.image.rpartition(":")[2]
        if chap_scripts.VERSION in command:
            return Finished(0, version.removeprefix("v"), "")
        if chap_scripts.FIRST_ANSWER in command:
            return Finished(0, json.dumps({"answers": True, "silent": False}), "")
        if chap_scripts.REQUESTS in command:
            return self._requests(version, json.loads(stdin or b"[]"))
        if chap_scripts.ACTIVE_JOBS in command:
            return Finished(0, json.dumps({"workers": ["celery@worker"], "jobs": []}), "")
        if chap_scripts.IDLE in command:
            names = (environment or {})["CHAP_WORKERS"].split()
            return Finished(0, json.dumps({"idle": [] if self.busy else names}), "")
        if chap_scripts.PING in command:
            return Finished(0, json.dumps({"workers": int(self._worker_answers(version))}), "")
        raise unknown(command)

    def models(self, version: str) -> dict[str, Any]:
        """Return what the models of a version want."""
        names = ["a"] if version == "v1" else ["a", "b"]
        columns = [{"name": name, "type": "INTEGER", "nullable": True, "default": False} for name in names]
        tables = {"observation": columns}
        nothing: dict[str, Any] = {"foreign_keys": [], "chain": [], "heads": []}
        return {"version": version.removeprefix("v"), "tables": tables, **nothing, "seconds": 1.85}

    def _worker_answers(self, version: str) -> bool:
        worker = any(box.service == "worker" and box.state == "running" for box in self.boxes.values())
        return worker and not (self.sick == "never ready" and version == "v2") and self.sick != "broken"

    def _requests(self, version: str, wanted: list[Any]) -> Finished:
        well = self._worker_answers(version)
        ready = {"checks": {"db": "ok", "celery": "ok" if well else "error: no workers responded"}}
        bodies = {"/health/ready": (200 if well else 503, ready), "/v2/services": (200, {"services": []})}
        bodies["/v1/jobs"] = (200, self.jobs)
        answers = []
        for request in wanted:
            status, body = bodies.get(re.sub(r"^http://[^/]*", "", request["url"]).partition("?")[0], (200, []))
            answers.append({"status": status, "body": json.dumps(body)})
        return Finished(0, json.dumps({"version": version.removeprefix("v"), "answers": answers}), "")


def disk_dies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no folder at or below this one be listed any more."""
    scandir = os.scandir

    def failing(path: Any = ".") -> Any:
        if isinstance(path, (str, Path)) and (Path(path) == folder or folder in Path(path).parents):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)


def world(engine: FakeEngine) -> World:
    """Return a world in which time passes only when somebody waits or looks at the clock."""
    now = [datetime(2026, 11, 23, tzinfo=timezone.utc)]

    def clock() -> datetime:
        now[0] += timedelta(milliseconds=10)
        return now[0]

    def sleep(seconds: float) -> None:
        now[0] += timedelta(seconds=max(seconds, 5))

    return World(engine, clock, sleep, lambda *args: None, patience=20, limit=100)
