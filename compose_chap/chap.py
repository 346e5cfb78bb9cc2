"""What CHAP says of itself, asked inside its own containers.

Asking from inside works for every kind of Docker context and needs no published port, and a token that CHAP
itself has never leaves its container. The facts about CHAP's answers come from chap-core v1.0.1 to v2.1.0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compose_chap.engine import Engine
from compose_chap.errors import EngineError

PORT = 8000

_PYTHON = ("sh", "-c", 'exec "$(command -v python || command -v python3)" -c "$1"', "sh")

_VERSION = """
import importlib.metadata
print(importlib.metadata.version("chap_core"))
"""

_REQUESTS = """
import json, os, sys, urllib.error, urllib.request
given = json.load(sys.stdin)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
answers = []
for one in given:
    headers = dict(one.get("headers") or {})
    token = os.environ.get("CHAP_API_TOKEN")
    if token and one.get("own"):
        headers["Authorization"] = "Bearer " + token
    request = urllib.request.Request(one["url"], headers=headers)
    try:
        try:
            answer = opener.open(request, timeout=one["timeout"])
        except urllib.error.HTTPError as error:
            answer = error
        body = answer.read(1 << 22).decode("utf-8", "replace")
        answers.append({"status": answer.status, "body": body})
    except Exception as error:
        answers.append({"status": 0, "body": str(error)})
print(json.dumps(answers))
"""

# The models of the running code, held against the database it uses: the only marker of the schema that can be
# trusted, since CHAP swallows a failed migration and most installations have no alembic_version at all.
_SCHEMA = """
import json, os, sys
out = sys.stdout
sys.stdout = sys.stderr
import chap_core.database.database
import sqlalchemy
from sqlmodel import SQLModel
engine = sqlalchemy.create_engine(os.environ["CHAP_DATABASE_URL"])
there = sqlalchemy.inspect(engine)
tables = set(there.get_table_names())
missing_tables, missing_columns = [], []
for name, table in sorted(SQLModel.metadata.tables.items()):
    if name not in tables:
        missing_tables.append(name)
        continue
    found = {column["name"] for column in there.get_columns(name)}
    missing_columns += [name + "." + column.name for column in table.columns if column.name not in found]
current, heads = [], []
if "alembic_version" in tables:
    with engine.connect() as connection:
        current = [row[0] for row in connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version"))]
try:
    import logging
    logging.disable(logging.CRITICAL)
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    package = os.path.dirname(os.path.abspath(chap_core.__file__))
    for folder in (os.getcwd(), os.path.dirname(package), package):
        path = os.path.join(folder, "alembic.ini")
        if os.path.exists(path):
            configuration = Config(path)
            configuration.set_main_option("script_location", os.path.join(folder, "alembic"))
            heads = list(ScriptDirectory.from_config(configuration).get_heads())
            break
except Exception as error:
    print(error, file=sys.stderr)
print(json.dumps({"missing_tables": missing_tables, "missing_columns": missing_columns,
                  "alembic": current, "heads": heads}), file=out)
"""

_ACTIVE_JOBS = """
import json, sys
out = sys.stdout
sys.stdout = sys.stderr
from celery import Celery
from chap_core.rest_api import celery_tasks
application = next(value for value in vars(celery_tasks).values() if isinstance(value, Celery))
answers = application.control.inspect(timeout=3).active()
jobs = None if answers is None else [task["id"] for tasks in answers.values() for task in tasks]
print(json.dumps({"workers": sorted(answers or ()), "jobs": jobs}), file=out)
"""


_MODEL_COLUMNS = """
import json, sys
out = sys.stdout
sys.stdout = sys.stderr
import chap_core.database.database
from sqlmodel import SQLModel
print(json.dumps([name + "." + column.name for name, table in SQLModel.metadata.tables.items()
                  for column in table.columns]), file=out)
"""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: its status (0 when nothing answered) and its text."""

    status: int
    body: str

    @property
    def json(self) -> Any:
        """The body as JSON, None when it is none: a login page also answers 200."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True)
class Schema:
    """What the running code's models miss in the database, and where Alembic stands."""

    missing_tables: tuple[str, ...]
    missing_columns: tuple[str, ...]
    alembic: tuple[str, ...]
    heads: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """`complete`, `complete, Alembic behind` or `incomplete`."""
        if self.missing_tables or self.missing_columns:
            return "incomplete"
        return "complete" if self.alembic and set(self.alembic) >= set(self.heads) else "complete, Alembic behind"


@dataclass(frozen=True)
class Health:
    """How well CHAP answers: `ready`, `answering` (but not ready) or `silent`; what is wrong by part."""

    level: str
    checks: Mapping[str, str]

    @property
    def ready(self) -> bool:
        """Whether everything that this version of CHAP can tell of is well."""
        return self.level == "ready"

    @property
    def problems(self) -> str:
        """The parts that are not well, in words."""
        return ", ".join(f"{part}: {said}" for part, said in self.checks.items() if said != "ok")


@dataclass(frozen=True)
class Jobs:
    """The jobs that run now, those that wait, and those that say so but are dead (zombies)."""

    running: tuple[str, ...]
    waiting: tuple[str, ...]
    zombies: tuple[str, ...]
    workers: tuple[str, ...]


class Chap:
    """The CHAP inside one API container."""

    def __init__(self, engine: Engine, container: str) -> None:
        self.engine = engine
        self.container = container

    def version(self) -> str:
        """Return the version that the installed code reports, such as `2.1.0`, `` when it does not say."""
        return version_in(self.engine, self.container)

    def schema(self) -> Schema:
        """Compare the models of the running code with the live database.

        Raise EngineError when the container cannot answer: old releases have no SQLModel database.
        """
        found = self._python(_SCHEMA)
        return Schema(*(tuple(found[key]) for key in ("missing_tables", "missing_columns", "alembic", "heads")))

    def model_columns(self) -> list[str]:
        """Return every `table.column` that the running code knows. Raise EngineError when it cannot say."""
        return [str(name) for name in self._python(_MODEL_COLUMNS)]

    def health(self) -> Health:
        """Ask CHAP how it is. `/health` alone proves nothing: it is 200 with database and broker dead."""
        alive, ready = self.get("/health", "/health/ready", timeout=5)

        if alive.status == 0:
            return Health("silent", {"http": alive.body})
        checks = (ready.json or {}).get("checks") if isinstance(ready.json, dict) else None
        if checks:
            return Health("ready" if ready.status == 200 else "answering", checks)
        if ready.status in (404, 401):
            # Before v2.0.0 there is nothing better than the sign of life.
            return Health("ready" if alive.status in (200, 404) else "answering", {})
        return Health("answering", {"http": f"/health/ready answered {ready.status}"})

    def models(self) -> tuple[str, ...]:
        """Return the ids of the model services that are registered now; none before v1.3.0.

        `/v1/crud/model-templates` is not asked: reading it archives every model that is away for a moment.
        """
        (answer,) = self.get("/v2/services")
        services = answer.json.get("services", []) if isinstance(answer.json, dict) else []
        return tuple(sorted(service["id"] for service in services))

    def jobs(self) -> Jobs:
        """Return what CHAP's job list and its workers say together.

        A job whose worker died stays STARTED for ever, so a job runs only when a worker says so too.
        Raise EngineError when the workers cannot be asked.
        """
        (answer,) = self.get("/v1/jobs?status=STARTED&status=PENDING")
        listed = answer.json if isinstance(answer.json, list) else []
        started = {job["id"] for job in listed if job["status"] == "STARTED"}
        waiting = tuple(sorted(job["id"] for job in listed if job["status"] == "PENDING"))
        active = self._python(_ACTIVE_JOBS)
        running = set(active["jobs"] or ())
        return Jobs(tuple(sorted(running)), waiting, tuple(sorted(started - running)), tuple(active["workers"]))

    def get(self, *paths: str, timeout: float = 10) -> list[Answer]:
        """Ask CHAP's own REST API."""
        return self._requests(
            [{"url": f"http://127.0.0.1:{PORT}{path}", "timeout": timeout, "own": True} for path in paths]
        )

    def dhis2_get(self, host: str, credentials: Mapping[str, str], *paths: str, timeout: float = 15) -> list[Answer]:
        """Ask DHIS2 on the stack's own network; `credentials` is a header such as Authorization."""
        return self._requests(
            [{"url": f"http://{host}:8080{path}", "headers": dict(credentials), "timeout": timeout} for path in paths]
        )

    def _requests(self, requests: Sequence[Mapping[str, Any]]) -> list[Answer]:
        finished = self.engine.run(self.container, [*_PYTHON, _REQUESTS], given=json.dumps(list(requests)).encode())
        if finished.status != 0:
            return [Answer(0, finished.said)] * len(requests)
        return [Answer(one["status"], one["body"]) for one in json.loads(finished.stdout)]

    def _python(self, script: str) -> Any:
        finished = self.engine.run(self.container, [*_PYTHON, script])
        try:
            return json.loads(finished.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            raise EngineError(f"CHAP could not be asked in its container:\n{finished.said}") from None


def version_in(engine: Engine, container: str) -> str:
    """Return the version of the CHAP code in a container, API or worker; `` when it cannot say.

    The package's metadata are read, for importing chap_core takes seconds and prints warnings.
    """
    finished = engine.run(container, [*_PYTHON, _VERSION])
    lines = finished.stdout.strip().splitlines()
    return lines[-1] if finished.status == 0 and lines else ""
