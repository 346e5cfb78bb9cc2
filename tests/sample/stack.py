"""Make, start, fill and look at a CHAP stack of our own.

    stack = SampleStack.create(folder, kind="small", version="v2.0.0")
    stack.up()
    stack.fill(rows=10_000)
    ...
    stack.down()

It needs what `tests/sample/setup` makes: an engine, a registry and the images.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import docker

from tests.sample import older, source

SAMPLE = Path(__file__).resolve().parent
OUT = SAMPLE.parents[1] / "build" / "out"
PROJECT_PREFIX = "docker-chap-test-"
WRITTEN_REGISTRY = "127.0.0.1:5899"
Process = subprocess.CompletedProcess[str]
FILES = {
    "small": ("compose.yml",),
    "bundled": ("compose.chapkit.yml",),
    "source": ("compose.yml", "compose.chapkit.yml"),
    "ghcr": ("compose.ghcr.yml",),
    "older": ("compose.yml",),
}
# In a checkout of chap-core the services have other names than in the bundled stack.
CHECKOUT = {"worker_service": "worker", "database_service": "postgres", "broker_service": "redis"}

# What one observation with its share of the other tables takes on disk, measured.
BYTES_PER_ROW = 191


class SampleError(Exception):
    """The sample stack does not do what a test needs of it."""


@cache
def environment() -> dict[str, str]:
    """Return the environment in which the sample's engine, Compose and the plugin under test are found."""
    variables = dict(os.environ)
    file = OUT / "env.sh"
    if not file.exists():
        raise SampleError("Run tests/sample/setup first.")
    for name, value in re.findall(r"^export (\w+)='(.*)'$", file.read_text(), re.MULTILINE):
        # Inside build/out/new/run the second engine and its Compose are the ones to use.
        if variables.get("CHAP_SAMPLE_ENGINE") != "new":
            variables[name] = value
    return variables


def run_in(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> Process:
    """Run a command in a folder to its end, with nobody to ask, and return how it ended and what it wrote."""
    return subprocess.run(
        words,
        cwd=folder,
        env=env or environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@cache
def registry() -> str:
    """Return the address of the registry that has the sample's images, started when it is not running."""
    return subprocess.run([SAMPLE / "registry.sh"], capture_output=True, text=True, check=True).stdout.strip()


@cache
def engine() -> docker.DockerClient:
    """Return the engine that the sample stacks run on."""
    # Filling a large database takes minutes.
    return docker.from_env(timeout=900, environment=environment())


@dataclass
class SampleStack:
    """A CHAP stack of our own on the engine: its files are in `folder`, its Compose project is `project`."""

    folder: Path
    project: str
    files: list[Path]
    kind: str = "small"
    port: int = 0
    dhis2_port: int = 0
    api_service: str = "chap"
    worker_service: str = "chap-worker"
    database_service: str = "chap-postgres"
    broker_service: str = "chap-redis"
    user: str = "chap"
    database: str = "chap_core"
    token: str = ""
    # Given to Compose at `up`, as docker-dhis2-core's Makefile does; a plain `docker compose up` does not have it.
    up_environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        folder: Path,
        project: str | None = None,
        kind: str = "small",
        version: str = "v2.0.0",
        settings: dict[str, str] | None = None,
    ) -> SampleStack:
        """Write the files of a stack into `folder`, with ports that are free; `settings` go into its .env.

        The kind `older` has no .env, and its project is called like its folder.
        """
        folder = Path(folder).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        project = project or PROJECT_PREFIX + secrets.token_hex(4)
        values = {name: str(free_port()) for name in ("CHAP_PORT", "CHAP_DB_PORT", "DHIS2_PORT", "DHIS2_DB_PORT")}
        values["COMPOSE_PROJECT_NAME"] = project
        if kind == "bundled":
            # Times in which a test can see a model go and come back.
            values["CHAP_TEST_REGISTRY_SECONDS"] = "12"
            values["CHAP_TEST_KEEPALIVE_SECONDS"] = values["CHAP_TEST_GRACE_SECONDS"] = "2"
        if kind in ("source", "ghcr"):
            values |= {"POSTGRES_USER": "chap", "POSTGRES_PASSWORD": "chap", "POSTGRES_DB": "chap_core"}
        values |= settings or {}

        def filled(text: str) -> str:
            # Where several stacks run, not all can have the container called chap.
            text = text.replace("container_name: chap", f"container_name: {project}-chap-1")
            text = text.replace("127.0.0.1:8000:8000", f"127.0.0.1:{values['CHAP_PORT']}:8000")
            text = text.replace(older.FOLDER, f"{folder}-data:").replace(older.UNNAMED, f"{project}/postgres")
            return text.replace(WRITTEN_REGISTRY, registry()).replace("v2.0.0", version)

        if kind == "older":
            older.make(folder, filled)
            values |= {"CHAP_DB_USER": "root"}
            _docker("tag", older.NUMBERED, f"{project}/postgres")
        elif kind == "source":
            source.make(folder, filled)
        else:
            for file in sorted((SAMPLE / "stacks" / kind).glob("*.yml")):
                (folder / file.name).write_text(filled(file.read_text()))
        if kind != "older":
            (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        return cls(
            folder=folder,
            project=project,
            files=[folder / name for name in FILES[kind]],
            kind=kind,
            port=int(values["CHAP_PORT"]),
            dhis2_port=int(values["DHIS2_PORT"]) if kind == "bundled" else 0,
            user=values.get("CHAP_DB_USER", "chap"),
            database=values.get("CHAP_DB_NAME", "chap_core"),
            **(CHECKOUT if kind in ("source", "ghcr", "older") else {}),
            token=values.get("CHAP_API_TOKEN", ""),
            up_environment={"CHAP_ROUTE_URL": "http://chap:8000/**"} if kind == "bundled" else {},
        )

    # Start, stop, change

    def up(self, timeout: float = 90) -> None:
        """Start everything and wait until the stack is really ready."""
        self.compose("up", "-d", "--quiet-pull", environ=self.up_environment)
        self.wait_ready(timeout)

    def wait_ready(self, timeout: float = 90) -> None:
        """Wait for /health/ready, and in the bundled stack for the model service too."""
        _wait(lambda: self.api("/health/ready")[0] == 200, timeout, f"{self.project}: /health/ready is not 200")
        if self.kind == "bundled":
            _wait(lambda: self.services() == ["chapkit-ewars-model"], timeout, f"{self.project}: no model service")
            _wait(lambda: self.dhis2("/api/routes/chap/run/health")[0] == 200, timeout, f"{self.project}: no route")

    def down(self) -> None:
        """Remove everything of this project: containers, volumes, networks, and what was kept of it."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "1", check=False)
        remove_project(self.project)

    def pin(self, version: str, worker: str | None = None) -> None:
        """Write another version into the files, as an operator does by hand; start nothing."""
        for file in self.folder.glob("*.yml"):
            text = file.read_text()
            text = re.sub(r"(?m)^( *image: *\S*/chap-core):\S+", rf"\1:{version}", text)
            text = re.sub(r"(?m)^( *image: *\S*/chap-worker):\S+", rf"\1:{worker or version}", text)
            file.write_text(text)

    def compose(self, *arguments: str, check: bool = True, environ: dict[str, str] | None = None) -> Process:
        """Run `docker compose` on this stack's files, in its folder."""
        files = [word for file in self.files for word in ("-f", file.name)]
        return self._run(["docker", "compose", *files, *arguments], check, environ or {})

    def docker(self, *arguments: str, check: bool = True, environ: dict[str, str] | None = None) -> Process:
        """Run `docker` in the stack's folder: also `stack.docker("chap", "status")`."""
        return self._run(["docker", *arguments], check, environ or {})

    def _run(self, argv: list[str], check: bool, environ: dict[str, str]) -> Process:
        done = run_in(self.folder, *argv, env=environment() | environ)
        if check and done.returncode:
            raise SampleError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    # Look

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return each service's container: id, image (its name), image_id, state, health, exit_code."""
        label = f"com.docker.compose.project={self.project}"
        result = {}
        for container in (entry.attrs for entry in engine().containers.list(all=True, filters={"label": label})):
            labels = container["Config"]["Labels"]
            if labels.get("com.docker.compose.oneoff") == "True":
                continue
            result[labels["com.docker.compose.service"]] = {
                "id": container["Id"],
                "image": container["Config"]["Image"],
                "image_id": container["Image"],
                "state": container["State"]["Status"],
                "health": container["State"].get("Health", {}).get("Status"),
                "exit_code": container["State"]["ExitCode"],
                "started_at": container["State"]["StartedAt"],
            }
        return result

    def api(self, path: str, method: str = "GET", body: Any = None, timeout: float = 15) -> tuple[int, Any]:
        """Ask the CHAP API; the status is 0 when nothing answers."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return _ask(f"http://127.0.0.1:{self.port}{path}", method, body, headers, timeout)

    def dhis2(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        """Ask the sample DHIS2 as its administrator."""
        headers = {"Authorization": "Basic " + base64.b64encode(b"admin:district").decode()}
        return _ask(f"http://127.0.0.1:{self.dhis2_port}{path}", method, body, headers, 15)

    def services(self) -> list[str]:
        """Return the model services that are registered now."""
        status, answer = self.api("/v2/services")
        return [service["id"] for service in answer["services"]] if status == 200 else []

    def route(self) -> dict[str, Any] | None:
        """Return DHIS2's route for CHAP, all its fields."""
        routes = self.dhis2("/api/routes?filter=code:eq:chap&fields=*&paging=false")[1]["routes"]
        return dict(routes[0]) if routes else None

    def version(self) -> str | None:
        """Return the version that the API reports."""
        status, info = self.api("/system/info")
        return info.get("chap_core_version") if status == 200 else None

    # Jobs

    def start_job(self, seconds: float) -> str:
        """Start a job on the worker that lasts so many seconds, and return its id."""
        status, answer = self.api(f"/v1/test/sleep?seconds={seconds}", "POST")
        if status != 200:
            raise SampleError(f"no job: {status} {answer}")
        return str(answer["id"])

    def jobs(self) -> dict[str, str]:
        """Return the status of every job the broker remembers."""
        return {job["id"]: job["status"] for job in self.api("/v1/jobs")[1] or []}

    def wait_job(self, identity: str, status: str, timeout: float = 30) -> None:
        """Wait until a job has this status."""
        _wait(lambda: self.jobs().get(identity) == status, timeout, f"job {identity} did not become {status}")

    def zombie(self) -> str:
        """Kill the worker in the middle of a job and start it again: the job stays STARTED for ever."""
        identity = self.start_job(600)
        self.wait_job(identity, "STARTED")
        self.compose("kill", self.worker_service)
        self.compose("up", "-d", "--no-deps", self.worker_service)
        return identity

    # Rows

    def inside(self, *words: str) -> bytes:
        """Run a program in the database's container and return what it printed."""
        # There are thousands of these: asking the engine itself costs a tenth of starting `docker compose exec`.
        labels = [f"com.docker.compose.project={self.project}", f"com.docker.compose.service={self.database_service}"]
        containers = engine().containers.list(filters={"label": labels}, limit=1)
        if not containers:
            raise SampleError(f"{self.project}: {self.database_service} does not run")
        answer: Any = containers[0].exec_run(list(words), demux=True)
        output, errors = answer.output
        if answer.exit_code:
            raise SampleError(f"{words} ended with {answer.exit_code}:\n{(errors or b'').decode()}")
        return bytes(output or b"")

    def sql(self, query: str, database: str | None = None) -> list[list[str]]:
        """Run a query in the database's container and return its rows as text."""
        output = self.inside(
            "psql",
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            self.user,
            "-d",
            database or self.database,
            "--tuples-only",
            "--no-align",
            "-R",
            "\x1e",
            "-F",
            "\x1f",
            "-c",
            query,
        )
        return [line.split("\x1f") for line in output.decode().rstrip("\n").split("\x1e") if line]

    def databases(self) -> list[str]:
        """Return the names of the server's databases."""
        query = "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1"
        return [name for (name,) in self.sql(query, "postgres")]

    def fill(self, rows: int = 0, megabytes: float = 0) -> None:
        """Put that many observations, or that much on disk, into the tables, with the rows that belong to them."""
        rows = rows or int(megabytes * 1024 * 1024 / BYTES_PER_ROW)
        self.sql((SAMPLE / "fill.sql").read_text().replace(":rows", str(rows)))

    def size(self, database: str | None = None) -> int:
        """Return the bytes that the database takes."""
        return int(self.sql("SELECT pg_database_size(current_database())", database)[0][0])

    def columns(self, database: str | None = None) -> dict[str, list[str]]:
        """Return the columns of every table."""
        result: dict[str, list[str]] = {}
        query = (
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = 'public' ORDER BY table_name, ordinal_position"
        )
        for table, column in self.sql(query, database):
            result.setdefault(table, []).append(column)
        return result

    def counts(self, database: str | None = None) -> dict[str, int]:
        """Return the number of rows of every table."""
        tables = ((name.replace("'", "''"), name.replace('"', '""')) for name in self.columns(database))
        parts = [f"SELECT '{text}', count(*) FROM \"{name}\"" for text, name in tables]
        return {table: int(count) for table, count in self.sql(" UNION ALL ".join(parts), database)} if parts else {}

    def checksum(
        self, database: str | None = None, columns: dict[str, list[str]] | None = None
    ) -> dict[str, tuple[int, str]]:
        """Return rows and a checksum per table: equal exactly when the rows are.

        To compare across an upgrade, pass the `columns()` from before it: a new column is then not looked at.
        """
        parts = []
        for table, names in (columns or self.columns(database)).items():
            row = "row(" + ", ".join(f'"{name}"' for name in names) + ")::text"
            # A sum of hashes does not depend on the order of the rows and needs no memory, whatever their number.
            mark = f"md5(coalesce(sum(hashtextextended({row}, 0)::numeric), 0)::text)"
            parts.append(f"SELECT '{table}', count(*), {mark} FROM \"{table}\"")
        digests = self.sql(" UNION ALL ".join(parts), database) if parts else []
        return {table: (int(count), mark) for table, count, mark in digests}


def remove_project(project: str) -> None:
    """Remove what belongs to the project: containers with their anonymous volumes, volumes, networks, kept images."""
    label = f"label=com.docker.compose.project={project}"
    containers = _docker("ps", "-aq", "--filter", label).split()
    if containers:
        _docker("rm", "-fv", *containers)
    for kind in ("volume", "network"):
        names = _docker(kind, "ls", "-q", "--filter", label).split()
        if names:
            _docker(kind, "rm", *names)
    kept = _docker("images", "--format", "{{.Repository}}:{{.Tag}}", "docker-chap/kept").split()
    kept = [image for image in kept if image.partition(":")[2].startswith(f"{project}-")]
    for ours in (f"{project}-*", f"{project}/*"):  # built by Compose, or named for this project
        kept += _docker("images", "--format", "{{.Repository}}:{{.Tag}}", ours).split()
    if kept:
        _docker("rmi", *kept)


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SampleError(f"docker {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def _ask(url: str, method: str, body: Any, headers: dict[str, str], timeout: float) -> tuple[int, Any]:
    content = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"} | headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, _decode(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, _decode(error.read())
    except (OSError, ValueError):
        return 0, None
    except Exception as error:  # http.client raises its own kinds when a container dies in mid-answer
        return 0, str(error)


def _decode(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode(errors="replace")


def _wait(condition: Callable[[], bool], timeout: float, message: str) -> None:
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise SampleError(message)
        time.sleep(0.1)


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port on which nothing listens now, and which no connection is given by chance while it is not used."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind((host, port))
            return port
