"""What a person needs after a failed run: evidence, the state of each part, and the commands to continue by hand."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compose_chap import units
from compose_chap.check import Check
from compose_chap.engine.engine import UP_ALONE
from compose_chap.engine.last_error import last_error
from compose_chap.engine.world import World
from compose_chap.errors import ChapError
from compose_chap.model import Container
from compose_chap.postgres import reach
from compose_chap.postgres.server import identifier
from compose_chap.records.run_records import Journal, report_file
from compose_chap.redact import passwords_in, redact
from compose_chap.transaction.containers import containers_of, may_be_changed, server_of
from compose_chap.transaction.data.data_plan import DataPlan
from compose_chap.transaction.data.previous_data import previous_data_of
from compose_chap.transaction.file_changes import file_changes_of
from compose_chap.transaction.run.change import Change
from compose_chap.transaction.run.facts import facts_of

# A shorter value is a default or an ordinary word; hiding it would only make the log unreadable.
_SHORTEST_SECRET = 6
_SECRET = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL|[^D]_?PWD", re.IGNORECASE)
# A chained exception with the statement behind it.
_LINES_OF_AN_ERROR = 2000
_KILLED = 137


def gather(world: World, change: Change, journal: Journal) -> str:
    """Save logs, health results and exit statuses of the writers before anything is undone.

    Return a hint where to read them, empty when nothing could be gathered.
    """
    folder: Path | None = None
    with suppress(ChapError):
        containers = world.engine.containers(change.project.name)
        hidden = secrets_of(containers)
        for container in containers:
            if container.service not in (*change.writers, change.database):
                continue
            with suppress(ChapError, OSError):
                facts = {
                    "container": container.name,
                    "image": container.image,
                    "image_id": container.image_id,
                    "state": container.state,
                    "exit_status": container.exit_status,
                    "health": container.health,
                    "health_log": world.engine.health_log(container.id),
                }
                text = redact(json.dumps(facts, indent=1), hidden)
                folder = journal.evidence(f"{container.name}.json", text).parent
                journal.evidence(f"{container.name}.log", redact(world.engine.logs(container.id), hidden))
    return f"See what was collected, logs included: ls {shlex.quote(str(folder))}" if folder else ""


def secrets_of(containers: Iterable[Container]) -> list[str]:
    """Return the secret values in the environments of containers, longest first."""
    variables = [setting for container in containers for setting in container.environment.items()]
    secrets = {value for name, value in variables if _SECRET.search(name)}
    secrets |= {password for _, value in variables for password in passwords_in(value)}
    return sorted((secret for secret in secrets if len(secret) >= _SHORTEST_SECRET), key=len, reverse=True)


def of_run(directory: Path, journal: Journal, checks: Iterable[Check], *, ended: bool) -> dict[str, Any]:
    """Return the fields for the JSON document of a failed run: `run`, `report` (null until it ended) and `checks`."""
    report = str(report_file(directory, journal.id)) if ended else None
    return {"run": journal.id, "report": report, "checks": [asdict(check) for check in checks]}


def why_ended(world: World, container: Container) -> str:
    """Return why a container ended, for people; empty when neither its log nor its exit status says."""
    reason = ""
    with suppress(ChapError):
        log = world.engine.logs(container.id, _LINES_OF_AN_ERROR)
        reason = redact(last_error(log), secrets_of([container]))
    ended = world.engine.container(container.id)
    if reason or ended is None:
        return reason
    status = ended.exit_status
    return f"exit status {status}" + (": it was killed, or the machine had no memory left" if status == _KILLED else "")


def state_now(world: World, change: Change) -> str:
    """Return the state of each part, for a person who has to continue by hand."""
    lines = file_changes_of(change).state()
    try:
        for name in change.writers:
            containers = containers_of(world, change.project, name)
            lines += [
                f"{container_.name}: {container_.state}, image {container_.image}" for container_ in containers
            ] or [f"{name}: no container"]
        databases = server_of(world, change).databases()
        for name in (change.live, change.kept, change.incoming, change.failed):
            if name in databases:
                lines.append(f"database {name}: there, {units.size(databases[name].size)}")
    except ChapError as error:
        lines.append(error.message)
    return "\n".join(lines)


def sql_command(change: Change, sql: str) -> str:
    """Return the shell command that runs statements on CHAP's database, all or none of them."""
    psql = ["psql", "-U", change.admin, "-d", reach.argument(change.live), "-v", "ON_ERROR_STOP=1", "-c"]
    return shlex.join([*_inside(change), *psql, sql.replace("\n", " ")])


def _inside(change: Change) -> list[str]:
    return reach.inside(["docker", *change.project.compose], change.database, change.port)


def by_hand(world: World, change: Change, journal: Journal) -> str:
    """Return the commands that restore the old state by hand, for when `docker chap recover` cannot."""
    compose = ["docker", *change.project.compose]
    psql = [*_inside(change), "psql", "-U", change.admin, "-d", reach.home_beside(change.live), "-c"]
    commands = [
        [*compose, *UP_ALONE, "--no-recreate", change.database],
        [*compose, "stop", *change.writers],
    ]

    previous, plan, remarks = previous_data_of(change, facts_of(journal)), DataPlan(), []
    try:
        changed = may_be_changed(world, change, journal.steps)
        plan = previous.way_back(server_of(world, change).databases(), journal.steps, changed=changed)
    except ChapError as error:
        # The database may be what failed.
        remarks.append(f"# {error.message.splitlines()[0]} The old data are in {previous.location}.")
    if plan.from_dump:
        remarks.append(f"# the old data are in {previous.location}: steps 2 and 3 of RESTORE.txt there")
    commands += [[*psql, statement] for statement in renames(plan)]
    for name in change.writers:
        image = change.images[name]
        commands.append(["docker", "tag", image["id"], image["reference"].partition("@")[0]])
    commands.append([*compose, *UP_ALONE, *change.writers])
    # Not before CHAP runs on the old data.
    commands += [[*psql, statement] for statement in drops(plan)]

    lines = [shlex.join(command) for command in commands]
    lines[2:2] = [*remarks, *file_changes_of(change).by_hand()]
    return "\n".join(lines)


def renames(plan: DataPlan) -> list[str]:
    """Return the SQL statements that rename databases as a plan says."""
    return [f"ALTER DATABASE {identifier(old)} RENAME TO {identifier(new)}" for old, new in plan.renames]


def drops(plan: DataPlan) -> list[str]:
    """Return the SQL statements that drop what a plan no longer needs."""
    return [f"DROP DATABASE IF EXISTS {identifier(name)}" for name in plan.drops]
