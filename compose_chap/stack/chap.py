"""The state of CHAP: its REST API and workers, queried from inside its own containers.

That works for every kind of Docker context and needs no published port, and CHAP's token never leaves its container.
The facts about CHAP's answers come from chap-core v1.0.1 to v2.1.0.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from compose_chap import reading
from compose_chap.engine.engine import Engine
from compose_chap.engine.last_error import last_error
from compose_chap.errors import EngineError
from compose_chap.processes.process import Finished
from compose_chap.reading import Value
from compose_chap.stack import chap_scripts
from compose_chap.stack.chap_answers import Answer, Job, answers_of, checks_in, jobs_in, models_in

PORT = 8000

_UNFINISHED_JOBS = "?status=STARTED&status=PENDING"
# Jobs that v2.5.0 and newer queue on their own, and queue again when they are missing.
_QUEUED_BY_CHAP = ("run_baseline",)


@dataclass(frozen=True)
class Health:
    """How well CHAP answers: `ready`, `answering` (but not ready) or `silent`; `checks` has the state of each part."""

    level: str
    checks: Mapping[str, str]

    @property
    def ready(self) -> bool:
        """Whether every part that this version of CHAP reports is healthy."""
        return self.level == "ready"

    @property
    def problems(self) -> str:
        """The parts that are not healthy, for people."""
        if self.level == "silent" and self.checks:
            return f"does not answer ({self.checks['http']})"
        return ", ".join(f"{part}: {answer}" for part, answer in self.checks.items() if answer != "ok")

    @property
    def summary(self) -> str:
        """The state for people; for a silent CHAP only that."""
        if self.ready:
            return self.level
        return self.problems if self.level == "silent" else f"{self.level}: {self.problems}"


@dataclass(frozen=True)
class Active:
    """The workers that answered, and the jobs that they run now."""

    workers: tuple[str, ...]
    jobs: frozenset[str]


@dataclass(frozen=True)
class Jobs:
    """The jobs that run now, those that wait, and those listed as running whose worker died (zombies).

    `own` are running or waiting jobs that CHAP queued by itself: they are in neither of the first two.
    """

    running: tuple[str, ...]
    waiting: tuple[str, ...]
    zombies: tuple[str, ...]
    workers: tuple[str, ...]
    own: tuple[str, ...] = ()

    @classmethod
    def of(cls, listed: Mapping[str, Job], active: Active) -> Jobs:
        """Combine CHAP's own list (jobs by id) with the jobs of its workers."""
        started = {identity for identity, job in listed.items() if job.status == "STARTED"}
        waiting = {identity for identity, job in listed.items() if job.status == "PENDING"}
        own = {identity for identity, job in listed.items() if job.type in _QUEUED_BY_CHAP}
        return cls(
            tuple(sorted(active.jobs - own)),
            tuple(sorted(waiting - own)),
            tuple(sorted(started - active.jobs)),
            active.workers,
            tuple(sorted((active.jobs | waiting) & own)),
        )


@dataclass(frozen=True)
class FirstAnswer:
    """Whether CHAP answers, and whether it was `silent` when it was asked first."""

    came: bool
    silent: bool


@dataclass(frozen=True)
class Overview:
    """The state of CHAP at one moment; `listed` are the jobs of its own list by id, or the error of reading it."""

    version: str
    health: Health
    models: tuple[str, ...]
    listed: Mapping[str, Job] | EngineError

    @classmethod
    def empty(cls) -> Overview:
        """Return the overview of a CHAP that does not run."""
        return cls("", Health("silent", {}), (), {})


class Chap:
    """The CHAP inside one API container."""

    def __init__(self, engine: Engine, container: str) -> None:
        self.engine = engine
        self.container = container

    def version(self) -> str:
        """Return the version that the installed code reports, such as `2.1.0`, empty when it does not."""
        return version_in(self.engine, self.container)

    def overview(self, on_sent: Callable[[], None] = lambda: None) -> Overview:
        """Return everything that CHAP's own API reports.

        That takes a second. `on_sent` is called when all is asked, so that what else needs a processor can begin then.
        """
        paths = ("/health", "/health/ready", "/v2/services", f"/v1/jobs{_UNFINISHED_JOBS}")
        version, answers = self._ask(*paths, on_sent=on_sent)
        return Overview(version, _health(*answers[:2]), models_in(answers[2]), _listed(answers[3]))

    def health(self) -> Health:
        """Return CHAP's health. `/health` alone proves nothing: it is 200 with database and broker dead."""
        return _health(*self.get("/health", "/health/ready", timeout=5))

    def first_answer(self, patience: float) -> FirstAnswer:
        """Wait up to `patience` seconds for an answer to anything."""
        limits = {"CHAP_API": str(PORT), "CHAP_PATIENCE": str(patience)}
        with suppress(EngineError):
            answer = python(self.engine, self.container, chap_scripts.FIRST_ANSWER, "What listens", **limits)
            return FirstAnswer(answer.at("answers").flag(), answer.at("silent").flag())
        return FirstAnswer(came=False, silent=True)

    def models(self) -> tuple[str, ...]:
        """Return the ids of the model services that are registered now; none before v1.3.0.

        `/v1/crud/model-templates` is not used: reading it archives every model that is briefly offline.
        """
        return models_in(*self.get("/v2/services"))

    def listed_jobs(self) -> dict[str, Job]:
        """Return the jobs of CHAP's own list by id, those that ended left out. Raise EngineError."""
        return jobs_in(self.get(f"/v1/jobs{_UNFINISHED_JOBS}")[0])

    def waiting_jobs(self) -> Jobs | None:
        """Return the jobs that wait according to CHAP's list, None where it has no list. Raise EngineError."""
        answer = self.get(f"/v1/jobs{_UNFINISHED_JOBS}", timeout=3)[0]
        return Jobs.of(jobs_in(answer), Active((), frozenset())) if answer.status == 200 else None

    def workers_answer(self, workers: int, patience: float) -> bool:
        """Wait up to `patience` seconds for that number of workers to answer. Return whether they do."""
        limits = {"CHAP_WORKERS": str(workers), "CHAP_PATIENCE": str(patience)}
        with suppress(EngineError):
            answer = python(self.engine, self.container, chap_scripts.PING, "What the workers answered", **limits)
            return answer.at("workers").integer() >= workers
        return False

    def jobs(self, workers: int) -> Jobs:
        """Return the jobs according to CHAP's list and its workers.

        A job whose worker died stays STARTED for ever, so a job counts as running only if a worker confirms it.
        `workers` is how many to wait for; 0 waits three seconds. Raise EngineError when they cannot be asked.
        """
        return Jobs.of(self.listed_jobs(), self.active(workers))

    def active(self, workers: int) -> Active:
        """Return the workers that answer, and the jobs that they run now.

        `workers` is how many to wait for; 0 waits three seconds. Raise EngineError when they cannot be asked.
        """
        script, answer = chap_scripts.ACTIVE_JOBS, "What the workers answered"
        return _active(python(self.engine, self.container, script, answer, CHAP_WORKERS=str(workers)))

    def idle(self, workers: Iterable[str]) -> frozenset[str]:
        """Tell workers, by container id, to take no more jobs, and return those that surely have none.

        They take jobs again when they are started again. Those that do not answer within a second count as busy.
        """
        # Celery calls a worker by its host, and Docker the host by the container, unless somebody set another name.
        names = {f"celery@{worker[:12]}": worker for worker in workers}
        script, answer = chap_scripts.IDLE, "What the workers answered"
        with suppress(EngineError):
            idle = python(self.engine, self.container, script, answer, CHAP_WORKERS=" ".join(names))
            return frozenset(names[name] for name in idle.at("idle").texts() if name in names)
        return frozenset()

    def get(self, *paths: str, timeout: float = 10) -> list[Answer]:
        """Send GET requests to CHAP's own REST API."""
        return self._ask(*paths, timeout=timeout)[1]

    def _ask(
        self, *paths: str, timeout: float = 10, on_sent: Callable[[], None] = lambda: None
    ) -> tuple[str, list[Answer]]:
        requests = [{"url": f"http://127.0.0.1:{PORT}{path}", "timeout": timeout, "own": True} for path in paths]
        return self._requests(requests, on_sent)

    def dhis2_get(self, host: str, credentials: Mapping[str, str], *paths: str, timeout: float = 15) -> list[Answer]:
        """Send GET requests to DHIS2 on the stack's own network; `credentials` is a header such as Authorization."""
        return self._requests(
            [{"url": f"http://{host}:8080{path}", "headers": dict(credentials), "timeout": timeout} for path in paths]
        )[1]

    def _requests(
        self, requests: Sequence[Mapping[str, Any]], on_sent: Callable[[], None] = lambda: None
    ) -> tuple[str, list[Answer]]:
        payload, command = json.dumps(list(requests)).encode(), [*chap_scripts.PYTHON, chap_scripts.REQUESTS]
        finished = self.engine.run(self.container, command, stdin=payload, on_output=on_sent)
        if finished.status != 0:
            return "", [Answer(0, _failure_reason(finished))] * len(requests)
        try:
            return answers_of(finished.stdout, len(requests))
        except EngineError as error:
            return "", [Answer(0, error.message)] * len(requests)


# A Python warning with its source line. CHAP prints some at every start: they are never why it failed.
_WARNING = re.compile(r"^.*:\d+: \w*Warning: .*\n?(?:[ \t]+.*\n?)?", re.MULTILINE)
_KILLED = 137


def _failure_reason(finished: Finished) -> str:
    """Return why a program in a container gave no answer, for people."""
    if finished.status == _KILLED:
        return "its container is stopping, or has no memory left"
    return last_error(_WARNING.sub("", finished.stderr)) or f"it gave no output (exit status {finished.status})"


def _active(answer: Value) -> Active:
    return Active(answer.at("workers").texts(), frozenset(answer.at("jobs").texts()))


def _health(alive: Answer, ready: Answer) -> Health:
    if alive.status == 0:
        return Health("silent", {"http": alive.body})
    if checks := checks_in(ready):
        return Health("ready" if ready.status == 200 else "answering", checks)
    if ready.status in (404, 401):
        # Before v2.0.0 there is nothing better than /health.
        return Health("ready" if alive.status in (200, 404) else "answering", {})
    return Health("answering", {"http": f"/health/ready answered {ready.status}"})


def _listed(answer: Answer) -> dict[str, Job] | EngineError:
    try:
        return jobs_in(answer)
    except EngineError as error:
        return error


def python(engine: Engine, container: str, script: str, answer: str, **environment: str) -> Value:
    """Run one of `chap_scripts` in a container and return its answer; error messages call it `answer`.

    Raise EngineError with the reason when it fails.
    """
    finished = engine.run(container, [*chap_scripts.PYTHON, script], environment=environment)
    printed = finished.stdout.strip().splitlines()
    if finished.status != 0 or not printed:
        raise EngineError(f"CHAP could not be asked in its container: {_failure_reason(finished)}")
    return reading.parse(printed[-1], answer, EngineError)


def version_in(engine: Engine, container: str) -> str:
    """Return the version of the CHAP code in a container, API or worker; empty when unknown.

    It comes from the package's metadata, because importing chap_core takes seconds and prints warnings.
    """
    finished = engine.run(container, [*chap_scripts.PYTHON, chap_scripts.VERSION])
    lines = finished.stdout.strip().splitlines()
    return lines[-1] if finished.status == 0 and lines else ""


def basic_credentials(user: str, password: str) -> dict[str, str]:
    """Return the header that logs in to DHIS2 with user and password."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
