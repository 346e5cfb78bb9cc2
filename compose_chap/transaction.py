"""The one way forward and the one way back that upgrade, restore and rollback share.

A change stops the writers, keeps the old data under another name, replaces files, data and containers as far
as it has to, and looks at the result. Every step is in the journal before it begins. The way back reads only
the journal and the world, so it is the same after an error, a Ctrl-C and a power cut.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compose_chap import state, verify
from compose_chap.errors import (
    Cancelled,
    ChapError,
    NeedsPerson,
    RolledBack,
    StackError,
    StateError,
)
from compose_chap.postgres import Server
from compose_chap.process import check as succeeded
from compose_chap.stack import Container, Project, Reference, Stack
from compose_chap.state import Edit, Journal
from compose_chap.verify import Baseline, Check
from compose_chap.world import World

KEPT_IMAGES = "docker-chap/kept"


@dataclass(frozen=True)
class Change:
    """What a transaction does, and all that undoing it needs.

    `writers` are the services that are stopped and started, the API first; `containers` and `images` are
    theirs as they were. `live` is CHAP's database. It is kept as `kept`: as a copy when `incoming` is empty,
    else by renaming it, and the database `incoming` becomes the live one. `recreate` says that containers
    are made anew from the files after `edits`; otherwise the old ones are started again. `expected` is the
    version that must answer afterwards, empty for any, and `tables` the rows that must be there then.
    `images_after` is what the recreated writers must run.
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

    @property
    def failed(self) -> str:
        """The name that data take which did not prove good, until they are dropped."""
        return f"{self.kept}_failed"

    def to_facts(self) -> dict[str, Any]:
        """Return it as a journal can hold it."""
        facts = {key: value for key, value in vars(self).items() if key not in ("project", "edits", "baseline")}
        return {
            **facts,
            "project": json.loads(json.dumps(asdict(self.project), default=str)),
            "edits": state.pack_edits(self.edits),
            "baseline": self.baseline.to_json(),
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Change:
        """Return the change of a journal."""
        known = {key: facts[key] for key in cls.__dataclass_fields__ if key in facts}
        project = facts["project"]
        known["project"] = Project(
            project["name"],
            Path(project["directory"]),
            tuple(map(Path, project["files"])),
            tuple(map(Path, project["env_files"])),
        )
        known["writers"] = tuple(facts["writers"])
        known["edits"] = state.unpack_edits(facts["edits"])
        known["baseline"] = Baseline.from_json(facts["baseline"])
        return cls(**known)


def describe(stack: Stack) -> dict[str, Any]:
    """Return the parts of a change that are read off the stack."""
    return {
        "project": stack.project,
        "writers": tuple(service.name for service in stack.writers),
        "containers": {service.name: [one.id for one in service.containers] for service in stack.writers},
        "images": {
            service.name: {"reference": service.containers[0].image, "id": service.containers[0].image_id}
            for service in stack.writers
        },
        "database": stack.database.name,
        "admin": stack.access.admin,
        "owner": stack.access.owner,
        "live": stack.access.name,
    }


def run(world: World, change: Change, journal: Journal, credentials: Mapping[str, str]) -> list[Check]:
    """Carry a change out and return its checks. On any failure go all the way back first.

    Raise RolledBack (all is as it was), Cancelled (the same, on the operator's word) or NeedsPerson.
    """
    try:
        checks = _forward(world, change, journal, credentials)
    except BaseException as error:
        with state.signals_held():
            _back_after(world, change, journal, error)
        raise AssertionError("unreachable") from None
    return checks


def _forward(world: World, change: Change, journal: Journal, credentials: Mapping[str, str]) -> list[Check]:
    server = server_of(world, change)

    _begin(world, journal, "stop", ", ".join(change.writers))
    stop_writers(world, change)

    if change.incoming:
        if change.edits:
            _rewrite(world, change, journal)
        _begin(world, journal, "swap", f"{change.incoming} becomes {change.live}")
        _swap(server, change)
    else:
        _begin(world, journal, "keep", f"{change.live} as {change.kept}")
        server.disconnect(change.live)
        server.copy(change.live, change.kept, change.owner)
        _rewrite(world, change, journal)

    api, *workers = change.writers
    _begin(world, journal, "start api", api)
    _bring_up(world, change, [api])
    _begin(world, journal, "verify api", "")
    stack = verify.refreshed(world, change.project.name)
    verify.wait_for_api(world, stack, workers=False)
    checks = _demand(verify.check_api(world, stack, change.expected, change.tables))

    # The worker comes second: it may not run against a schema that nobody has looked at.
    _begin(world, journal, "start worker", ", ".join(workers))
    _bring_up(world, change, workers)
    _begin(world, journal, "verify", "")
    whole = verify.check_whole(
        world, verify.refreshed(world, change.project.name), change.expected, change.baseline, credentials
    )
    return checks + _demand(whole)


def _rewrite(world: World, change: Change, journal: Journal) -> None:
    if not change.edits:
        return
    _begin(world, journal, "rewrite", ", ".join(str(edit.path) for edit in change.edits))
    before = world.engine.compose_config(change.project)
    state.apply_edits(change.edits)
    after = world.engine.compose_config(change.project)

    for config in (before, after):
        for name in change.writers:
            config["services"][name].pop("image", None)
    if before != after:
        raise StateError("Compose reads more changes in the edited files than the images.")


def _swap(server: Server, change: Change) -> None:
    there = server.databases()
    if change.live in there:
        server.carry(change.live, change.incoming)
        server.rename((change.live, change.kept), (change.incoming, change.live))
    else:
        server.rename((change.incoming, change.live))


def _bring_up(world: World, change: Change, services: list[str]) -> None:
    if not services:
        return
    if not change.recreate:
        for name in services:
            for container in containers_of(world, change.project, name):
                world.engine.start(container.id)
        return
    _recreate(world, change, services, change.images_after)


def _recreate(world: World, change: Change, services: list[str], images: Mapping[str, Mapping[str, str]]) -> None:
    """Recreate services with Compose, and nothing else: no dependencies, no pull, no build; then look at their images."""
    for name in services:
        _name_image(world, images[name])
    scale = [f"--scale={name}={len(change.containers[name])}" for name in services if len(change.containers[name]) > 1]
    finished = world.engine.compose(
        change.project, "up", "-d", "--no-deps", "--no-build", "--pull", "never", *scale, *services
    )
    succeeded(finished, f"Starting {', '.join(services)}")

    for name in services:
        for container in containers_of(world, change.project, name):
            if container.image_id != images[name]["id"]:
                raise StackError(f"{container.name} does not run the image {images[name]['reference']}.")


def _demand(checks: list[Check]) -> list[Check]:
    if any(check.failed for check in checks):
        raise VerifyFailed(checks)
    return checks


class VerifyFailed(ChapError):
    """The result was looked at and is not good; `checks` says why."""

    code = "verify"

    def __init__(self, checks: list[Check]) -> None:
        super().__init__(verify.failures(checks))
        self.checks = checks


# The way back


def _back_after(world: World, change: Change, journal: Journal, error: BaseException) -> None:
    cause = error.message if isinstance(error, ChapError) else str(error) or type(error).__name__
    cancelled = isinstance(error, KeyboardInterrupt)
    seen = [asdict(check) for check in error.checks] if isinstance(error, VerifyFailed) else []
    journal.learn(failure="cancelled" if cancelled else cause, failed_checks=seen)
    evidence = gather_evidence(world, change, journal)
    try:
        checks = undo(world, change, journal)
    except Exception as second:
        said = second.message if isinstance(second, ChapError) else f"{type(second).__name__}: {second}"
        raise NeedsPerson(
            f"The {change.operation} failed: {cause}\nThe way back failed too: {said}",
            state=state_now(world, change),
            hint=f"Mend the cause, then run: docker chap recover\nEvidence is in {evidence}",
        ) from error
    journal.end("cancelled" if cancelled else "rolled back", checks=[asdict(check) for check in checks])
    proof = " ".join(check.message for check in checks if check.name in ("chap_version", "rows", "ready"))
    if cancelled:
        raise Cancelled(f"The {change.operation} was cancelled.", state=f"All is as it was before. {proof}") from None
    raise RolledBack(
        f"The {change.operation} failed: {cause}",
        state=f"All is as it was before. {proof}",
        hint=f"What was found is in {evidence}",
    ) from error


def undo(world: World, change: Change, journal: Journal) -> list[Check]:
    """Bring files, data, images and containers back to what they were, verify that, and return the checks.

    Safe to run again after it was cut off anywhere. Raise ChapError when the old state cannot be reached or proven.
    """
    _begin(world, journal, "go back", "")
    _start_what_ran(world, change)
    server = server_of(world, change)
    _wait_for_server(world, server)
    stop_writers(world, change)

    foreign = state.revert_edits(change.edits)
    if foreign:
        raise StateError(f"{foreign[0]} was changed by someone else meanwhile, and was left as it is.")
    _data_back(server, change, journal)
    _containers_back(world, change)

    if change.baseline.ready:
        stack = verify.refreshed(world, change.project.name)
        verify.wait_for_api(world, stack, workers=True)
        checks = verify.check_api(world, stack, change.baseline.version, change.baseline.tables)
        checks += verify.check_whole(world, stack, change.baseline.version, change.baseline, {})
        _demand(checks)
    else:
        checks = []
    return checks + _drop_failed(server, change)


def _drop_failed(server: Server, change: Change) -> list[Check]:
    if not server.exists(change.failed):
        return []
    counts = server.counts(change.failed)
    newer = {table: rows for table, rows in counts.items() if rows > change.tables.get(table, 0)}
    if change.tables and any(table not in verify.SEEDED for table in newer):
        said = f"Rows that were written meanwhile are kept in the database {change.failed}."
        return [Check("written_meanwhile", "warn", said, details={"tables": newer})]
    server.drop(change.failed)
    return []


def _data_back(server: Server, change: Change, journal: Journal) -> None:
    there = server.databases()

    if change.incoming:
        # Swapped: the incoming one is live. It goes back to its own name, then away.
        if change.incoming not in there and journal.began("swap"):
            pairs = [(change.live, change.failed)] if change.live in there else []
            if change.kept in there:
                server.rename(*pairs, (change.kept, change.live))
            elif pairs and not change.baseline.tables:
                server.rename(*pairs)
        server.drop(change.incoming)
    elif change.kept in there:
        if journal.began("start api") and change.live in there:
            # The new version may have migrated the live one; the settings of a copy cut short are completed.
            server.carry(change.live, change.kept)
            server.rename((change.live, change.failed), (change.kept, change.live))
        elif change.live in there:
            server.drop(change.kept)
        else:
            server.rename((change.kept, change.live))


def _containers_back(world: World, change: Change) -> None:
    recreate = []
    for name in change.writers:
        now = {container.id for container in containers_of(world, change.project, name)}
        if now != set(change.containers[name]):
            recreate.append(name)

    for name in change.writers:
        if name in recreate:
            _recreate(world, change, [name], change.images)
        else:
            for container in containers_of(world, change.project, name):
                world.engine.start(container.id)


def _name_image(world: World, image: Mapping[str, str]) -> None:
    reference = Reference.parse(image["reference"])
    now = world.engine.image(image["reference"])
    if reference.digest or (now and now.id == image["id"]):
        return
    world.engine.tag(image["id"], reference.repository, reference.tag or "latest")


def _start_what_ran(world: World, change: Change) -> None:
    # Without a restart policy everything lies still after the engine or the machine was started again.
    for ids in change.baseline.untouched.values():
        for identity, ran in ids.items():
            container = world.engine.container(identity)
            if ran and container and not container.running:
                world.engine.start(identity)


def _wait_for_server(world: World, server: Server) -> None:
    for _ in range(120):
        if server.ready():
            return
        world.sleep(0.5)
    raise StackError("The database does not answer.", hint="Look at its logs with docker compose logs.")


# What both ways use


def stop_writers(world: World, change: Change) -> None:
    """Stop the API and the workers, whatever containers they have now."""
    for name in change.writers:
        for container in containers_of(world, change.project, name):
            if container.running or container.state in ("restarting", "paused"):
                world.engine.stop(container.id)


def containers_of(world: World, project: Project, service: str) -> list[Container]:
    """Return the containers of one service as they are now."""
    return [one for one in world.engine.containers(project.name) if one.service == service]


def server_of(world: World, change: Change) -> Server:
    """Return the stack's PostgreSQL. Raise StackError when its container is gone."""
    found = containers_of(world, change.project, change.database)
    if not found:
        raise StackError(f"The database service '{change.database}' has no container.")
    return Server(world.engine, found[0].id, change.admin)


def gather_evidence(world: World, change: Change, journal: Journal) -> Path:
    """Keep logs, health results and exit statuses of the writers before anything is undone; return the folder."""
    folder = Path()
    for name in change.writers:
        with suppress(Exception):
            for container in containers_of(world, change.project, name):
                facts = {
                    "container": container.name,
                    "image": container.image,
                    "state": container.state,
                    "exit_status": container.exit_status,
                    "health": container.health,
                    "health_log": world.engine.health_log(container.id),
                }
                folder = journal.evidence(f"{container.name}.json", json.dumps(facts, indent=1)).parent
                journal.evidence(f"{container.name}.log", world.engine.logs(container.id))
    return folder


def state_now(world: World, change: Change) -> str:
    """Say what state each part is in, for a person who has to go on by hand."""
    lines = []
    for edit in change.edits:
        with suppress(OSError):
            content = edit.path.read_bytes()
            which = "old" if content == edit.before else "new" if content == edit.after else "changed by someone else"
            lines.append(f"{edit.path}: {which}")
    try:
        for name in change.writers:
            for container in containers_of(world, change.project, name):
                lines.append(f"{container.name}: {container.state}, image {container.image}")
        there = server_of(world, change).databases()
        for name in (change.live, change.kept, change.incoming, change.failed):
            if name in there:
                lines.append(f"database {name}: there, {there[name].size >> 20} MiB")
    except ChapError as error:
        lines.append(error.message)
    return "\n".join(lines)


def _begin(world: World, journal: Journal, step: str, detail: str) -> None:
    journal.begin(step)
    world.notify(step, detail, 0, 0)
