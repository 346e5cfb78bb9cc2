"""The command that shows what was done."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from compose_chap.cli.call import Call, common
from compose_chap.cli.screen.layout import table
from compose_chap.engine.world import World
from compose_chap.model import Origin
from compose_chap.records import engine_lock, run_records
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
    text = "No run was recorded yet."
    if runs:
        now = world.clock()
        heads = [f"WHEN ({now.astimezone():%Z})", "WHAT", "VERSIONS", "RESULT", "BY", "RUN"]
        text = table([_row(run, now) for run in runs], heads)
        text += "\n\nA run's report, with its steps, digests and checks:\n"
        text += f"  {run_records.report_file(directory, 'RUN')}"
    call.result({"runs": runs}, text)


def _row(run: Mapping[str, Any], now: datetime) -> list[str]:
    when = datetime.fromisoformat(run["started_at"]).astimezone()
    versions = dict.fromkeys(_release(run[end]) for end in ("from", "to") if run.get(end))
    return [
        # Without the year where that goes without saying: a line has to fit 80 columns.
        f"{when:%d %b %H:%M}" if when.year == now.year else f"{when:%d %b %Y}",
        run["operation"],
        " to ".join(versions),
        run["result"],
        run["by"].partition("@")[0],
        run["id"],
    ]


def _cut_off(world: World, directory: Path, origin: Origin) -> list[dict[str, Any]]:
    """Return the record of a stack's open run, none for one that goes on."""
    journal = run_records.open_run(directory, world.clock)
    if journal is None:
        return []
    whose = Origin.of(journal.record)
    if not origin.owns(whose) or engine_lock.holder(world.engine, whose.project):
        return []
    return [{**journal.report, "result": "cut off"}]
