"""The commands that only look: status, check, versions, history, version."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from compose_chap import __version__
from compose_chap.cli_options import Call, common, output_option


@click.command("version")
@common
def version_command(call: Call) -> None:
    """Show the version of this tool."""
    call.result({"tool_version": __version__}, f"docker chap {__version__}")


@click.command("status")
@common
def status_command(call: Call) -> None:
    """Show what runs, how it is, and the last backup."""
    from compose_chap import observe, status

    world = call.world()
    seen = status.look(world, observe.find_stack(world.engine, call.where()))
    call.result(status.to_json(seen), status.text(seen, world.clock()))


@click.command("check")
@click.argument("version", default="")
@output_option
@common
def check_command(call: Call, version: str, output: Path | None) -> None:
    """Run the checks that come before an upgrade, and nothing else."""
    from compose_chap import observe, preflight, screen
    from compose_chap.stack import release_tag

    target = release_tag(version) if version else ""
    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    checks = preflight.examine(call.subject(world, stack, target, output))
    good = not any(check.failed for check in checks)
    call.result(
        {"ok": good, "checks": [asdict(one) for one in checks]},
        screen.checks_text(checks, colour=screen.colourful(sys.stdout)),
    )
    if not good:
        raise click.exceptions.Exit(1)


@click.command("versions")
@common
def versions_command(call: Call) -> None:
    """List the versions that CHAP can move to, newest last."""
    from compose_chap import observe, preflight

    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    subject = call.subject(world, stack, "", None)
    releases = preflight.available(subject.registry, subject.images)
    lines = [f"{one}  (running)" if one == f"v{subject.version}" else one for one in releases]
    call.result({"running": subject.version, "versions": releases}, "\n".join(lines) or "The registry has no release.")


@click.command("history")
@common
def history_command(call: Call) -> None:
    """Show what was done, when, by whom, with which result."""
    from compose_chap import observe, screen, state

    world, where = call.world(), call.where()
    runs = state.history(observe.find_directory(world.engine, where))
    rows = [
        [run["id"], run["operation"], f"{run.get('from', '')} {run.get('to', '')}".strip(), run["result"], run["by"]]
        for run in runs
    ]
    text = screen.table(rows, ["RUN", "WHAT", "VERSIONS", "RESULT", "BY"]) if rows else "Nothing was done yet."
    call.result({"runs": runs}, text)
