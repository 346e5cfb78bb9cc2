"""The command that upgrades CHAP."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from compose_chap import redact, units
from compose_chap.cli.call import (
    Call,
    common,
    dhis2_credentials,
    dhis2_options,
    output_option,
    patience_option,
    wait_lock_option,
    yes_option,
)
from compose_chap.cli.recorded import guarded
from compose_chap.cli.screen import render
from compose_chap.cli.values import versions
from compose_chap.errors import ChapError
from compose_chap.image import release_tag
from compose_chap.operations import upgrade
from compose_chap.operations.upgrade import Upgraded
from compose_chap.preflight import preflight, roads
from compose_chap.preflight.known_roads import ROADS
from compose_chap.preflight.subject import Subject
from compose_chap.records import run_records
from compose_chap.stack import observe, releases
from compose_chap.stack.jobs import wait_for_jobs
from compose_chap.transaction import evidence

# How the plan says where the old data are kept, by whether that has to be a dump.
_KEPT = {
    False: "a copy of {} inside the server",
    True: "a second dump of {}, for want of room for a copy; a failure takes as long as a restore",
}


def _road_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give the command a flag for each way that is known to go wrong, to go it all the same."""
    for road in reversed(ROADS):
        if road.allow:
            help_text = f"Go on although this goes wrong: {road.summary}."
            function = click.option(road.allow, is_flag=True, help=help_text)(function)
    return function


@click.command("upgrade")
@click.argument("version", shell_complete=versions)
@click.option("--dry-run", is_flag=True, help="Show the plan and the changes of the files, and change nothing.")
@yes_option
@output_option
@patience_option
@wait_lock_option
@click.option("--digest", is_flag=True, help="Write the digests too, as the registry gives them.")
@click.option("--drain", type=float, metavar="SECONDS", default=0.0, help="Wait up to this long for running jobs.")
@click.option("--allow-drift", is_flag=True, help="Go on although containers differ from the files.")
@click.option("--abandon-jobs", is_flag=True, help="Go on although running jobs are lost.")
@click.option("--allow-downgrade", is_flag=True, help="Go to an older version.")
@click.option("--allow-unhealthy", is_flag=True, help="Go on although CHAP is not well now.")
@click.option("--allow-moved-mounts", is_flag=True, help="Go on although the new files keep CHAP's data elsewhere.")
@_road_options
@click.option(
    "--repair",
    is_flag=True,
    help="Let the upgrade mend what is known to go wrong with the data on this way: the checks name it.",
)
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
    repair: bool,
    **allow: bool,
) -> None:
    """Upgrade CHAP: all new and verified, or all old.

    Everything that can be checked is checked first, and the plan is shown before you are asked. Then: pull the images,
    back up, stop API and worker, keep a copy of the database, change the Compose files, start VERSION, verify it. If
    anything fails, or on Ctrl-C, all is put back as it was, data included, and verified.
    """
    target = release_tag(version)
    world, where = call.world(), call.where()
    find = partial(observe.find_local_stack, world.engine, where)
    stack = find()

    with guarded(call, world, stack, find) as (stack, attempt):
        subject = call.subject(world, stack, target, output, digest=digest)
        if drain:
            wait_for_jobs(world, stack, drain)
        allowed = {name for name, flag in preflight.OVERRIDES.items() if allow.get(flag.lstrip("-").replace("-", "_"))}
        found = preflight.examine(subject)
        found = roads.repaired(found) if repair else found
        checks = preflight.overridden(found, allowed)
        _refuse(call, checks, target + (f" -o {output}" if output else ""))
        if _runs_already(subject):
            call.result(
                {"changed": False, "chap_version": subject.version},
                f"CHAP {subject.version} runs already. Nothing to do.",
            )
            return
        plan = upgrade.UpgradePlan(
            stack=stack,
            target=target,
            images=subject.images,
            edits=subject.edits,
            sources=tuple(subject.model.contents),
            backups=subject.backups,
            platform=subject.platform,
            baseline=subject.baseline,
            overridden=tuple(check.name for check in found if check.failed),
            drain=_drain(found, allowed, drain),
            by_dump=_by_dump(checks),
            move=subject.move,
            no_cache=no_cache,
            repairs=roads.repairs(found) if repair else (),
        )
        text = _plan_text(subject, checks)
        if dry_run:
            call.result({"plan": _plan_json(subject, checks), "checks": [asdict(check) for check in checks]}, text)
            return
        if not call.json:
            call.tell(text)
        call.confirm(f"Upgrade CHAP from {subject.version} to {target}?", yes=yes)
        attempt.learn(f"{subject.version} to {target.removeprefix('v')}", **{"from": subject.version, "to": target})
        done = upgrade.execute(world, plan, dhis2_credentials(dhis2_user))

    call.result(
        {
            "changed": True,
            "run": done.run,
            "from": done.before,
            "to": done.after,
            "backup": str(done.backup.folder),
            "kept_database": done.kept,
            "report": str(run_records.report_file(stack.project.directory, done.run)),
            "downtime_seconds": done.downtime,
            "checks": [asdict(check) for check in done.checks],
        },
        render.paragraph(
            f"CHAP is upgraded from {done.before} to {done.after.removeprefix('v')}, and verified. It was down for"
            f" {units.duration(done.downtime)}."
        )
        + "\n"
        + render.checks_text(done.checks, colour=render.colourful(sys.stdout))
        + "\n"
        + _to_put_back(done)
        + _to_go_back(done)
        + f"\nReport: {run_records.report_file(stack.project.directory, done.run)}",
    )


def _to_put_back(done: Upgraded) -> str:
    # Never broken into lines: it is copied from here.
    commands = [check.details["put_back"]["command"] for check in done.checks if "put_back" in check.details]
    return "".join(f"To put back the values that the migration lost:\n{command}\n" for command in commands)


def _to_go_back(done: Upgraded) -> str:
    kept, command = f"database {done.kept}", "rollback"
    if not done.kept:
        kept, command = f"backup {done.backup.id}", f"restore {done.backup.id} --with-version"
    return render.paragraph(f"The previous data are kept in {kept}. To go back to them:") + f" docker chap {command}"


def _runs_already(subject: Subject) -> bool:
    # `docker compose up -d API` by hand leaves an old worker, and the files do not tell.
    versions = {subject.version, *subject.baseline.worker_versions.values()}
    return not subject.changes_files and versions == {releases.reported_version(subject.target)}


def _drain(checks: Sequence[Any], allowed: set[str], drain: float) -> float | None:
    # A job that begins during the pull may be lost too, when the operator said so.
    known = all(check.status == "ok" for check in checks if check.name == "jobs")
    return drain if known and "jobs" not in allowed else None


def _refuse(call: Call, checks: Sequence[Any], words: str) -> None:
    failed = [check for check in checks if check.failed]
    if not failed:
        return
    if not call.json:
        call.tell(render.checks_text(checks, colour=render.colourful(sys.stderr)))
    refused = ChapError(
        " ".join(dict.fromkeys(check.message for check in failed)),
        state="Nothing was changed.",
        hint=next((check.hint for check in failed if check.hint), f"See: docker chap check {words}"),
    )
    refused.details = {"run": None, "report": None, "checks": [asdict(check) for check in checks]}
    raise refused


def _plan_text(subject: Any, checks: Sequence[Any]) -> str:
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
        render.paragraph(
            f"CHAP will be down for about {units.duration(_downtime(subject, checks))}. Other services run on."
            " What cannot be undone: a job that runs when CHAP stops is lost. Rows that are written after the upgrade"
            " are kept aside by a rollback, not merged into the old data.",
            sys.stderr,
        ),
        "Changes of the files",
        _diff(subject).rstrip() or "  none",
        "Checks",
        render.checks_text(checks, colour=render.colourful(sys.stderr)),
    ]
    return "\n".join(steps)


def _diff(subject: Any) -> str:
    # Old releases have a password in their files, and an env file has one beside the version.
    containers = [container for service in subject.stack.services for container in service.containers]
    return redact.redact(subject.diff, evidence.secrets_of(containers))


def _by_dump(checks: Sequence[Any]) -> bool:
    return any(check.details.get("keep") == "dump" for check in checks if check.name == "room")


def _downtime(subject: Any, checks: Sequence[Any]) -> float:
    project = subject.stack.project
    runs = run_records.history(project.directory, subject.world.engine.origin(project.name))
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
