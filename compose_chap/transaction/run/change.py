"""What a transaction changes in a stack, as a record for the journal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from compose_chap.edit import Edit
from compose_chap.engine.world import World
from compose_chap.model import Project, Stack
from compose_chap.postgres.reach import STANDARD_PORT
from compose_chap.postgres.server import Server
from compose_chap.project.checkout import Move
from compose_chap.records.files import durable
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.transaction.run.baseline import Baseline
from compose_chap.transaction.run.kept import failed_name, side_name


@dataclass(frozen=True)
class Change:
    """What a transaction changes, and everything needed to undo it.

    `writers` are the services that are stopped and started, the API first; `containers` and `images` are
    theirs as they were. `live` is CHAP's database. It is kept as `kept`: as a copy when `incoming` is empty,
    else by renaming it, and the database `incoming` becomes the live one. `recreate` says that containers
    are created again from the files after `edits`; otherwise the old ones are started again. `expected` is the
    version that must answer afterwards, empty for any, and `tables` the rows that must be there then, where
    they are not those of the kept data.
    `accepted` is a verdict on the schema that does not stop the change though it is a bad one: old data come back as
    they were. `images_after` is what the recreated writers must run. With `by_dump` no copy of the database is tried;
    `mark` is the state of the server's transactions before the backup, which is kept alone if nothing was written
    since; it is empty where a copy is always made. `move` is the way of the checkout that the writers are built from,
    None where they are not built; `edits` are then settings that its new files need. `repairs` are the known faults of
    the new version that are mended, by name.
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
    def failed(self) -> str:
        """The name that data take which did not prove good, until they are dropped."""
        return failed_name(self.kept)

    @property
    def databases(self) -> tuple[str, ...]:
        """Every database that this change may use."""
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
    """Return the parts of a change that come from the stack and its database server."""
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
    """Return reference and id of each writer's running image."""
    return {
        service.name: {"reference": service.containers[0].image, "id": service.containers[0].image_id}
        for service in stack.writers
    }


def begin(world: World, journal: Journal, step: Step, detail: str = "", **facts: Any) -> None:
    """Record that a step begins, with the facts to undo it, then report it."""
    journal.begin(step, **facts)
    world.notify(step.value, detail, 0, 0)
