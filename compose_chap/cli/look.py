"""The commands that only look: status, check, versions, history, version."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compose_chap import __version__, units
from compose_chap.cli.call import Call, common, output_option
from compose_chap.errors import ChapError, UsageError

if TYPE_CHECKING:
    from compose_chap.engine.world import World
    from compose_chap.model import Origin, Stack
    from compose_chap.operations.status import Status
    from compose_chap.project.checkout import Place


@click.command("version")
@common
def version_command(call: Call) -> None:
    """Show the version of this tool."""
    call.result({"tool_version": __version__}, f"docker chap {__version__}")


@click.command("status")
@click.option(
    "--metrics-file", type=Path, metavar="FILE", help="Write a file for Prometheus too; its name should end in .prom."
)
@click.option("--all-stacks", is_flag=True, help="Every CHAP stack of the engine, in one table.")
@click.option("--all-contexts", is_flag=True, help="Every CHAP stack of every Docker context, side by side.")
@click.option(
    "--time-limit",
    type=float,
    metavar="SECONDS",
    default=30.0,
    show_default="30",
    help="With --all-contexts: how long to wait for each.",
)
@common
def status_command(
    call: Call, metrics_file: Path | None, all_stacks: bool, all_contexts: bool, time_limit: float
) -> None:
    """Show what runs, how it is, and the last backup.

    Nothing is changed. A part of CHAP that is down is told of, and is no failure of this command. With --all-contexts
    the exit status is 1 when a context could not be asked; all others are shown.
    """
    from compose_chap.cli.screen import metrics
    from compose_chap.cli.screen.status import status_document, status_text
    from compose_chap.operations import status
    from compose_chap.stack import observe

    if all_stacks or all_contexts:
        if metrics_file or call.files or call.project_name or call.project_directory or (all_stacks and all_contexts):
            raise UsageError("--all-stacks and --all-contexts go with no other choice of a stack, and no metrics file.")
        if all_contexts:
            _show_contexts(call, time_limit)
        else:
            _show_stacks(call)
        return
    world = call.world()
    try:
        seen = status.look(world, observe.find_stack(world.engine, call.where()))
    except ChapError:
        if metrics_file:
            _write_metrics(metrics_file, metrics.text(None, None, world.clock()))
        raise
    update = _update(seen, world)
    if metrics_file:
        _write_metrics(metrics_file, metrics.text(seen, update, world.clock()))
    told = status_text(seen, world.clock())
    if update:
        told += f"\n\nThere is a newer version. See: docker chap check {update}"
    call.result({**status_document(seen, world.clock()), "update_available": update}, told)


def _show_stacks(call: Call) -> None:
    from compose_chap.cli.screen.fleet import stacks_text
    from compose_chap.cli.screen.status import status_document
    from compose_chap.operations import status
    from compose_chap.stack import observe

    world = call.world()

    def look(stack: Stack) -> dict[str, Any]:
        try:
            seen = status.look(world, stack)
        except ChapError as error:
            return {"project": {"name": stack.project.name}, "problems": [error.message]}
        return {**status_document(seen, world.clock()), "update_available": _update(seen, world)}

    server = world.engine.origin("").server
    with ThreadPoolExecutor() as pool:
        stacks = list(pool.map(look, observe.find_stacks(world.engine)))
    call.result({"server": server, "stacks": stacks}, stacks_text(server, stacks, world.clock()))


def _show_contexts(call: Call, time_limit: float) -> None:
    from compose_chap.cli.screen.fleet import contexts_text
    from compose_chap.operations import fleet

    call.world().notify("ask", "every Docker context")
    answers = fleet.ask(call.docker, time_limit)
    good = not any(one.error for one in answers)
    call.result({"ok": good, "contexts": [one.to_json() for one in answers]}, contexts_text(answers, call.clock()))
    if not good:
        raise click.exceptions.Exit(1)


def _update(seen: Status, world: World) -> str | None:
    """Return the newer release, empty for none; None where nothing asked the registry in the last week."""
    from compose_chap.stack import releases

    known = releases.remembered(_repositories(seen.stack), world.environment, world.clock(), releases.A_WEEK)
    version = seen.versions.get(seen.stack.api.name, "")
    return releases.newer(version, known) if known and version else None


def _repositories(stack: Stack) -> set[str]:
    """Return by what the releases of a stack are remembered; what Compose builds is called after the project."""
    return {service.image.repository for service in stack.writers}


def _write_metrics(file: Path, text: str) -> None:
    from compose_chap.records import durable

    new = not file.exists()
    durable.write_file(file.absolute(), text.encode())
    if new:
        file.chmod(0o644)  # what collects it is another user, and it holds no secret


@click.command("check")
@click.argument("version", default="")
@output_option
@common
def check_command(call: Call, version: str, output: Path | None) -> None:
    """Run the checks that come before an upgrade.

    Nothing is changed. With VERSION, the checks are for the upgrade to it: its images, its notes, the free space, the
    changes of the files. The exit status is 1 when a check fails, 0 when all are good or only warn.
    """
    from compose_chap.cli.screen import render
    from compose_chap.image import release_tag
    from compose_chap.preflight import preflight
    from compose_chap.stack import observe

    target = release_tag(version) if version else ""
    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    checks = preflight.examine(call.subject(world, stack, target, output))
    good = not any(check.failed for check in checks)
    call.result(
        {"ok": good, "checks": [asdict(one) for one in checks]},
        render.checks_text(checks, colour=render.colourful(sys.stdout)),
    )
    if not good:
        raise click.exceptions.Exit(1)


@click.command("versions")
@common
def versions_command(call: Call) -> None:
    """List the versions that CHAP can move to, newest last.

    These are the releases that the registry has for the API and for the worker; from source, the
    release tags of the checkout's remote.
    """
    from compose_chap.project import checkout
    from compose_chap.stack import observe, releases

    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    subject = call.subject(world, stack, "", None)
    place = None
    if source := subject.checkout:
        place = source.place
        found, problem = checkout.releases(source)
        if problem:
            call.tell(f"Note:  Only the tags of this clone are listed. {problem}")
    else:
        found, problem = releases.available(subject.registry, subject.images), ""
    if not problem:
        releases.remember(_repositories(stack), world.environment, world.clock(), found)
    lines = [_marked(one, subject.release, place) for one in found]
    if place and f"v{subject.release}" not in found:
        lines.append(f"{subject.release or 'unknown'}  (running, {place}, no release)")
    call.result(
        {"running": subject.release, "versions": found, "commit": place.commit if place else None},
        "\n".join(lines) or "There is no release.",
    )


def _marked(release: str, running: str, place: Place | None) -> str:
    if release != f"v{running}":
        return release
    return f"{release}  (running{f', {place}' if place else ''})"


def _release(version: str) -> str:
    return version.removeprefix("v") if version[1:2].isdigit() else version


@click.command("history")
@common
def history_command(call: Call) -> None:
    """Show what was done, when, by whom, with which result.

    The records lie in .docker-chap/ beside the main Compose file. A run that was cut off is the last one.
    """
    from compose_chap.cli.screen import render
    from compose_chap.records import run_records
    from compose_chap.stack import observe

    world, where = call.world(), call.where()
    directory = observe.find_directory(world.engine, where)
    origin = world.engine.origin(where.name)
    runs = run_records.history(directory, origin) + _cut_off(world, directory, origin)
    rows = [
        [
            units.moment(run["started_at"]),
            run["operation"] + (f" of {run['undoes']}" if run.get("undoes") else ""),
            " to ".join(dict.fromkeys(_release(run[end]) for end in ("from", "to") if run.get(end))),
            run["result"],
            run["by"],
            run["id"],
        ]
        for run in runs
    ]
    text = "Nothing was done yet."
    if rows:
        text = render.table(rows, ["WHEN", "WHAT", "VERSIONS", "RESULT", "BY", "RUN"])
        text += f"\n\nEach run's report, with steps, digests and checks: {run_records.report_file(directory, 'RUN')}"
    call.result({"runs": runs}, text)


def _cut_off(world: World, directory: Path, origin: Origin) -> list[dict[str, Any]]:
    """Return the record of a stack's open run, none for one that goes on."""
    from compose_chap.model import Origin
    from compose_chap.records import engine_lock, run_records

    journal = run_records.open_run(directory, world.clock)
    if journal is None:
        return []
    whose = Origin.of(journal.record)
    if not origin.owns(whose) or engine_lock.holder(world.engine, whose.project):
        return []
    return [{**journal.report, "result": "cut off"}]
