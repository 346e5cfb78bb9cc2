"""What every command has: Compose's own options, `--json`, progress, and how to ask."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from compose_chap.cli import command_table
from compose_chap.cli.command_table import COMMON_NAMES, WITH_FOLDER
from compose_chap.cli.options import path
from compose_chap.cli.screen.plain import plain
from compose_chap.cli.values import files, projects
from compose_chap.errors import ChapError, Declined, UsageError

if TYPE_CHECKING:
    from compose_chap.engine.world import World
    from compose_chap.model import Stack
    from compose_chap.preflight.subject import Subject
    from compose_chap.stack.location import Where

_ANSWERS = " [y/N]: "

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Call:
    """One call of a command: where the stack is, and how to speak."""

    docker: tuple[str, ...]
    command: str = ""
    files: tuple[Path, ...] = ()
    project_name: str = ""
    project_directory: Path | None = None
    env_files: tuple[Path, ...] = ()
    json: bool = False
    progress: str = "auto"
    patience: float = 120.0
    words: tuple[str, ...] = ()
    wait_lock: float = 0.0
    detach: bool = False
    output: Path | None = None

    def world(self) -> World:
        """Return engine, clock and progress for this call; every call gets the same engine and progress."""
        from compose_chap import timeline
        from compose_chap.cli.screen.progress import Progress
        from compose_chap.cli.screen.render import now
        from compose_chap.engine.engine import Engine
        from compose_chap.engine.world import World

        context = click.get_current_context()
        if "progress" not in context.meta:
            mode = "quiet" if self.json and self.progress == "auto" else self.progress
            context.meta["progress"] = context.with_resource(Progress(sys.stderr, mode))
            context.meta["engine"] = Engine(self.docker)
        engine, notify = context.meta["engine"], context.meta["progress"]
        return World(engine, now, time.sleep, timeline.stepped(notify), self.patience, environment=dict(os.environ))

    def clock(self) -> datetime:
        """Return the time."""
        from compose_chap.cli.screen import render

        return render.now()

    def where(self) -> Where:
        """Return how the operator selects the stack."""
        from compose_chap.stack.location import Where

        return Where(
            self.files, self.project_name, self.project_directory, self.env_files, Path.cwd(), dict(os.environ)
        )

    def subject(self, world: World, stack: Stack, target: str, output: Path | None, *, digest: bool = False) -> Subject:
        """Return the subject of the preflight."""
        from compose_chap.engine.registries.registry import Registry
        from compose_chap.preflight.subject import Subject
        from compose_chap.schedule.folders import folder_for
        from compose_chap.stack import observe

        where = self.where()
        world.notify("check", stack.project.name)
        return Subject(
            world,
            stack,
            observe.read_model(where, stack),
            target,
            Registry(world.engine.insecure_registry, world.engine.credentials),
            # Without the files, no check needs the folder.
            folder_for(stack, output, where.environment) if stack.project.local else where.folder,
            digest,
        )

    def result(self, data: dict[str, Any], text: str) -> None:
        """Print a result, as JSON or as text."""
        from compose_chap.cli.screen import render

        _end_progress()
        render.write(render.document(self.command, {"ok": True, **data}) if self.json else self.full_command(text))

    def part(self, text: str) -> bool:
        """Print a part of a result early, on a terminal only. Return whether it was printed."""
        from compose_chap.cli.screen import render

        if self.json or not sys.stdout.isatty():
            return False
        _end_progress()
        render.write(f"{text}\n")
        sys.stdout.flush()
        return True

    def tell(self, text: str) -> None:
        """Say something that is no result, on standard error."""
        from compose_chap.cli.screen import render

        _end_progress()
        if self.progress == "json":
            render.json_line({"note": text})
        else:
            render.tell(self.full_command(text))

    def propose(self, text: str) -> None:
        """Say what a question will be about, where a person reads it; in the background it was shown before."""
        if not (self.json or _in_background()):
            self.tell(text)

    def full_command(self, text: str) -> str:
        """Return a text with each command in it for the stack that this call is for, as it has to be typed here."""
        if self.output and self.command in WITH_FOLDER:
            text = command_table.in_folder(text, self.output)
        options = [word for file in self.files for word in ("-f", str(file))]
        options += ["-p", self.project_name] if self.project_name else []
        options += ["--project-directory", str(self.project_directory)] if self.project_directory else []
        options += [word for file in self.env_files for word in ("--env-file", str(file))]
        if not options and len(self.docker) == 1:
            return text
        return command_table.of_stack(text, [os.path.basename(self.docker[0]), *self.docker[1:], "chap", *options])

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something is changed. Raise UsageError when nobody can be asked, Cancelled on a no."""
        self.check_askable(yes=yes)
        if yes or _in_background():
            return
        from compose_chap.cli.screen import layout, render, sentences

        _end_progress()
        room = layout.width_of(sys.stderr) - len(_ANSWERS)
        try:
            agreed = click.confirm(layout.hanging(plain(question), 0, max(room, 0)), err=True)
        except click.Abort:
            render.tell("")  # what follows begins on a line of its own
            raise
        if not agreed:
            raise Declined(sentences.DECLINED)

    def check_askable(self, *, yes: bool) -> None:
        """Raise UsageError when a question will come up and nobody can be asked."""
        if not (yes or _in_background() or self.asks):
            hint = "Add --yes to go on without a question."
            why = "This changes the stack, and there is no terminal to ask on."
            raise UsageError(why, state="Nothing was changed.", hint=hint)

    @property
    def asks(self) -> bool:
        """Whether there is a person who can be asked: on a terminal that shows no JSON."""
        return sys.stdin.isatty() and not self.json and self.progress != "json"

    def hand_over(self, directory: Path | None, confirmed: str = "") -> None:
        """Leave what follows to a process apart, where that is wanted; its records lie in `directory`.

        `confirmed` says what `latest` meant when it was asked about. All that is asked was asked before. Raise
        HandedOver, which ends the command here and lets go of the lock.
        """
        if self.detach and not _in_background():
            if directory is None:
                raise UsageError(
                    "--detach needs the stack's files: what the run writes is kept beside them.",
                    state="Nothing was changed.",
                    hint="Run it on the server where they are.",
                )
            raise HandedOver(directory, confirmed)


class HandedOver(BaseException):
    """Not a failure: the work of a command goes on in another process. See `Call.hand_over`."""

    def __init__(self, directory: Path, confirmed: str) -> None:
        super().__init__()
        self.directory, self.confirmed = directory, confirmed


def _in_background() -> bool:
    from compose_chap.operations.detach import DETACHED

    return DETACHED in os.environ


def _end_progress() -> None:
    """Leave the line of a progress that is live, before anything else is written."""
    if progress := click.get_current_context().meta.get("progress"):
        progress.end()


# Before the command's name or behind it, as an operator is used to from `docker compose`.
_COMMON = (
    click.option(
        *("-f", "--file", "files"),
        multiple=True,
        type=path,
        shell_complete=files,
        metavar="FILE",
        help="A Compose file, as with docker compose.",
    ),
    click.option(
        "-p",
        "--project-name",
        shell_complete=projects,
        metavar="NAME",
        help="The Compose project, where there are several.",
    ),
    click.option(
        "--project-directory",
        type=path,
        shell_complete=files,
        metavar="FOLDER",
        help="The project's folder, as with docker compose.",
    ),
    click.option(
        "--env-file",
        "env_files",
        multiple=True,
        type=path,
        shell_complete=files,
        metavar="FILE",
        help="An env file, as with docker compose.",
    ),
    click.option("--json", is_flag=True, default=None, help="Print the result as one JSON document."),
    click.option(
        "--progress",
        type=click.Choice(["auto", "plain", "quiet", "json"]),
        metavar="KIND",
        help="Progress on standard error: auto, plain, quiet or json.",
    ),
)


def common_options(function: _Function) -> _Function:
    """Give a function the options that every command has."""
    for option in reversed(_COMMON):
        function = option(function)
    return function


def with_options(call: Call, options: dict[str, Any]) -> Call:
    """Take the common options out of `options` and return the call with those that were given."""
    common_values = {name: options.pop(name, None) for name in COMMON_NAMES}
    return replace(call, **{name: value for name, value in common_values.items() if value})


def typed_call(context: click.Context) -> Call:
    """Return the call with the options before and after the command's name, as far as they are typed."""
    call = with_options(context.find_root().obj, dict(context.find_root().params))
    return with_options(call, dict(context.params))


def common(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that every command has, and a `call` as its first argument."""

    @common_options
    @click.pass_context
    def wrapped(context: click.Context, /, **options: Any) -> None:
        call = replace(with_options(context.obj, options), command=context.info_name or "")
        timing = {name: options.pop(name, getattr(call, name)) for name in ("patience", "wait_lock", "detach")}
        call = replace(call, output=options.get("output"))
        try:
            context.invoke(function, replace(call, **timing), **options)
        except ChapError as error:
            from compose_chap.cli import recorded

            recorded.record_refusal(call, error)
            error.hint, error.state = call.full_command(error.hint), call.full_command(error.state)
            raise
        except HandedOver as handed:
            from compose_chap.cli import detach

            detach.begin_apart(call, handed.directory, handed.confirmed)

    wrapped.__doc__ = function.__doc__
    own = getattr(function, "__click_params__", [])
    wrapped.__click_params__ = [*wrapped.__click_params__, *own]  # type: ignore[attr-defined]
    return wrapped
