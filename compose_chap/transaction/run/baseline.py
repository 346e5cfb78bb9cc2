"""The state of a stack before anything is changed, which an operation must preserve or restore."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from compose_chap.engine.world import World
from compose_chap.errors import ChapError
from compose_chap.model import Role, Stack
from compose_chap.postgres.reach import APPLICATION
from compose_chap.postgres.server import Server, Session
from compose_chap.stack import schema
from compose_chap.stack.chap import Chap, Overview, version_in
from compose_chap.stack.databases import server_of


@dataclass(frozen=True)
class Baseline:
    """The state of a stack before anything was changed.

    `has_data` says that CHAP's database existed and answered. `schema` is the verdict on it, empty for none.
    """

    version: str
    worker_versions: Mapping[str, str]
    models: tuple[str, ...]
    route: str
    ready: bool
    has_data: bool
    untouched: Mapping[str, Mapping[str, bool]]
    schema: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as a journal can hold it."""
        return asdict(self)


def baseline_of(world: World, stack: Stack, ask: Callable[[], Overview] | None = None) -> Baseline:
    """Return the baseline of a stack. What cannot be read is left empty, for example of a lost database.

    `ask` returns the API's state, where others want to know it too.
    """
    # Each waits for a program in another container.
    with ThreadPoolExecutor() as pool:
        versions, route = pool.submit(worker_versions, world, stack), pool.submit(route_of, world, stack)
        has_data, verdict = pool.submit(_has_data, world, stack), pool.submit(_verdict, world, stack)
        overview = ask() if ask else _overview(world, stack)
    return Baseline(
        version=overview.version,
        worker_versions=versions.result(),
        models=overview.models,
        route=route.result(),
        ready=overview.health.ready,
        has_data=has_data.result(),
        untouched=_others(stack),
        schema=verdict.result(),
    )


def _overview(world: World, stack: Stack) -> Overview:
    api = stack.api.containers[0]
    return Chap(world.engine, api.id).overview() if api.running else Overview.empty()


def worker_versions(world: World, stack: Stack) -> dict[str, str]:
    """Return the version that each running worker reports, by container."""
    return {
        container.name: version_in(world.engine, container.id)
        for worker in stack.of(Role.WORKER)
        for container in worker.containers
        if container.running
    }


def other_sessions(server: Server, stack: Stack) -> tuple[Session, ...]:
    """Return the sessions in CHAP's database besides CHAP's own and this tool's: a change ends them."""
    own = {address for service in stack.writers for container in service.containers for address in container.addresses}
    return tuple(
        session
        for session in server.sessions(stack.access.name)
        if session.address not in own and session.application != APPLICATION
    )


def _has_data(world: World, stack: Stack) -> bool:
    try:
        return bool(server_of(world.engine, stack).columns(stack.access.name))
    except ChapError:
        return False


def _verdict(world: World, stack: Stack) -> str:
    with suppress(ChapError):
        return schema.of_stack(world, stack).verdict
    return ""


def _others(stack: Stack) -> dict[str, dict[str, bool]]:
    return {
        service.name: {container.id: container.running for container in service.containers}
        for service in stack.services
        if service not in stack.writers
    }


def route_of(world: World, stack: Stack) -> str:
    """Return the target of DHIS2's route to CHAP, from DHIS2's database; empty without a DHIS2."""
    for service in stack.of(Role.DHIS2_DATABASE):
        container = service.containers[0]
        user = container.environment.get("POSTGRES_USER", "postgres")
        if container.running:
            with suppress(ChapError):
                rows = Server(world.engine, container.id, user).query(
                    "SELECT url FROM public.route WHERE code = 'chap'", container.environment.get("POSTGRES_DB", user)
                )
                return str(rows[0][0] or "") if rows else ""
    return ""
