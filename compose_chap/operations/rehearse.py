"""Rehearse an upgrade: the new version's API on a copy of the data, beside production, timed and thrown away.

Production is only read, as a backup reads it. The copy lives in containers of our own that reach each other and
nothing else: any network has a gateway, at which the host answers for every port that it publishes.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import unquote

from compose_chap import redact, units
from compose_chap.backups import dump_file, proof
from compose_chap.backups.catalogue import Backup
from compose_chap.check import Check
from compose_chap.engine import pull, throwaway
from compose_chap.engine.throwaway import Recipe
from compose_chap.engine.world import World
from compose_chap.errors import DatabaseError
from compose_chap.image import Reference
from compose_chap.model import Role, Service, Stack
from compose_chap.postgres import dump_format, pg_tools
from compose_chap.postgres.copy_speed import copied_per_second
from compose_chap.postgres.server import Database, Server, identifier, literal
from compose_chap.postgres.untrusted import jail, unexpected
from compose_chap.postgres.untrusted.sandbox import Quarantine
from compose_chap.project.variables import unescaped
from compose_chap.records import lock, run_records
from compose_chap.records.downtime import forecast
from compose_chap.stack.chap_scripts import PYTHON, STAY
from compose_chap.stack.databases import database_of, server_of
from compose_chap.transaction import evidence, verify, wait
from compose_chap.transaction.data import repairs, value_query, values
from compose_chap.transaction.wait import EndedAtStart

GOOD, MIGRATES, BAD = "good", "migrates", "bad"

# Disk space for the restored rows, and for the dump that they come from.
_ROOM = 1.5
_LOG_LINES = 40
_PORT = 5432
# Up to v2.1.0 CHAP fetches its models from GitHub whenever it starts, after it has migrated, and ends when it cannot.
_NO_MODELS = re.compile(r"assert content !=|raw\.githubusercontent\.com|MLproject")


@dataclass(frozen=True)
class RehearsalPlan:
    """What is rehearsed: `image` is the target's API image; the data come from `source`, or a fresh dump.

    `repairs` are the known faults to repair on the copy, by name.
    """

    stack: Stack
    target: str
    image: Reference
    platform: str
    source: Backup | None
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rehearsal:
    """The result of a rehearsal.

    `verdict` is `good`, `bad`, or `migrates`: the data are fine, but whether the API starts could not be seen.
    `added` and `removed` are the columns that the migration adds and removes. `seconds` are those of the
    copy, and of the API from its start to its answer. `downtime` is that of an upgrade. `log` is the end of the
    API's log.
    """

    verdict: str
    checks: tuple[Check, ...]
    tables: Mapping[str, int]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    seconds: Mapping[str, float]
    downtime: float
    log: str


def execute(world: World, plan: RehearsalPlan) -> Rehearsal:
    """Carry out a rehearsal and remove everything it made. Raise ChapError when the copy cannot be made."""
    engine, stack = world.engine, plan.stack
    live = database_of(server_of(engine, stack), stack.access)
    with lock.single_interruption(), ExitStack() as copy:
        throwaway.remove_abandoned(engine)
        world.notify("pull", str(plan.image))
        image = pull.pull(world, plan.image, plan.platform).id

        begun = world.clock()
        of_database = stack.database.containers[0]
        twins = [service.containers[0] for service in stack.of(Role.BROKER)]
        names = {*of_database.names, stack.database_host, of_database.name, *stack.api.containers[0].names}
        names |= {name for twin in twins for name in twin.names}
        # All share what the database has, which is itself, under all their names.
        server = copy.enter_context(jail.server(world, of_database.image_id, names=sorted(names - {""})))
        for twin in twins:
            copy.enter_context(throwaway.throwaway(engine, Recipe(twin.image_id, {}, shares=server.container)))
        password = secrets.token_urlsafe(24)
        tables = _bring_data(world, plan, server, live, password)
        took = (world.clock() - begun).total_seconds()
        recipe = _recipe(world, stack, image, server.container, password)
        return _try(world, plan, recipe, server, tables, took, live.size)


def _bring_data(world: World, plan: RehearsalPlan, server: Server, live: Database, password: str) -> Mapping[str, int]:
    """Restore the data into the throwaway server, and return the proven rows of every table."""
    access, made = plan.stack.access, plan.source
    size = made.manifest.database.size if made else live.size
    if server.free_space() < size * _ROOM:
        raise DatabaseError(
            f"The engine's disk has no room for the copy: about {units.size(int(size * _ROOM))} are needed.",
            state="The stack was not touched.",
            hint="Make room: docker image prune, docker chap prune",
        )
    quarantine = Quarantine(server, "rehearsal")
    quarantine.make()
    done = 0
    with quarantine.receiving("dump") as (path, send):

        def pass_on(data: bytes) -> None:
            nonlocal done
            send(data)
            done += len(data)
            world.notify("copy data", made.id if made else access.name, done, made.dump.stat().st_size if made else 0)

        if made:
            proof.check_sums(world, made)
            with open(made.dump, "rb") as file:
                while data := file.read(1 << 18):
                    pass_on(data)
            tables: Mapping[str, int] = made.tables
        else:
            live_server = server_of(world.engine, plan.stack)
            # It goes from one container into the other: no file with the data is left on this machine.
            tables = dump_file.dump_into(live_server, access.name, pg_tools.compression(live_server), pass_on)

    contents = dump_format.contents(quarantine.listing(path))
    if made:
        # What is live here was let in before. A backup may be anybody's.
        unexpected.refuse([entry.called for entry in contents.unexpected()], trust=False)
    server.command(f"CREATE ROLE {identifier(access.owner)} LOGIN NOSUPERUSER PASSWORD {literal(password)};")
    server.drop(access.name)  # it may be called like the one that every new server has
    server.create(access.name, replace(live, owner=access.owner))
    contents = unexpected.make_extensions(quarantine, path, contents.without_beyond_trust(), access.name, access.owner)
    quarantine.restore(path, contents.without_privileges(), access.name, access.owner, password)
    if made:
        unexpected.refuse(unexpected.objects(server, access.name), trust=False)
    proof.compare(server.counts(access.name), tables)
    quarantine.remove()
    return tables


def _recipe(world: World, stack: Stack, image: str, database: str, password: str) -> Recipe:
    """Return how Compose would make the API's container, with nothing of production mounted or in reach.

    It shares the network of the container `database`. `password` takes the place of that of production's database,
    wherever that stands.
    """
    running, project = stack.api.containers[0], stack.project
    wanted: dict[str, Any] = world.engine.compose_config(project)["services"].get(stack.api.name, {})
    # Compose writes null for a variable that the shell does not have.
    environment = {key: unescaped(value) for key, value in (wanted.get("environment") or {}).items() if value}
    environment["CHAP_DATABASE_URL"] = running.environment["CHAP_DATABASE_URL"]
    url = stack.database_url
    environment = {key: _elsewhere(key, value, url.password, password) for key, value in environment.items()}
    at = f"@{url.host}:{url.port}"
    environment["CHAP_DATABASE_URL"] = environment["CHAP_DATABASE_URL"].replace(at, f"@{url.host}:{_PORT}", 1)
    return Recipe(
        image,
        environment,
        shares=database,
        command=[unescaped(word) for word in wanted.get("command") or ()],
        entrypoint=[unescaped(word) for word in wanted.get("entrypoint") or ()],
        user=unescaped(wanted.get("user") or ""),
        volumes=[
            unescaped(volume["target"]) for volume in wanted.get("volumes") or () if volume.get("type") == "volume"
        ],
        tmpfs=[unescaped(volume) for volume in wanted.get("tmpfs") or ()],
    )


def _elsewhere(name: str, value: str, password: str, other: str) -> str:
    """Return the value of a setting with another password in the place of production's."""
    if not password or (value == password and re.search("PASS|PWD", name, re.I)):
        return other if password else value
    for written in redact.passwords_in(value):
        if password in (written, unquote(written)):
            value = re.sub(rf"(:|=\s*['\"]?){re.escape(written)}(?!\w)", lambda match: match[1] + other, value)
    return value


def _try(
    world: World,
    plan: RehearsalPlan,
    recipe: Recipe,
    server: Server,
    tables: Mapping[str, int],
    took: float,
    size: int,
) -> Rehearsal:
    """Start the API on the copy, and check the result."""
    name, engine = plan.stack.access.name, world.engine
    before = _columns(server, name)
    values_before = value_query.remember(server, name, tables)
    lost_values = repairs.lost_values(server, name, plan.repairs)
    repairs.before_start(server, name, plan.repairs)
    begun = world.clock()
    world.notify("start copy", str(plan.image))
    with throwaway.throwaway(engine, recipe) as identity:
        copy = _stack_of(world, plan.stack, identity, server)
        started = _start(world, copy, plan)
        start = (world.clock() - begun).total_seconds()
        world.notify("verify copy", name)
        with _answering(world, plan.stack, copy, recipe, server) as answering_chap:
            mended = [] if started.failed else repairs.after_migration(server, name, plan.repairs, lost_values)
            checks = [*mended, *verify.check_api(world, answering_chap, plan.target, tables)]
            if not started.failed:
                # The copy is thrown away: offer no command to restore values in it.
                compared = value_query.compare(server, values_before, name, tables)
                checks.append(values.check(replace(compared, put_back="")))
        log = redact.redact(engine.logs(identity, _LOG_LINES), evidence.secrets_of([copy.api.containers[0]]))
    checks.insert(0, started)
    verdict = BAD if any(check.failed for check in checks) else MIGRATES if started.status == "warn" else GOOD
    after = _columns(server, name)
    runs = run_records.history(plan.stack.project.directory, engine.origin(plan.stack.project.name))
    # The copy lies on the engine's disk too, and may be written to.
    expected = forecast(size, runs, start, partial(copied_per_second, server, name), rehearsed=True)
    return Rehearsal(
        verdict,
        tuple(checks),
        tables,
        tuple(sorted(after - before)),
        tuple(sorted(before - after)),
        {"copy": round(took, 1), "start": round(start, 1)},
        round(expected.downtime, 1),
        log,
    )


def _columns(server: Server, database: str) -> set[str]:
    return {f"{table}.{column}" for table, columns in server.columns(database).items() for column in columns}


def _stack_of(world: World, stack: Stack, api: str, server: Server) -> Stack:
    """Return the production stack with the throwaway containers in place of its own."""
    containers = [world.engine.container(identity) for identity in (api, server.container)]
    services = [
        Service(service.name, service.role, (container,))
        for service, container in zip((stack.api, stack.database), containers)
        if container
    ]
    if len(services) < 2:
        raise DatabaseError("The containers of the rehearsal are gone.", hint="Run the command again.")
    return Stack(stack.project, tuple(services))


def _start(world: World, copy: Stack, plan: RehearsalPlan) -> Check:
    begun = world.clock()
    try:
        health = wait.wait_for_api(world, copy, workers=False)
    except EndedAtStart as error:
        # Newer releases only log it when they cannot reach GitHub, and end for another reason.
        if _NO_MODELS.search(error.reason):
            return Check(
                "start",
                "warn",
                f"The start of the API could not be checked ({error.reason}): up to v2.1.0 CHAP fetches its models from"
                " GitHub when it starts, and a rehearsal has no internet.",
                hint="The upgrade checks it, and puts everything back if the API does not start:"
                f" docker chap upgrade {plan.target}",
            )
        return Check("start", "fail", error.message)
    took = (world.clock() - begun).total_seconds()
    if health.ready or wait.only_workers_missing(health):
        return Check("start", "ok", f"The API answered after {took:.0f} s, migration included.")
    return Check("start", "fail", f"The API does not get ready: {health.problems or health.level}.")


@contextmanager
def _answering(world: World, stack: Stack, copy: Stack, recipe: Recipe, server: Server) -> Iterator[Stack]:
    """Yield the copy with an API container that runs: if it ended, another container of the same image."""
    container = world.engine.container(copy.api.containers[0].id)
    if container and container.running:
        yield copy
        return
    asleep = replace(recipe, entrypoint=PYTHON, command=[STAY])
    with throwaway.throwaway(world.engine, asleep) as identity:
        yield _stack_of(world, stack, identity, server)
