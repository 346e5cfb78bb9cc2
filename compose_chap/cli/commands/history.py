"""The command that shows what was done."""

from __future__ import annotations

from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command
from compose_chap.cli.recorded import records_of
from compose_chap.cli.screen import sentences
from compose_chap.cli.screen.history import history_table
from compose_chap.cli.screen.layout import paragraph
from compose_chap.operations import history
from compose_chap.records import order, run_records


@command("history")
@common
def history_command(call: Call) -> None:
    """Show what was done, when, by whom, with which result.

    Every backup, proof, upgrade, restore and the like is listed, also one that failed or was refused. The records lie
    in .docker-chap/ beside the main Compose file, and can be read while the engine is off.
    """
    world = call.world()
    directory, origin = records_of(call)
    runs = run_records.history(directory, origin) + history.cut_off(world, directory, origin)
    entries = history.trail(directory, origin, runs)
    warnings = order.warnings("Run", {run["id"]: order.began(run) for run in runs}, world.clock())
    text = history_table(entries, world.clock()) or sentences.NOTHING_RECORDED
    if any(entry.run for entry in entries):
        report = run_records.report_file(directory, "RUN")
        text += f"\n\n{paragraph(sentences.REPORTS)}\n  {report}"
    text += "".join(f"\n\n{paragraph(warning)}" for warning in warnings)
    call.result({"runs": runs, "entries": [entry.to_json() for entry in entries], "warnings": warnings}, text)
