"""A stack of a real release of CHAP, and programs that run in its images."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real.releases import Release
from tests.sample.images import PREFIX
from tests.sample.stack import PROJECT_PREFIX, WRITTEN_REGISTRY, SampleError, SampleStack, free_port, registry

REAL = Path(__file__).resolve().parent
ROWS = (REAL / "inside/rows.py").read_text()
# Loading CHAP takes seconds of a processor that other tests may need too.
PATIENCE = 300


@dataclass
class RealStack(SampleStack):
    """CHAP alone, at a real release. What `SampleStack` can do it can too, but for the sample's own test endpoints."""

    @classmethod
    def of(cls, folder: Path, release: Release, settings: dict[str, str]) -> RealStack:
        """Write the files of a stack of a release into `folder`; `settings` go into its .env."""
        project, port = PROJECT_PREFIX + secrets.token_hex(4), free_port()
        text = (REAL / "stack/compose.yml").read_text()
        text = text.replace(WRITTEN_REGISTRY, registry()).replace("v2.0.0", release.tag)
        (folder / "compose.yml").write_text(text)
        values = {"CHAP_PORT": str(port), "COMPOSE_PROJECT_NAME": project} | settings
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        return cls(folder=folder, project=project, files=[folder / "compose.yml"], port=port)

    def rows(self, command: str, container: str | None = None) -> subprocess.CompletedProcess[str]:
        """Write rows with the release that runs in the API's container, or in another one: `seed` or `save`."""
        words = ["exec", container or f"{self.project}-{self.api_service}-1", "python", "-W", "ignore", "-c", ROWS]
        return self.docker(*words, command, check=False)

    def seed(self) -> None:
        """Write every kind of row that CHAP has, 50,000 observations among them."""
        done = self.rows("seed")
        if done.returncode:
            raise SampleError(f"no rows: {done.stderr[-3000:]}")

    def start(self) -> None:
        """Start the API and the worker alone, as the files say, and wait until they are ready."""
        self.compose("up", "-d", "--no-deps", "--quiet-pull", self.api_service, self.worker_service)
        self.wait_ready(PATIENCE)

    def written(self) -> dict[str, bytes]:
        """Return the content of the stack's files."""
        return {name: (self.folder / name).read_bytes() for name in ("compose.yml", ".env")}

    def copy_database(self, source: str, target: str) -> None:
        """Copy a database of the server while it is used."""
        self.sql(f'CREATE DATABASE "{target}"', "postgres")
        load = f"psql -X -q -v ON_ERROR_STOP=1 -U {self.user} -d {target}"
        self.inside("bash", "-o", "pipefail", "-c", f"pg_dump -U {self.user} {source} | {load} >/dev/null")

    @contextmanager
    def alone(self, release: Release, database: str, *words: str) -> Iterator[tuple[str, int]]:
        """Run a release's API, or other `words`, on another database of the server; give the container and its port.

        It has a broker's queue of its own, so that nothing it queues comes to the stack's worker.
        """
        name, port = f"{self.project}-alone-{secrets.token_hex(3)}", free_port()
        settings = {
            "CHAP_DATABASE_URL": f"postgresql://{self.user}:chap@{self.database_service}:5432/{database}",
            "CELERY_BROKER": f"redis://{self.broker_service}:6379/9",
            "REDIS_HOST": self.broker_service,
            **dict(line.split("=", 1) for line in (self.folder / ".env").read_text().splitlines()),
        }
        environ = [f"--env={key}={value}" for key, value in settings.items()]
        image = f"{registry()}/{PREFIX}/real/chap-core:{release.tag}"
        label = f"--label=com.docker.compose.project={self.project}"
        once = "--label=com.docker.compose.oneoff=True"
        network, published = f"--network={self.project}_default", f"--publish=127.0.0.1:{port}:8000"
        self.docker(
            "run", "-d", "--quiet", "--init", "--name", name, network, published, label, once, *environ, image, *words
        )
        try:
            yield name, port
        finally:
            self.docker("rm", "-fv", name)

    def log(self, container: str) -> str:
        """Return all that a container printed."""
        done = self.docker("logs", container)
        return done.stdout + done.stderr

    def ended(self, container: str) -> int | None:
        """Return the exit status of a container, None while it runs."""
        state = self.docker("inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", container).stdout.split()
        return None if state[0] == "true" else int(state[1])


def ask(port: int, path: str) -> tuple[int, Any]:
    """Ask an API on a port of this machine; the status is 0 when nothing answers."""
    return SampleStack(folder=REAL, project="", files=[], port=port).api(path, timeout=60)
