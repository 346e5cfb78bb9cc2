"""The command that follows a run in the background: attach."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import click

from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command
from compose_chap.cli.options import at_least
from compose_chap.cli.recorded import records_of
from compose_chap.cli.screen import render
from compose_chap.cli.screen.detached import detached_text
from compose_chap.cli.screen.plain import plain
from compose_chap.errors import Cancelled, Interrupted, StateError
from compose_chap.operations import detach
from compose_chap.records import detached
from compose_chap.records.detached import Detached


@command("attach")
@click.argument("run", metavar="[RUN]", required=False)
@click.option(
    "-n",
    "--lines",
    type=int,
    callback=at_least(0),
    metavar="N",
    default=20,
    show_default=True,
    help="How many lines to begin with.",
)
@common
def attach_command(call: Call, run: str | None, lines: int) -> None:
    """Follow a run that was begun with --detach, and return its exit status.

    Without RUN it is the last one. Its progress comes to standard error, and its result to standard output, as if it
    ran here. Ctrl-C leaves it, and the run goes on. One that has ended can be looked at again.
    """
    world = call.world()
    background_run = _find(call, run)
    if not call.json:
        call.tell(detached_text(background_run))
    try:
        ended = detach.follow(world, background_run, lines, _passing_on(call))
    except KeyboardInterrupt:
        raise Cancelled(
            "You stopped following it.",
            state=f"The {background_run.words[0]} goes on in the background.",
            hint=f"Follow it again: docker chap attach {background_run.id}",
        ) from None
    if ended.exit_status is None:
        raise Interrupted(
            f"The {background_run.words[0]} was killed before it could report an exit status.",
            state="The stack may be partly changed.",
            hint="See how things are: docker chap status\nIf a run was cut off: docker chap recover",
        )
    output = detach.result(ended)
    if call.json:
        good, text = ended.exit_status == 0, output.decode(errors="replace")
        call.result({"ok": good, "detached": ended.to_json(), "output": text}, "")
    else:
        sys.stdout.buffer.write(output)
        sys.stdout.flush()
    raise click.exceptions.Exit(ended.exit_status)


def _find(call: Call, wanted: str | None) -> Detached:
    directory, _ = records_of(call)
    runs = detached.runs(directory)
    matching = [run for run in runs if run.id == wanted] if wanted else runs
    if not matching:
        listed = ", ".join(run.id for run in runs) or "none"
        raise StateError(
            f"There is no run {wanted} in the background. There are: {listed}."
            if wanted
            else "No run was begun with --detach.",
            hint="See what was done: docker chap history",
        )
    return matching[-1]


def _passing_on(call: Call) -> Callable[[bytes], None]:
    """Return what takes the progress of the run, piece by piece."""
    if call.json:
        return lambda piece: None
    return _JsonLines() if call.progress == "json" else _pass_on


class _JsonLines:
    """Passes lines on as they are where they are JSON objects, and as notes where they are not."""

    def __init__(self) -> None:
        self._begun = b""

    def __call__(self, piece: bytes) -> None:
        *lines, self._begun = (self._begun + piece).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            render.json_line(json.loads(text) if _is_object(text) else {"note": text})


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _pass_on(piece: bytes) -> None:
    text = piece.decode(errors="replace")
    sys.stderr.write(plain(text) if sys.stderr.isatty() else text)
    sys.stderr.flush()
