"""Run the command line: find the command, call it, and report failures."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from compose_chap import __version__, timeline
from compose_chap.cli.call import Call, common_options, with_options
from compose_chap.cli.command_table import COMMANDS, EXIT_STATUSES, HelpContext
from compose_chap.errors import Bug, Cancelled, ChapError, UsageError


class _Commands(click.Group):
    context_class = HelpContext

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit status"):
            formatter.write_dl([(str(status), meaning) for status, meaning in EXIT_STATUSES.items()])
        super().format_epilog(context, formatter)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        # Commands first: they are what a reader looks for. The options are the same for all of them.
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])
        click.Command.format_options(self, context, formatter)

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if words[0] not in COMMANDS:
            import difflib  # not for the commands that are spelled right

            if near := difflib.get_close_matches(words[0], COMMANDS, 1):
                context.fail(f"No such command '{words[0]}'. Did you mean '{near[0]}'?")
        return super().resolve_command(context, words)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            if not _wants_json_lines(context.obj.words):
                raise
            # For it, click would write an empty line, which is no JSON.
            raise click.Abort from None

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        named = [CompletionItem(name, help=entry.summary) for name, entry in COMMANDS.items()]
        fitting = [item for item in named if item.value.startswith(incomplete)]
        return [*fitting, *click.Command.shell_complete(self, context, incomplete)]

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        entry = COMMANDS.get(name)
        if entry is None:
            return None
        module = importlib.import_module(f"compose_chap.cli.commands.{entry.module}")
        attribute = getattr(module, f"{name}_command")
        assert isinstance(attribute, click.Command)
        examples = (f"  docker chap {example}" for example in entry.examples)
        attribute.epilog = "\n".join(["\b", "Examples:", *examples])
        return attribute


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Help on a command: docker chap COMMAND --help",
)
@common_options
@click.version_option(__version__, message="docker chap %(version)s", help="Show the version of this tool and exit.")
@click.pass_context
def chap(context: click.Context, /, **options: Any) -> None:
    """Back up, upgrade and restore a running CHAP stack."""
    context.obj = with_options(context.obj, options)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(words: Sequence[str], docker: tuple[str, ...] = ("docker",)) -> int:
    """Run the command line and return the exit status."""
    if list(words[:1]) == ["help"]:
        words = [*words[1:], "--help"]
    line = None
    try:
        line = timeline.begin(os.environ.get(timeline.VARIABLE, ""), time.time)
        # A command that calls exit returns its status here, without an exception.
        status = chap.main(
            list(words), prog_name="docker chap", standalone_mode=False, obj=Call(docker, words=tuple(words))
        )
        return status if isinstance(status, int) else 0
    except click.Abort:
        return _failed(Cancelled("Cancelled.", state="Nothing was changed."), words)
    except click.ClickException as error:
        refused = UsageError(error.format_message(), state="Nothing was changed.", hint=_help(error))
        if _wants_json_lines(words):
            return _failed(refused, words)
        _document(refused, words)
        error.show()
        return error.exit_code
    except ChapError as error:
        return _failed(error, words)
    finally:
        if line:
            line.close(next((word for word in words if word in COMMANDS), ""))


def tell_bug(words: Sequence[str], what: str, hint: str) -> bool:
    """Tell a program that reads JSON of what was not foreseen; return whether standard error is such a program's."""
    bug = Bug(what, state="See it with: docker chap status", hint=hint)
    _document(bug, words)
    if _wants_json_lines(words):
        _json_line(bug)
    return _wants_json_lines(words)


def _failed(error: ChapError, words: Sequence[str]) -> int:
    from compose_chap.cli.screen import render

    _document(error, words)
    if _wants_json_lines(words):
        _json_line(error)
    else:
        render.tell(render.failure(error))
    return error.exit_status


def _json_line(error: ChapError) -> None:
    from compose_chap.cli.screen import render

    render.json_line(render.failure_facts(error))


def _wants_json_lines(words: Sequence[str]) -> bool:
    """Whether standard error is for JSON alone. It is read off the words: these may not have been understood."""
    return any(
        word == "--progress=json" or word == "--progress" and list(words[at + 1 : at + 2]) == ["json"]
        for at, word in enumerate(words)
    )


def _document(error: ChapError, words: Sequence[str]) -> None:
    """Print a failure for a script that wants JSON, also where the words could not be understood."""
    if "--json" in words:
        from compose_chap.cli.screen import render

        name = next((word for word in words if word in COMMANDS), "")
        render.write(render.failure_document(name, error))


def _help(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"See: {context.command_path if context else 'docker chap'} --help"


def complete(words: Sequence[str], docker: tuple[str, ...], *, described: bool = True) -> int:
    """Print completions of the last word, in the form of Docker's own completion."""
    from compose_chap.cli import complete

    return complete.offer(chap, words, docker, described=described)
