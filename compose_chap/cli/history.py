"""The command that shows what was done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from compose_chap import units
from compose_chap.cli.call import Call, common
from compose_chap.cli.screen import render
from compose_chap.engine.world import World
from compose_chap.model import Origin
from compose_chap.records import engine_lock, order, run_records
from compose_chap.stack import observe


def _release(version: str) -> str:
    return version.removeprefix("v") if version[1:2].isdigit() else version


@click.command("history")
@common
def history_command(call: Call) -> None:
    """Show what was done, when, by whom, with which result.

    The records lie in .docker-chap/ beside the main Compose file. A run that was cut off is the last one.
    """
    world, where = call.world(), call.where()
    directory = observe.find_directory(world.engine, where)
    origin = world.engine.origin(where.name)
    runs = run_records.history(directory, origin) + _cut_off(world, directory, origin)
    rows = [
        [
            units.moment(run["started_at"]) if run.get("started_at") else "",
            run["operation"] + (f" of {run['undoes']}" if run.get("undoes") else ""),
            " to ".join(dict.fromkeys(_release(run[end]) for end in ("from", "to") if run.get(end))),
            run["result"],
            run.get("by", ""),
            run["id"],
        ]
        for run in runs
    ]
    warnings = order.warnings("Run", {run["id"]: order.began(run) for run in runs}, world.clock())
    text = "Nothing was done yet."
    if rows:
        text = render.table(rows, ["WHEN", "WHAT", "VERSIONS", "RESULT", "BY", "RUN"])
        text += f"\n\nEach run's report, with steps, digests and checks: {run_records.report_file(directory, 'RUN')}"
        text += "".join(f"\n\n{render.paragraph(warning)}" for warning in warnings)
    call.result({"runs": runs, "warnings": warnings}, text)


def _cut_off(world: World, directory: Path, origin: Origin) -> list[dict[str, Any]]:
    """Return the record of a stack's open run, none for one that goes on."""
    journal = run_records.open_run(directory, world.clock)
    if journal is None:
        return []
    whose = Origin.of(journal.record)
    if not origin.owns(whose) or engine_lock.holder(world.engine, whose.project):
        return []
    return [{**journal.report, "result": "cut off"}]
