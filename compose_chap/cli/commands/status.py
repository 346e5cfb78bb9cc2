"""The command that shows what runs: one stack, all of an engine, or all of every context."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import click

from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command
from compose_chap.cli.options import path
from compose_chap.cli.screen import sentences
from compose_chap.cli.screen import status as status_screen
from compose_chap.cli.screen.layout import paragraph
from compose_chap.cli.values import files
from compose_chap.errors import ChapError, UsageError
from compose_chap.stack import observe
from compose_chap.stack.chap import Chap

# The rest is imported where it is used: the first lines are on the screen before.
if TYPE_CHECKING:
    from compose_chap.engine.world import World
    from compose_chap.model import Stack
    from compose_chap.operations.status import Status

# How many seconds the other questions wait at most until CHAP was asked: they would take the processor from that.
_HEAD_START = 0.25


@command("status")
@click.option(
    "--metrics-file",
    type=path,
    shell_complete=files,
    metavar="FILE",
    help="Also write a file for Prometheus; its name should end in .prom.",
)
@click.option("--all-stacks", is_flag=True, help="Show every CHAP stack of the engine, in one table.")
@click.option("--all-contexts", is_flag=True, help="Show every CHAP stack of every Docker context.")
@click.option(
    "--time-limit",
    type=float,
    metavar="SECONDS",
    default=30,
    show_default=True,
    help="With --all-contexts: how long to wait for each.",
)
@common
def status_command(
    call: Call, metrics_file: Path | None, all_stacks: bool, all_contexts: bool, time_limit: float
) -> None:
    """Show what runs, how it is, and the last backup.

    Nothing is changed. A part of CHAP that is down is shown, and is no failure of this command. With --all-contexts
    the exit status is 1 when a context could not be asked; all others are shown.
    """
    if all_stacks or all_contexts:
        if metrics_file or call.files or call.project_name or call.project_directory or (all_stacks and all_contexts):
            raise UsageError(
                "--all-stacks and --all-contexts cannot be used with another choice of a stack, or with a metrics file."
            )
        if all_contexts:
            _show_contexts(call, time_limit)
        else:
            _show_stacks(call)
        return
    _show(call, metrics_file)


def _show(call: Call, metrics_file: Path | None) -> None:
    world = call.world()
    shown = False
    try:
        stack = observe.find_stack(world.engine, call.where())
        with ThreadPoolExecutor(1) as pool:
            # CHAP takes a second to say whether it is ready, so that is asked before anything else is even imported.
            api, sent = stack.api.containers[0], Event()
            overview = pool.submit(Chap(world.engine, api.id).overview, sent.set) if api.running else None
            # On a terminal the containers are shown at once. All else takes a moment: programs inside them are asked.
            shown = call.part(status_screen.containers_text(stack))
            from compose_chap.operations import status

            world.notify("look", stack.project.name)
            if overview:
                sent.wait(_HEAD_START)
            seen = status.look(world, stack, overview)
    except ChapError:
        _write_metrics(metrics_file, None, None, world)
        raise
    update = _update(seen, world)
    _write_metrics(metrics_file, seen, update, world)
    text = status_screen.status_text(seen, world.clock())
    if not shown:
        text = f"{status_screen.containers_text(stack)}\n\n{text}"
    if update:
        text += f"\n\n{paragraph(sentences.newer_version(update))}\n  docker chap check {update}"
    call.result({**status_screen.status_document(seen, world.clock()), "update_available": update}, text)


def _show_stacks(call: Call) -> None:
    from compose_chap.cli.screen.fleet import stacks_text
    from compose_chap.operations import status

    world = call.world()

    def look(stack: Stack) -> dict[str, Any]:
        try:
            seen = status.look(world, stack)
        except ChapError as error:
            return {"project": {"name": stack.project.name}, "problems": [error.message]}
        return {**status_screen.status_document(seen, world.clock()), "update_available": _update(seen, world)}

    server = world.engine.origin("").server
    with ThreadPoolExecutor() as pool:
        stacks = list(pool.map(look, observe.find_stacks(world.engine)))
    call.result({"server": server, "stacks": stacks}, stacks_text(server, stacks, world.clock()))


def _show_contexts(call: Call, time_limit: float) -> None:
    from compose_chap.cli.screen.fleet import contexts_text
    from compose_chap.operations import fleet

    call.world().notify("ask", "every Docker context")
    answers = fleet.ask(call.docker, time_limit)
    good = not any(answer.error for answer in answers)
    call.result(
        {"ok": good, "contexts": [answer.to_json() for answer in answers]}, contexts_text(answers, call.clock())
    )
    if not good:
        raise click.exceptions.Exit(1)


def _update(seen: Status, world: World) -> str | None:
    """Return the newer release, empty for none; None where nothing asked the registry in the last week."""
    from compose_chap.stack import releases

    known = releases.remembered(releases.repositories_of(seen.stack), world.environment, world.clock(), releases.A_WEEK)
    version = seen.versions.get(seen.stack.api.name, "")
    return releases.newer(version, known) if known and version else None


def _write_metrics(file: Path | None, seen: Status | None, update: str | None, world: World) -> None:
    """Write the numbers of a status, None for one that failed, if somebody wants them."""
    if not file:
        return
    from compose_chap.cli.screen import metrics
    from compose_chap.records.files import durable

    new = not file.exists()
    durable.write_file(file.absolute(), metrics.text(seen, update, world.clock()).encode())
    if new:
        file.chmod(0o644)  # what collects it is another user, and it holds no secret
