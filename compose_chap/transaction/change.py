"""What a transaction does to a stack, as a record that a journal can hold, and the effects that both ways share."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from compose_chap.engine.engine import UP_ALONE
from compose_chap.engine.process import check as succeeded
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, EngineError, StackError
from compose_chap.image import Reference
from compose_chap.model import Container, Project, Stack
from compose_chap.postgres.reach import STANDARD_PORT
from compose_chap.postgres.server import Server
from compose_chap.project.checkout import Move
from compose_chap.records import durable
from compose_chap.records.durable import Edit
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.transaction import hooks
from compose_chap.transaction.baseline import Baseline
from compose_chap.transaction.data_plan import DataPlan, Names
from compose_chap.transaction.hooks import Hooks
from compose_chap.transaction.kept import side_name

# For how many seconds PostgreSQL may be silent: its image may be loaded, its log replayed after a crash.
_PATIENCE = 120.0

# Where a container says which Compose files it was made from.
CONFIG_FILES = "com.docker.compose.project.config_files"

# Compose makes the new container under such a name, beside the old one, and renames it when the old one is gone.
_UNFINISHED = re.compile(r"[0-9a-f]{12}_(.+)")


@dataclass(frozen=True)
class Change:
    """What a transaction does, and all that undoing it needs.

    `writers` are the services that are stopped and started, the API first; `containers` and `images` are
    theirs as they were. `live` is CHAP's database. It is kept as `kept`: as a copy when `incoming` is empty,
    else by renaming it, and the database `incoming` becomes the live one. `recreate` says that containers
    are made anew from the files after `edits`; otherwise the old ones are started again. `expected` is the
    version that must answer afterwards, empty for any, and `tables` the rows that must be there then, where
    they are not those of the kept data.
    `accepted` is a verdict on the schema that does not stop the change though it is a bad one: old data come back as
    they were. `images_after` is what the recreated writers must run. With `by_dump` no copy of the database is tried;
    `mark` is what the server said of its transactions before the backup, empty where that is of no use. `move` is
    the way of the checkout that the writers are built from, None where they are not built; `edits` are then settings
    that its new files need. `repairs` are the known faults of the new version that are mended, by name.
    `admin` and `port` are those that the database's server gave for itself.
    """

    operation: str
    project: Project
    writers: tuple[str, ...]
    containers: Mapping[str, list[str]]
    images: Mapping[str, Mapping[str, str]]
    images_after: Mapping[str, Mapping[str, str]]
    database: str
    admin: str
    owner: str
    live: str
    kept: str
    incoming: str
    edits: tuple[Edit, ...]
    recreate: bool
    expected: str
    tables: Mapping[str, int]
    baseline: Baseline
    accepted: str = ""
    by_dump: bool = False
    mark: str = ""
    move: Move | None = None
    repairs: tuple[str, ...] = ()
    port: int = STANDARD_PORT

    @property
    def names(self) -> Names:
        """The names of its databases."""
        return Names(self.live, self.kept, self.incoming)

    @property
    def failed(self) -> str:
        """The name that data take which did not prove good, until they are dropped."""
        return self.names.failed

    @property
    def databases(self) -> tuple[str, ...]:
        """Every database that this change may have in hand."""
        return tuple(filter(None, (self.live, self.kept, self.failed, side_name(self.kept), self.incoming)))

    def to_facts(self) -> dict[str, Any]:
        """Return it as a journal can hold it."""
        facts = {key: value for key, value in vars(self).items() if key not in ("project", "edits", "baseline", "move")}
        return {
            **facts,
            "project": json.loads(json.dumps(asdict(self.project), default=str)),
            "edits": durable.pack_edits(self.edits),
            "baseline": self.baseline.to_json(),
            "move": self.move.to_json() if self.move else None,
        }


def describe(stack: Stack, server: Server) -> dict[str, Any]:
    """Return the parts of a change that are read off the stack and its database's server."""
    return {
        "project": stack.project,
        "writers": tuple(service.name for service in stack.writers),
        "containers": {service.name: [container.id for container in service.containers] for service in stack.writers},
        "images": images_of(stack),
        "database": stack.database.name,
        "admin": server.admin,
        "port": server.port,
        "owner": stack.access.owner,
        "live": stack.access.name,
    }


def images_of(stack: Stack) -> dict[str, dict[str, str]]:
    """Return reference and id of the image of each writer as it runs now."""
    return {
        service.name: {"reference": service.containers[0].image, "id": service.containers[0].image_id}
        for service in stack.writers
    }


def begin(world: World, journal: Journal, step: Step, detail: str = "", **facts: Any) -> None:
    """Write down that a step begins, with facts that its way back needs, then tell of it."""
    journal.begin(step, **facts)
    world.notify(step.value, detail, 0, 0)


def move_data(server: Server, plan: DataPlan) -> None:
    """Carry a plan of the databases out. Raise DatabaseError."""
    if plan.renames:
        server.rename(*plan.renames)
    for name in plan.drops:
        server.drop(name)


def containers_of(world: World, project: Project, service: str) -> list[Container]:
    """Return the containers of one service as they are now."""
    return [container for container in world.engine.containers(project.name) if container.service == service]


def server_of(world: World, change: Change) -> Server:
    """Return the stack's PostgreSQL. Raise StackError when its container is gone."""
    found = containers_of(world, change.project, change.database)
    if not found:
        raise StackError(f"The database service '{change.database}' has no container.")
    return Server(world.engine, found[0].id, change.admin, change.owner)


def stop_writers(world: World, change: Change, hooked: Hooks, *, forgiving: bool = False) -> None:
    """Stop the API and the workers, whatever containers they have now, side by side: each may take ten seconds.

    What their Compose file wants to be run before is run; with `forgiving` it may fail.
    """
    there = [value for name in change.writers for value in containers_of(world, change.project, name)]
    for container in there:
        if container.running:
            hooks.run(world, hooked, hooks.PRE_STOP, container, forgiving=forgiving)
    running = [one.id for one in there if one.running or one.state in ("restarting", "paused")]
    with ThreadPoolExecutor() as pool:
        list(pool.map(world.engine.stop, running))


def start_service(world: World, change: Change, name: str, hooked: Hooks, *, forgiving: bool = False) -> None:
    """Start the containers that a service has now, and run what its Compose file wants to be run then."""
    for container in containers_of(world, change.project, name):
        world.engine.start(container.id)
        if not container.running:
            hooks.run(world, hooked, hooks.POST_START, container, forgiving=forgiving)


def start_what_ran(world: World, change: Change) -> None:
    """Start the other services' containers that ran before and do not now.

    Without a restart policy everything lies still after the engine or the machine was started again.
    """
    for ids in change.baseline.untouched.values():
        for identity, ran in ids.items():
            container = world.engine.container(identity)
            if ran and container and not container.running:
                world.engine.start(identity)


def wait_for_server(world: World, change: Change) -> Server:
    """Start what ran before, and return PostgreSQL when it answers. Raise ChapError when it does not for two minutes.

    The engine may be away for a moment too: an update of Docker starts it anew.
    """
    amiss: ChapError = StackError("The database does not answer.", hint="Look at its logs with docker compose logs.")
    silent = amiss

    def answering(waited: float) -> Server | None:
        nonlocal amiss
        amiss = silent
        try:
            server = server_of(world, change)
            # Each time anew: what is still dying when it is looked at first is dead a moment later.
            start_what_ran(world, change)
            return server if server.ready() else None
        except EngineError as error:
            amiss = error
            return None

    if server := world.until(answering, _PATIENCE):
        return server
    raise amiss


def recreate(
    world: World,
    change: Change,
    services: Sequence[str],
    images: Mapping[str, Mapping[str, str]],
    *,
    anew: bool = False,
) -> None:
    """Recreate services with Compose, without dependencies, pull and build, and look at the images that run then.

    With `anew` also those that Compose finds to be as they should.
    """
    for name in services:
        name_image(world, images[name])
        _remove_unfinished(world, change.project, name)
    # Always, for the files may want another number than runs.
    scale = [f"--scale={name}={len(change.containers[name])}" for name in services]
    words = ["--force-recreate"] if anew else []
    finished = world.engine.compose(change.project, *UP_ALONE, *words, *scale, *services)
    succeeded(finished, f"Starting {', '.join(services)}")

    for name in services:
        for container in containers_of(world, change.project, name):
            if container.image_id != images[name]["id"]:
                raise StackError(f"{container.name} does not run the image {images[name]['reference']}.")


def _remove_unfinished(world: World, project: Project, service: str) -> None:
    """Remove what a Compose that was killed in the middle left: a new container that has not got its name yet."""
    there = containers_of(world, project, service)
    for container in there:
        if unfinished := _UNFINISHED.fullmatch(container.name):
            if any(one.name == unfinished[1] for one in there):
                world.engine.discard(container.id)
            else:
                world.engine.rename(container.id, unfinished[1])


def name_image(world: World, image: Mapping[str, str]) -> None:
    """Give an image the name that its service's containers are made from, if another one has it now.

    Raise StackError when the image is gone: `docker system prune -a` takes any that no container is made from.
    """
    reference = Reference.parse(image["reference"])
    now = world.engine.image(image["reference"])
    if reference.digest or (now and now.id == image["id"]):
        return
    if world.engine.image(image["id"]) is None:
        raise StackError(
            f"The image {reference} that ran before ({image['id'][:19]}) is no longer on this server.",
            hint=f"Get it back: docker pull {reference}",
        )
    world.engine.tag(image["id"], reference.repository, reference.tag or "latest")
