"""Wait for CHAP's API while there is progress: for its first answer, and until it is ready."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from compose_chap.engine.world import World
from compose_chap.errors import ChapError
from compose_chap.model import Stack
from compose_chap.stack.chap import Chap, Health
from compose_chap.stack.databases import server_of
from compose_chap.transaction import evidence

# For how many seconds one program in the API's container waits for the first answer. To start another takes time of the
# API's own start. It ends with its container.
_FIRST_ANSWER = 5.0
# The same for the workers. It begins with a question to CHAP that takes a second.
_WORKERS_ANSWER = 3.0


class _Patience:
    """How long to wait for CHAP's API: progress, not a clock, decides.

    While the container runs and work is done in the database, a migration may take as long as it needs.
    """

    def __init__(self, world: World, stack: Stack) -> None:
        self._world, self._stack = world, stack
        self._server = server_of(world.engine, stack)
        self._begun = self._last = world.clock()
        self._seen: Any = None

    def check_container(self) -> None:
        """Raise EndedAtStart when the container of the API has ended."""
        api = self._stack.api.containers[0]
        container = self._world.engine.container(api.id)
        if container is None or not container.running or container.restarts > api.restarts:
            why = evidence.why_ended(self._world, api)
            raise EndedAtStart(f"CHAP failed to start: {why or 'its container is gone'}", why)

    def over(self, state: Any, waits: str, *, silent: bool) -> bool:
        """Whether nothing has happened for too long. `state` is what CHAP answers now, `waits` what it waits for."""
        database = self._stack.access.name
        now, sign = self._world.clock(), (state, self._server.activity(database))
        if sign != self._seen or (silent and self._server.is_busy(database)):
            self._seen, self._last = sign, now
        waited = (now - self._begun).total_seconds()
        self._world.notify("wait", waits, waited, 0)
        return (now - self._last).total_seconds() > self._world.patience or waited > self._world.limit


def wait_for_answer(world: World, stack: Stack) -> bool | None:
    """Wait for the API's first answer; return whether it was silent before. None when nothing happened for too long.

    Raise EndedAtStart when the container ends.
    """
    chap, patience, silent = Chap(world.engine, stack.api.containers[0].id), _Patience(world, stack), False
    while True:
        patience.check_container()
        # Work in the database must be seen several times before the patience ends.
        answer = chap.first_answer(min(_FIRST_ANSWER, world.patience / 4))
        silent = silent or answer.silent
        if answer.came:
            return silent
        if patience.over("silent", "for its first answer", silent=True):
            return None


def wait_for_api(world: World, stack: Stack, *, workers: bool) -> Health:
    """Wait until the API is ready, and return its health at the end of the wait.

    Without `workers`, an API that only lacks its workers counts as ready. Raise EndedAtStart when the container ends.
    """
    chap, patience = Chap(world.engine, stack.api.containers[0].id), _Patience(world, stack)
    with ThreadPoolExecutor(1) as pool:
        while True:
            patience.check_container()
            # CHAP takes a second to answer, with workers that may be up only in its last moment.
            answering = pool.submit(chap.workers_answer, stack.workers, _WORKERS_ANSWER) if workers else None
            health = chap.health()
            if health.ready or (not workers and only_workers_missing(health)):
                return health
            silent = health.level == "silent"
            if patience.over(health, "for its first answer" if silent else health.problems, silent=silent):
                return health
            answered = answering and only_workers_missing(health) and answering.result()
            world.sleep(0.05 if answered else 0.2)


def only_workers_missing(health: Health) -> bool:
    """Whether an API that is not ready only lacks its workers."""
    failing = [part for part, state in health.checks.items() if state != "ok"]
    return health.level == "answering" and failing == ["celery"]


class EndedAtStart(ChapError):
    """CHAP's API ended at its start; `reason` comes from its log or exit status."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
