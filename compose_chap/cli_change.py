"""The commands that change the running stack: upgrade, rollback, recover."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compose_chap import units
from compose_chap.cli_options import (
    Call,
    common,
    dhis2_credentials,
    dhis2_options,
    output_option,
    patience_option,
    yes_option,
)
from compose_chap.errors import ChapError, EngineError, Locked

if TYPE_CHECKING:
    from compose_chap.subject import Subject
    from compose_chap.upgrade import Upgraded

# How the plan says where the old data are kept, by whether that has to be a dump.
_KEPT = {
    False: "a copy of {} inside the server",
    True: "a second dump of {}, for want of room for a copy; a failure takes as long as a restore",
}

# How `recover` says what became of a run.
_OUTCOMES = {
    "finished": "was complete. It is verified now, and closed.",
    "undone": "is undone: all is as it was before.",
    "nothing changed": "had changed nothing.",
}

# For how many seconds `recover` waits for what a killed run left behind.
_LEFT_BEHIND = 600


@click.command("upgrade")
@click.argument("version")
@click.option("--dry-run", is_flag=True, help="Show the plan and the changes of the files, and change nothing.")
@yes_option
@output_option
@patience_option
@click.option("--digest", is_flag=True, help="Write the digests too, as the registry gives them.")
@click.option("--drain", type=float, metavar="SECONDS", default=0.0, help="Wait up to this long for running jobs.")
@click.option("--allow-drift", is_flag=True, help="Go on although containers differ from the files.")
@click.option("--abandon-jobs", is_flag=True, help="Go on although running jobs are lost.")
@click.option("--allow-downgrade", is_flag=True, help="Go to an older version.")
@click.option("--allow-unhealthy", is_flag=True, help="Go on although CHAP is not well now.")
@click.option("--allow-moved-mounts", is_flag=True, help="Go on although the new files keep CHAP's data elsewhere.")
@click.option("--no-cache", is_flag=True, help="From source: build every layer anew.")
@dhis2_options
@common
def upgrade_command(
    call: Call,
    version: str,
    dry_run: bool,
    yes: bool,
    output: Path | None,
    digest: bool,
    drain: float,
    dhis2_user: str,
    no_cache: bool,
    **allow: bool,
) -> None:
    """Upgrade CHAP: all new and verified, or all old.

    Everything that can be checked is checked first, and the plan is shown before you are asked. Then: pull the images,
    back up, stop API and worker, keep a copy of the database, change the Compose files, start VERSION, verify it. If
    anything fails, or on Ctrl-C, all is put back as it was, data included, and verified.
    """
    from compose_chap import engine_lock, observe, preflight, screen, state, upgrade
    from compose_chap.stack import release_tag

    target = release_tag(version)
    world, where = call.world(), call.where()
    stack = observe.find_whole_stack(world.engine, where)

    with engine_lock.locked(world, stack, "upgrade"):
        state.refuse_open_run(stack.project.directory)
        subject = call.subject(world, stack, target, output, digest=digest)
        if drain:
            upgrade.wait_for_jobs(world, stack, drain)
        allowed = {name for name, flag in preflight.OVERRIDES.items() if allow.get(flag.lstrip("-").replace("-", "_"))}
        found = preflight.examine(subject)
        checks = preflight.overridden(found, allowed)
        _refuse(call, checks, target + (f" -o {output}" if output else ""))
        if _runs_already(subject):
            call.result(
                {"changed": False, "chap_version": subject.version},
                f"CHAP {subject.version} runs already. Nothing to do.",
            )
            return
        plan = upgrade.UpgradePlan(
            stack,
            target,
            subject.images,
            subject.edits,
            tuple(subject.model.sources),
            subject.backups,
            subject.platform,
            subject.baseline,
            tuple(check.name for check in found if check.failed),
            _drain(found, allowed, drain),
            _by_dump(checks),
            subject.move,
            no_cache,
        )
        text = _plan_text(subject, checks)
        if dry_run:
            call.result({"plan": _plan_json(subject, checks), "checks": [asdict(one) for one in checks]}, text)
            return
        if not call.json:
            call.tell(text)
        call.confirm(f"Upgrade CHAP from {subject.version} to {target}?", yes=yes)
        done = upgrade.execute(world, plan, dhis2_credentials(dhis2_user))

    call.result(
        {
            "changed": True,
            "run": done.run,
            "from": done.before,
            "to": done.after,
            "backup": str(done.backup.folder),
            "kept_database": done.kept,
            "report": str(state.report_file(stack.project.directory, done.run)),
            "downtime_seconds": done.downtime,
            "checks": [asdict(one) for one in done.checks],
        },
        screen.paragraph(
            f"CHAP is upgraded from {done.before} to {done.after.removeprefix('v')}, and verified. It was down for"
            f" {units.duration(done.downtime)}."
        )
        + "\n"
        + screen.checks_text(done.checks, colour=screen.colourful(sys.stdout))
        + "\n"
        + _to_go_back(done)
        + f"\nReport: {state.report_file(stack.project.directory, done.run)}",
    )


@click.command("rollback")
@yes_option
@patience_option
@dhis2_options
@common
def rollback_command(call: Call, yes: bool, dhis2_user: str) -> None:
    """Undo the last upgrade: files, images and data.

    CHAP goes back to the data of the moment before the upgrade. Rows that were written since are counted and shown
    first; they are kept aside in a database of their own, not merged.
    """
    roll_back(call, "upgrade", yes, dhis2_user)


def roll_back(call: Call, operation: str, yes: bool, dhis2_user: str) -> None:
    """Undo the last upgrade or restore, and tell of it."""
    from compose_chap import backup, baseline, engine_lock, observe, rollback, screen, state

    world = call.world()
    stack = observe.find_whole_stack(world.engine, call.where())
    directory = stack.project.directory

    with engine_lock.locked(world, stack, "rollback"):
        state.refuse_open_run(directory)
        plan = rollback.plan_rollback(world, stack, operation)
        sessions = baseline.strangers(backup.server_of(world.engine, stack), stack)
        written = ", ".join(f"{table} {rows:+}" for table, rows in plan.written_since.items()) or "no table"
        if not call.json:
            told = f"More or fewer rows since the {operation}: {written}. Rows that were changed do not show in this."
            for line in (told, *(f"Note:  {note}" for note in (*plan.notes, *map(screen.session_ends, sessions)))):
                call.tell(screen.paragraph(line, sys.stderr))
        call.confirm(f"Undo the {operation} of {plan.undone['id']}, and keep the newer data aside?", yes=yes)
        done = rollback.roll_back(world, plan, dhis2_credentials(dhis2_user))
    call.result(
        {
            "run": done.run,
            "undone": plan.undone["id"],
            "kept_database": done.kept,
            "report": str(state.report_file(directory, done.run)),
            "written_since": dict(plan.written_since),
            "notes": list(plan.notes),
            "sessions_ended": [asdict(one) for one in sessions],
            "checks": [asdict(check) for check in done.checks],
        },
        f"The {operation} of {plan.undone['id']} is undone, and verified:\n"
        + screen.checks_text(done.checks, colour=screen.colourful(sys.stdout))
        + f"\nThe newer data are kept as database {done.kept}."
        + f"\nReport: {state.report_file(directory, done.run)}",
    )


@click.command("recover")
@patience_option
@common
def recover_command(call: Call) -> None:
    """Finish or undo a run that was cut off.

    After a power cut, or when docker chap was killed: it reads the journal of that run, looks at the stack, and brings
    files, images and data to one good state, verified. It may be run again at any time.
    """
    from compose_chap import engine_throwaway, lock, observe, recover, screen, state

    world, where = call.world(), call.where()
    directory = observe.find_directory(world.engine, where)
    with ExitStack() as held:
        try:
            held.enter_context(lock.locked(directory, "recover", world.clock()))
        except Locked as other:
            # A Compose that outlived a killed run still holds the lock; one that builds does so for long.
            world.notify("lock", other.message)
            held.enter_context(lock.locked(directory, "recover", world.clock(), patience=_LEFT_BEHIND))
        journal = state.open_run(directory, world.clock)
        if journal is None:
            with suppress(EngineError):  # files alone can be looked at without an engine
                engine_throwaway.remove_abandoned(world.engine)
            call.result({"changed": False}, "No run was cut off. Nothing to do.")
            return
        done = recover.recover(world, journal)
    call.result(
        {
            "changed": True,
            "run": done.run,
            "operation": done.operation,
            "outcome": done.outcome,
            "project": done.project,
            "folder": str(directory),
            "checks": [asdict(check) for check in done.checks],
        },
        f"{f'Project {done.project} in ' if done.project else ''}{directory}:\n"
        + screen.paragraph(f"The {done.operation} of {done.run} {_OUTCOMES[done.outcome]}")
        + "\n"
        + screen.checks_text(done.checks, colour=screen.colourful(sys.stdout)),
    )


def _to_go_back(done: Upgraded) -> str:
    from compose_chap import screen

    kept, command = f"database {done.kept}", "rollback"
    if not done.kept:
        kept, command = f"backup {done.backup.id}", f"restore {done.backup.id} --with-version"
    return screen.paragraph(f"The data of before are kept as {kept}. To go back to them:") + f" docker chap {command}"


def _runs_already(subject: Subject) -> bool:
    from compose_chap import notes

    # `docker compose up -d API` by hand leaves an old worker, and the files do not tell.
    versions = {subject.version, *subject.baseline.worker_versions.values()}
    return not subject.changes_files and versions == {notes.reported(subject.target)}


def _drain(checks: Sequence[Any], allowed: set[str], drain: float) -> float | None:
    # A job that begins during the pull may be lost too, when the operator said so.
    known = all(check.status == "ok" for check in checks if check.name == "jobs")
    return drain if known and "jobs" not in allowed else None


def _refuse(call: Call, checks: Sequence[Any], words: str) -> None:
    from compose_chap import screen

    failed = [check for check in checks if check.failed]
    if not failed:
        return
    if not call.json:
        call.tell(screen.checks_text(checks, colour=screen.colourful(sys.stderr)))
    raise ChapError(
        " ".join(dict.fromkeys(check.message for check in failed)),
        state="Nothing was changed.",
        hint=next((check.hint for check in failed if check.hint), f"See: docker chap check {words}"),
    )


def _plan_text(subject: Any, checks: Sequence[Any]) -> str:
    from compose_chap import screen

    images = ", ".join(map(str, dict.fromkeys(subject.images.values())))
    fetch = [f"  pull       {images}"]
    build = []
    if move := subject.move:
        fetch = []
        build = [f"  check out  {subject.target} in {move.folder}, which is at {move.before}", f"  build      {images}"]
    steps = [
        "Plan",
        *fetch,
        f"  back up    database {subject.database.name} ({units.size(subject.database.size)}) to {subject.backups}",
        *build,
        f"  stop       {', '.join(service.name for service in subject.stack.writers)}",
        f"  keep       {_KEPT[_by_dump(checks)].format(subject.database.name)}",
        f"  recreate   {', '.join(service.name for service in subject.stack.writers)}, and nothing else",
        "  verify     versions, schema, rows, readiness, models, route, other containers",
        screen.paragraph(
            f"CHAP will be down for about {units.duration(_downtime(subject, checks))}. Other services run on."
            " What cannot be undone: a job that runs when CHAP stops is lost. Rows that are written after the upgrade"
            " are kept aside by a rollback, not merged into the old data.",
            sys.stderr,
        ),
        "Changes of the files",
        _diff(subject).rstrip() or "  none",
        "Checks",
        screen.checks_text(checks, colour=screen.colourful(sys.stderr)),
    ]
    return "\n".join(steps)


def _diff(subject: Any) -> str:
    from compose_chap import evidence

    # Old releases have a password in their files, and an env file has one beside the version.
    containers = [one for service in subject.stack.services for one in service.containers]
    return evidence.scrubbed(subject.diff, evidence.secrets_of(containers))


def _by_dump(checks: Sequence[Any]) -> bool:
    return any(check.details.get("keep") == "dump" for check in checks if check.name == "room")


def _downtime(subject: Any, checks: Sequence[Any]) -> float:
    from compose_chap import state, upgrade

    project = subject.stack.project
    runs = state.history(project.directory, subject.world.engine.origin(project.name))
    return upgrade.expected_downtime(subject.database.size, runs, by_dump=_by_dump(checks))


def _plan_json(subject: Any, checks: Sequence[Any]) -> dict[str, Any]:
    return {
        "from": subject.version,
        "to": subject.target,
        "images": {name: str(reference) for name, reference in subject.images.items()},
        "diff": _diff(subject),
        "checkout": subject.move.to_json() if subject.move else None,
        "database_bytes": subject.database.size,
        "expected_downtime_seconds": _downtime(subject, checks),
        "keep": "dump" if _by_dump(checks) else "copy",
        "backups": str(subject.backups),
    }
