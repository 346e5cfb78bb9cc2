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
from compose_chap.check import Check
from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command
from compose_chap.cli.dhis2_login import dhis2_credentials, dhis2_options
from compose_chap.cli.options import (
    allow_unmounted_option,
    detach_option,
    output_option,
    patience_option,
    wait_lock_option,
    yes_option,
)
from compose_chap.cli.recorded import guarded
from compose_chap.cli.screen import sentences
from compose_chap.cli.screen.checks import concerns_text
from compose_chap.cli.screen.layout import hanging, paragraph, width_of
from compose_chap.cli.values import versions
from compose_chap.errors import ChapError
from compose_chap.image import release_tag
from compose_chap.operations import upgrade
from compose_chap.operations.upgrade import Upgraded
from compose_chap.operations.upgrade_plan import UpgradePlan, plan_upgrade, runs_already
from compose_chap.preflight import preflight, roads
from compose_chap.preflight.known_roads import ROADS
from compose_chap.preflight.subject import Subject
from compose_chap.records import run_records
from compose_chap.records.files.mounted import refuse_unmounted
from compose_chap.stack import observe
from compose_chap.stack.jobs import wait_for_jobs
from compose_chap.transaction import evidence

# How the plan says where the old data are kept.
_KEPT = {"copy": sentences.COPY_KEPT, "dump": sentences.DUMP_KEPT, "backup": sentences.BACKUP_KEPT}
# Seconds of a copy from which on the plan says what it costs, and what to do without it.
_LONG_COPY = 30


def _road_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give the command a flag for each way that is known to go wrong, to take it anyway."""
    for road in reversed(ROADS):
        if road.allow:
            help_text = f"Upgrade even though this is known to go wrong: {road.summary}."
            function = click.option(road.allow, is_flag=True, help=help_text)(function)
    return function


@command("upgrade")
@click.argument("version", shell_complete=versions)
@click.option("--dry-run", is_flag=True, help="Show the plan and the changes to the files, but change nothing.")
@yes_option
@output_option
@allow_unmounted_option
@patience_option
@wait_lock_option
@detach_option
@click.option("--digest", is_flag=True, help="Write the digests too.")
@click.option("--drain", type=float, metavar="SECONDS", default=0.0, help="Wait up to this long for running jobs.")
@click.option("--allow-drift", is_flag=True, help="Upgrade even if containers differ from the files.")
@click.option("--abandon-jobs", is_flag=True, help="Upgrade even if running jobs are lost.")
@click.option("--allow-downgrade", is_flag=True, help="Allow an older version.")
@click.option("--allow-unhealthy", is_flag=True, help="Upgrade even if CHAP is unhealthy now.")
@click.option("--allow-moved-mounts", is_flag=True, help="Upgrade even if the new files keep CHAP's data elsewhere.")
@_road_options
@click.option(
    "--repair",
    is_flag=True,
    help="Let the upgrade repair what is known to go wrong with the data: the checks name it.",
)
@click.option(
    "--no-copy",
    is_flag=True,
    help="For a large database: make no copy of it while CHAP is down, and go back by restoring the backup. A copy is"
    " made anyway if something was written after the backup began.",
)
@click.option("--no-cache", is_flag=True, help="From source: build every layer again.")
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
    no_copy: bool,
    repair: bool,
    allow_unmounted: bool,
    **allow: bool,
) -> None:
    """Upgrade CHAP completely and verified, or not at all.

    Everything that can be checked is checked first, and the plan is shown before you are asked. Then: pull the images,
    back up, stop the worker, stop the API, keep a copy of the database, change the Compose files, start VERSION, verify
    it. If anything fails, or on Ctrl-C, everything is put back as it was, data included, and verified.
    """
    target = release_tag(version)
    world, where = call.world(), call.where()
    find = partial(observe.find_local_stack, world.engine, where)
    stack = find()

    with guarded(call, world, stack, find) as (stack, attempt):
        subject = call.subject(world, stack, target, output, digest=digest)
        if not allow_unmounted:
            refuse_unmounted(subject.backups)
        if drain:
            wait_for_jobs(world, stack, drain)
        allowed = {name for name, flag in preflight.OVERRIDES.items() if allow.get(flag.lstrip("-").replace("-", "_"))}
        made = preflight.examine(subject)
        made = roads.repaired(made) if repair else made
        checks = preflight.overridden(made, allowed)
        _refuse(call, checks, target)
        if runs_already(subject):
            text = sentences.already_running(subject.version)
            call.result({"changed": False, "chap_version": subject.version}, text)
            return
        plan = plan_upgrade(subject, made, allowed, drain=drain, repair=repair, no_cache=no_cache, no_copy=no_copy)
        text = _plan_text(subject, plan, checks)
        if dry_run:
            document = {"plan": _plan_json(subject, plan), "checks": [asdict(check) for check in checks]}
            call.result(document, text)
            return
        call.propose(text)
        call.confirm(sentences.ask_upgrade(subject.version, target.removeprefix("v")), yes=yes)
        attempt.learn(f"{subject.version} to {target.removeprefix('v')}", **{"from": subject.version, "to": target})
        credentials = dhis2_credentials(call, dhis2_user)
        call.hand_over(stack.project.directory)
        done = upgrade.execute(world, plan, credentials)
        attempt.learn(downtime=done.downtime, backup=done.backup.id, **done.backup.figures)

    report = run_records.report_file(stack.project.directory, done.run)
    call.result(_done_json(done, report), _done_text(done, report))


def _done_json(done: Upgraded, report: Path) -> dict[str, Any]:
    return {
        "changed": True,
        "run": done.run,
        "from": done.before,
        "to": done.after,
        "backup": str(done.backup.folder),
        "kept_database": done.kept,
        "report": str(report),
        "downtime_seconds": done.downtime,
        "checks": [asdict(check) for check in done.checks],
    }


def _done_text(done: Upgraded, report: Path) -> str:
    summary = sentences.upgraded(done.before, done.after.removeprefix("v"), units.duration(done.downtime))
    return "\n".join(
        [
            paragraph(summary),
            concerns_text(done.checks),
            *_to_put_back(done),
            *_to_go_back(done),
            sentences.report_at(report),
        ]
    )


def _to_put_back(done: Upgraded) -> list[str]:
    # Never broken into lines: it is copied from here.
    commands = [check.details["put_back"]["command"] for check in done.checks if "put_back" in check.details]
    return [f"{sentences.TO_PUT_VALUES_BACK}\n{command}" for command in commands]


def _to_go_back(done: Upgraded) -> list[str]:
    kept, command = f"database {done.kept}", "rollback"
    if not done.kept:
        kept, command = f"backup {done.backup.id}", f"restore {done.backup.id} --with-version"
    return [paragraph(sentences.previous_data_kept(kept)), f"  docker chap {command}"]


def _refuse(call: Call, checks: Sequence[Check], target: str) -> None:
    failed = [check for check in checks if check.failed]
    if not failed:
        return
    others = [check for check in checks if not check.failed]
    if not call.json and any(check.status == "warn" for check in others):
        call.tell(concerns_text(others, sys.stderr))
    refused = ChapError(
        "\n".join(dict.fromkeys(check.message for check in failed)),
        state="Nothing was changed.",
        hint=next((check.hint for check in failed if check.hint), f"See all checks: docker chap check {target}"),
    )
    refused.details = {"run": None, "report": None, "checks": [asdict(check) for check in checks]}
    raise refused


def _plan_text(subject: Subject, plan: UpgradePlan, checks: Sequence[Check]) -> str:
    """Return what an operator reads before the question: the changes, what is not good, the steps, the price."""
    title = sentences.upgrade_title(subject.version, subject.target.removeprefix("v"))
    price = (sentences.expected_downtime(units.duration(plan.downtime)), *_price(plan), sentences.CANNOT_BE_UNDONE)
    return "\n\n".join(
        [
            f"{sentences.CHANGES}\n{_diff(subject).rstrip() or f'  {sentences.NO_CHANGES}'}",
            concerns_text(checks, sys.stderr),
            "\n".join([title, *_steps(subject, plan)]),
            "\n".join(paragraph(sentence, sys.stderr) for sentence in price),
        ]
    )


def _price(plan: UpgradePlan) -> tuple[str, ...]:
    """Return what a long copy costs, and what it costs to do without one."""
    expected = plan.forecast
    rest, downtime, back = map(units.duration, (expected.rest, expected.downtime, expected.restoring))
    if plan.no_copy:
        return (sentences.price_without_copy(downtime, back),)
    if not plan.by_dump and expected.preserving >= _LONG_COPY:
        return (sentences.price_of_copy(units.duration(expected.preserving), rest, back),)
    return ()


def _steps(subject: Subject, plan: UpgradePlan) -> list[str]:
    images = ", ".join(map(str, dict.fromkeys(subject.images.values())))
    writers = ", ".join(service.name for service in subject.stack.writers)
    fetch, build = [("pull", images)], []
    if move := subject.move:
        fetch = []
        build = [("check out", f"{subject.target} in {move.folder}, now at {move.before}"), ("build", images)]
    size = units.size(subject.database.size)
    steps = [
        *fetch,
        ("back up", f"database {subject.database.name} ({size}) to {subject.backups}"),
        *build,
        ("stop", writers),
        ("keep", _KEPT[plan.kept_as].format(subject.database.name)),
        ("recreate", sentences.only_recreated(writers)),
        ("verify", sentences.VERIFIED_PARTS),
    ]
    return [f"  {name:<9}  {hanging(text, 13, width_of(sys.stderr))}" for name, text in steps]


def _diff(subject: Subject) -> str:
    # Old releases have a password in their files, and an env file has one beside the version.
    containers = [container for service in subject.stack.services for container in service.containers]
    return redact.redact(subject.diff, evidence.secrets_of(containers))


def _plan_json(subject: Subject, plan: UpgradePlan) -> dict[str, Any]:
    return {
        "from": subject.version,
        "to": subject.target,
        "images": {name: str(reference) for name, reference in subject.images.items()},
        "diff": _diff(subject),
        "checkout": subject.move.to_json() if subject.move else None,
        "database_bytes": subject.database.size,
        "expected_downtime_seconds": round(plan.downtime, 1),
        "keep": plan.kept_as,
        "expected_seconds": {key: round(value, 1) for key, value in asdict(plan.forecast).items()},
        "backups": str(subject.backups),
    }
