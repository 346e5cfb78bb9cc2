"""The command that tries an upgrade on a copy of the data: rehearse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from compose_chap import units
from compose_chap.check import Check
from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command
from compose_chap.cli.commands.backups import wanted_backup
from compose_chap.cli.options import detach_option, output_option, patience_option, usable, wait_lock_option
from compose_chap.cli.recorded import guarded
from compose_chap.cli.screen import sentences
from compose_chap.cli.screen.checks import checks_text
from compose_chap.cli.values import backups, versions
from compose_chap.errors import ChapError
from compose_chap.image import release_tag
from compose_chap.operations import rehearse
from compose_chap.operations.rehearse import Rehearsal, RehearsalPlan
from compose_chap.preflight import roads
from compose_chap.schedule.folders import all_folders
from compose_chap.stack import observe


@command("rehearse")
@click.argument("version", shell_complete=versions)
@click.option(
    "--from",
    "source",
    type=usable,
    shell_complete=backups,
    default="",
    metavar="BACKUP",
    help="Use the data of a backup instead of today's.",
)
@click.option(
    "--repair",
    is_flag=True,
    help="Repair on the copy what is known to go wrong with the data, as upgrade --repair does.",
)
@output_option
@patience_option
@wait_lock_option
@detach_option
@common
def rehearse_command(call: Call, version: str, source: str, repair: bool, output: Path | None) -> None:
    """Try the upgrade to VERSION on a copy of the data, beside production, and throw it away.

    It says whether the new version brings your data to its schema without losing rows, and for how long an upgrade
    would stop CHAP. The running stack is not touched.
    """
    target = release_tag(version)
    world, where = call.world(), call.where()
    find = partial(observe.find_local_stack, world.engine, where)
    stack = find()

    with guarded(call, world, stack, find) as (stack, attempt):
        subject = call.subject(world, stack, target, output)
        if subject.built:
            raise ChapError(
                "CHAP is built from source here, and a rehearsal works with images only.",
                state="Nothing was changed.",
                hint=f"See what the upgrade would do: docker chap upgrade {target} --dry-run",
            )
        origin = world.engine.origin(stack.project.name)
        known = roads.between(subject)
        known = roads.repaired(known) if repair else known
        plan = RehearsalPlan(
            stack,
            target,
            subject.images[stack.api.name],
            subject.platform,
            wanted_backup(call, source, all_folders(stack, output, where.environment), origin) if source else None,
            roads.repairs(known) if repair else (),
        )
        call.hand_over(stack.project.directory)
        done = rehearse.execute(world, plan)
        attempt.learn(f"{target}: {done.verdict}", to=target, verdict=done.verdict)

    checks = [*roads.seen(known, done.checks, subject.release, target, plan.repairs), *done.checks]
    call.result(_document(done, plan, checks, subject.version), _text(done, checks, target))
    if done.verdict == rehearse.BAD:
        raise click.exceptions.Exit(1)


def _document(done: Rehearsal, plan: RehearsalPlan, checks: Sequence[Check], now: str) -> dict[str, Any]:
    return {
        "ok": done.verdict != rehearse.BAD,
        "verdict": done.verdict,
        "from": now,
        "to": plan.target,
        "source": plan.source.id if plan.source else None,
        "repairs": list(plan.repairs),
        "checks": [asdict(check) for check in checks],
        "tables": dict(done.tables),
        "columns": {"added": done.added, "removed": done.removed},
        "seconds": dict(done.seconds),
        "expected_downtime_seconds": done.downtime,
        "log": "" if done.verdict == rehearse.GOOD else done.log,
    }


def _text(done: Rehearsal, checks: Sequence[Check], target: str) -> str:
    lines = [checks_text(checks)]
    lines += [sentences.columns(sentences.NEW_COLUMNS, done.added)] if done.added else []
    lines += [sentences.columns(sentences.REMOVED_COLUMNS, done.removed)] if done.removed else []
    if done.verdict == "bad" and not any(check.name == "start" and check.failed for check in done.checks):
        lines += [sentences.LAST_LOG_LINES, *(f"  {line}" for line in done.log.splitlines()[-10:])]
    if done.verdict != "bad":
        lines.append(sentences.downtime_of_upgrade(units.duration(done.downtime)))
    lines.append(sentences.REHEARSED[done.verdict].format(target=target))
    lines.append(sentences.COPY_GONE)
    return "\n".join(lines)
