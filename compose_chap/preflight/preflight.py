"""The preflight: named checks before an upgrade.

No check changes anything. A check whose prerequisite failed is skipped, and says so.
"""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from compose_chap import units
from compose_chap.check import Check, Finding, fail, ok, skipped, warn
from compose_chap.errors import ChapError
from compose_chap.image import release_key
from compose_chap.model import Role
from compose_chap.postgres.server import identifier
from compose_chap.postgres.untrusted import unexpected
from compose_chap.preflight import release_files, release_notes, roads, run_checks, running_files, target_images
from compose_chap.preflight.subject import Subject
from compose_chap.records import run_records
from compose_chap.records.files import durable
from compose_chap.stack.databases import refuse_irreversible
from compose_chap.stack.jobs import own_jobs
from compose_chap.transaction.run.baseline import other_sessions

# Unpacked layers take two to three times their compressed size.
_UNPACKED = 3
OLDEST_ENGINE = (20, 10)

# The checks that an operator may override, and the flag for it.
OVERRIDES = {
    "drift": "--allow-drift",
    "jobs": "--abandon-jobs",
    "version_path": "--allow-downgrade",
    "healthy_now": "--allow-unhealthy",
    "mounts": "--allow-moved-mounts",
    **roads.OVERRIDES,
}


def examine(subject: Subject) -> list[Check]:
    """Run the checks: all of them with a target version, else those of the running stack."""
    fitting = [entry for entry in _CHECKS if subject.target or entry[2] not in _FOR_TARGET]
    with ThreadPoolExecutor(1) as pool:
        # The faults need the database too; read them in parallel with the checks.
        known_faults = pool.submit(roads.faults, subject)
        examined = run_checks.run(subject, fitting)
    results = [entry.check for entry in examined.values()]
    blocked = {name for name, entry in examined.items() if entry.blocks}
    if examined["interrupted_run"].check.failed:
        # Other hints may do harm before the interrupted run is recovered.
        results = [result if result.name == "interrupted_run" else replace(result, hint="") for result in results]
    if not subject.target:
        return results
    notes = release_notes.between(subject.stack, subject.release, subject.target)
    # Without a stack and a database, the facts cannot be read.
    faults = [] if {"stack", "database"} & blocked else known_faults.result()
    return results + faults + roads.newer_than_known(subject.target) + notes


def overridden(checks: list[Check], allowed: set[str]) -> list[Check]:
    """Return the checks, with the failures that the operator overrides as warnings."""
    return [
        replace(check, status="warn", message=f"{check.message} (allowed with {OVERRIDES[check.name]})")
        if check.failed and check.name in allowed
        else check
        for check in checks
    ]


def _engine(subject: Subject) -> Finding:
    version = subject.world.engine.version()
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_ENGINE:
        return warn(f"Docker Engine {version} is older than the oldest that was tested (20.10).")
    return ok(f"Docker Engine {version}.")


def _compose(subject: Subject) -> Finding:
    return ok(f"Docker Compose {subject.world.engine.compose_version()}.")


def _stack(subject: Subject) -> Finding:
    stack = subject.stack
    if not stack.of(Role.DATABASE):
        return _no_database(subject)
    stopped = [service.name for service in (*stack.writers, stack.database) if not service.running]
    if stopped:
        names = " ".join(stopped)
        return fail(f"Not running: {', '.join(stopped)}.", f"docker compose -p {stack.project.name} start {names}")
    if len(stack.writers) < 2:
        hint = f"See every container: docker compose -p {stack.project.name} ps -a"
        return fail(f"Project '{stack.project.name}' has no container of a CHAP worker.", hint)
    names = ", ".join(f"{service.name} ({service.role.value})" for service in (*stack.writers, stack.database))
    return ok(f"Project '{stack.project.name}': {names}.")


def _no_database(subject: Subject) -> Finding:
    project, host = subject.stack.project, subject.stack.database_host
    if subject.stack.pooler:
        _ = subject.stack.database  # raises an error about the pooler
    for service in subject.model.services.values():
        if host in (service.name, service.container_name):
            up = project.by_hand("up", "-d", "--no-deps", service.name)
            return fail(f"The database service {service.name} has no container.", f"Create it again: {up}")
    writers = (service.name for service in subject.stack.writers)
    return fail(
        f"CHAP's database is at '{host or 'nowhere'}', outside of project '{project.name}': it could not be put back.",
        f"Back it up where it runs. Then upgrade by hand: docker chap pin {subject.target or 'VERSION'}\n"
        f"Then: {project.by_hand('up', '-d', '--no-deps', *writers)}",
    )


def _interrupted(subject: Subject) -> Finding:
    if not subject.stack.project.local:
        return skipped("Skipped: the Compose files are not on this machine.")
    run_records.refuse_open_run(subject.stack.project.directory)
    return ok("No earlier run was cut off.")


def _same_version(subject: Subject) -> Finding:
    wrong = {name: version for name, version in subject.baseline.worker_versions.items() if version != subject.version}
    if wrong:
        message = ", ".join(f"{name} {version or 'does not say its version'}" for name, version in wrong.items())
        return warn(f"The API is {subject.version}, but: {message}.")
    return ok(f"API and workers are version {subject.version or 'unknown'}.")


def _healthy_now(subject: Subject) -> Finding:
    health = subject.overview.health
    if not health.ready:
        hint = "Repair it first, or go on with --allow-unhealthy."
        return fail(f"CHAP is already unhealthy: {health.problems or health.level}.", hint)
    return ok("CHAP is ready: " + (", ".join(health.checks) or "it answers") + ".")


def _schema(subject: Subject) -> Finding:
    schema = subject.schema
    # A schema that is wrong already is no reason to refuse: an upgrade may fix it.
    status = "warn" if schema.status == "fail" and subject.target else schema.status
    return Finding(status, schema.summary, details=schema.to_json())


def _version_path(subject: Subject) -> Finding:
    now, wanted = release_key(subject.release), release_key(subject.target)
    if now and wanted and wanted < now:
        return fail(
            f"{subject.target} is older than the running {subject.release}.",
            "To undo an upgrade: docker chap rollback. To go back anyway: --allow-downgrade",
        )
    return ok(f"From {subject.release or 'unknown'} to {subject.target.removeprefix('v')}.")


def _files(subject: Subject) -> Finding:
    for edit in subject.edits:
        durable.check_writable(edit.path)
    if not subject.edits and not subject.built:
        return ok(f"The files already name {subject.target}.")
    changed = [*subject.changed_files, *(edit.path for edit in subject.edits)]
    return ok(f"To change: {', '.join(map(str, changed)) or 'no Compose file'}.")


def _database(subject: Subject) -> Finding:
    database, name, quoted = subject.database, subject.database.name, identifier(subject.database.name)
    refuse_irreversible(subject.server, name)
    text = f"Database '{name}' has {units.size(database.size)}."
    objects, lost = unexpected.inspect(subject.server, database.name)
    if lost:
        return fail(
            f"{text} It has lost {', '.join(lost)}.",
            "To get them back, restore the last good backup. Rows written since then go to a separate database and are"
            " not merged: docker chap restore latest",
        )
    if database.collation_version and database.collation_version != database.collation_version_now:
        return warn(
            f"{text} Its text indexes were made with another version of the C library"
            f" ({database.collation_version}, now {database.collation_version_now or 'one that has none'}). An upgrade"
            " copies it inside the server anyway, and the copy keeps that version.",
            f"After the upgrade: REINDEX DATABASE {quoted}; ALTER DATABASE {quoted} REFRESH COLLATION VERSION;",
        )
    message, details = f"{text} {unexpected.backup_warning(objects)}", {"size": database.size, "foreign": objects}
    return Finding("warn" if objects else "ok", message.strip(), details=details)


def _sessions(subject: Subject) -> Finding:
    sessions = other_sessions(subject.server, subject.stack)
    others = [f"{session.application or session.role} from {session.address}" for session in sessions]
    if others:
        return warn(f"Others use the database, and will be disconnected: {', '.join(others)}.")
    return ok("Only CHAP uses the database.")


def _room(subject: Subject) -> Finding:
    size = subject.database.size
    in_server = subject.server.free_space()
    # Space for the migration and the new images; a copy of the database comes on top.
    least = size // 5 + (64 << 20)
    if subject.target and not subject.built:
        with suppress(ChapError):
            least += target_images.to_pull(subject) * _UNPACKED
    needed = least + size
    if in_server < least:
        return fail(
            f"The server's disk has {units.size(in_server)} free, but a copy of the database and the images need"
            f" {units.size(needed)}.",
            "Make room: docker image prune, docker chap prune",
        )
    by_dump = in_server < needed
    # The folder may not exist yet: use its nearest existing parent.
    folder = next(backup for backup in (subject.backups, *subject.backups.parents) if backup.exists())
    free = shutil.disk_usage(folder).free
    in_folder = int(size * (0.8 if by_dump else 0.4))
    if free < in_folder:
        hint = "Make room (docker chap prune), or write elsewhere: -o FOLDER"
        message = f"{folder} has {units.size(free)} free; backups may need {units.size(in_folder)}."
        return fail(message, hint)
    if by_dump:
        return warn(
            f"The server's disk has {units.size(in_server)} free; a copy of the database would need"
            f" {units.size(needed)}."
            " An upgrade keeps the old data as a second dump instead: slower, and if the upgrade fails, CHAP stays down"
            " until that dump is restored.",
            "To make room: docker image prune, docker chap prune",
            {"keep": "dump"},
        )
    return ok(f"{units.size(in_server)} free on the server's disk, {units.size(needed)} needed.")


def _jobs(subject: Subject) -> Finding:
    jobs = subject.jobs
    details = {"running": jobs.running, "waiting": jobs.waiting, "zombies": jobs.zombies, "own": jobs.own}
    dead = f"{len(jobs.zombies)} more are listed as running but are dead." if jobs.zombies else ""
    message = "No job is running."
    if jobs.running or jobs.waiting:
        message = f"Jobs: {len(jobs.running)} running, {len(jobs.waiting)} waiting. An upgrade would lose them."
    elif jobs.own:
        message = "No job that a person started is running."
    message = " ".join(filter(None, (message, dead, own_jobs(jobs))))
    if jobs.running or jobs.waiting:
        return fail(message, "Wait for them with --drain, or lose them with --abandon-jobs.", details)
    return ok(message, details=details)


def _models(subject: Subject) -> Finding:
    return ok(f"Registered model services: {', '.join(subject.overview.models) or 'none'}.")


def _route(subject: Subject) -> Finding:
    route = subject.baseline.route
    if not route:
        return skipped("This project has no DHIS2 with a route to CHAP.")
    if not route.endswith("/**"):
        return warn(f"DHIS2's route points at {route}; it should end in /**.")
    return ok(f"DHIS2's route points at {route}.")


_CHECKS: tuple[tuple[str, tuple[str, ...], run_checks.CheckFunction], ...] = (
    ("engine", (), _engine),
    ("compose", ("engine",), _compose),
    release_files.BEFORE_ALL,
    ("interrupted_run", (), _interrupted),
    ("stack", ("engine",), _stack),
    ("database", ("stack",), _database),
    ("sessions", ("database",), _sessions),
    ("same_version", ("stack",), _same_version),
    ("healthy_now", ("stack",), _healthy_now),
    ("schema", ("stack",), _schema),
    ("jobs", ("stack",), _jobs),
    ("models", ("stack",), _models),
    ("route", ("stack",), _route),
    *running_files.CHECKS,
    ("version_path", ("stack",), _version_path),
    *release_files.CHECKS,
    ("files", ("stack", "sources"), _files),
    target_images.CHECK,
    ("room", ("database", "compose_files"), _room),
)
_FOR_TARGET = (_version_path, _files, target_images.CHECK[2], *release_files.OF_RELEASE)
