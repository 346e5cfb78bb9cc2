"""The words: which commands there are, and what a failure looks like. With its parts `cli_*` the door of `click`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import click

from compose_chap.cli.call import Call, common_options, told
from compose_chap.errors import Cancelled, ChapError, UsageError

# A command's module is imported when the command is called: `docker chap version` must not wait for the others.
_COMMANDS = {
    "status": "look",
    "check": "look",
    "versions": "look",
    "backup": "backup",
    "backups": "backup",
    "verify": "backup",
    "prune": "prune",
    "upgrade": "upgrade",
    "rehearse": "rehearse",
    "rollback": "rollback",
    "restore": "restore",
    "recover": "rollback",
    "pin": "pin",
    "history": "look",
    "version": "look",
}

EXAMPLES = {
    "status": (
        "status",
        "status --all-contexts",
        "status --metrics-file /var/lib/prometheus/node-exporter/chap.prom",
    ),
    "check": ("check", "check v2.1.0"),
    "versions": ("versions",),
    "backup": ("backup", "backup -o /mnt/backups --reason 'before the audit'"),
    "backups": ("backups", "backups --json"),
    "verify": ("verify latest", "verify 20261123T044925Z --deep"),
    "prune": ("prune --dry-run", "prune --keep-last 5 --yes"),
    "upgrade": ("upgrade v2.1.0 --dry-run", "upgrade v2.1.0", "upgrade v2.1.0 --yes --drain 600"),
    "rehearse": ("rehearse v2.1.0", "rehearse v2.1.0 --from latest", "rehearse v2.1.0 --online"),
    "rollback": ("rollback",),
    "restore": ("restore latest", "restore chap_core_pre-upgrade.dump", "restore --undo"),
    "recover": ("recover",),
    "pin": ("pin v2.1.0 --dry-run", "pin v2.1.0 --digest"),
    "history": ("history",),
    "version": ("version",),
}

EXIT_STATUSES = {
    0: "Done.",
    1: "Refused or failed; nothing was changed.",
    2: "The command was not understood.",
    3: "It failed, and everything was put back and verified.",
    4: "It failed, and so did the way back. The message says what state each part is in.",
    5: "Another run works on this stack, or one was cut off: `docker chap recover`.",
    130: "Cancelled; everything was put back.",
}


class _Commands(click.Group):
    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit status"):
            formatter.write_dl([(str(status), told) for status, told in EXIT_STATUSES.items()])
        super().format_epilog(context, formatter)

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"compose_chap.cli.{_COMMANDS[name]}")
        command = getattr(module, f"{name}_command")
        assert isinstance(command, click.Command)
        examples = (f"  docker chap {example}" for example in EXAMPLES[name])
        command.epilog = "\n".join(["\b", "Examples:", *examples])
        return command


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Help on a command: docker chap COMMAND --help",
)
@common_options
@click.pass_context
def chap(context: click.Context, /, **given: Any) -> None:
    """Back up, upgrade and restore a running CHAP stack."""
    context.obj = told(context.obj, given)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(words: Sequence[str], docker: tuple[str, ...] = ("docker",)) -> int:
    """Run the words of an operator and return the exit status."""
    if list(words[:1]) == ["help"]:
        words = [*words[1:], "--help"]
    try:
        # The status of a command that asked to exit comes back as a value here, not as an exception.
        status = chap.main(list(words), prog_name="docker chap", standalone_mode=False, obj=Call(docker))
        return status if isinstance(status, int) else 0
    except click.Abort:
        return _failed(Cancelled("Cancelled.", state="Nothing was changed."), words)
    except click.ClickException as error:
        _document(UsageError(error.format_message(), state="Nothing was changed.", hint=_help(error)), words)
        error.show()
        return error.exit_code
    except ChapError as error:
        return _failed(error, words)


def _failed(error: ChapError, words: Sequence[str]) -> int:
    from compose_chap.cli.screen import render

    _document(error, words)
    render.tell(render.failure(error))
    return error.exit_status


def _document(error: ChapError, words: Sequence[str]) -> None:
    """Print a failure for a script that wants JSON, also where the words could not be understood."""
    if "--json" in words:
        from compose_chap.cli.screen import render

        command = next((word for word in words if word in _COMMANDS), "")
        render.write(render.failure_document(command, error))


def _help(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"See: {context.command_path if context else 'docker chap'} --help"


def complete(words: Sequence[str], docker: tuple[str, ...]) -> int:
    """Print completions of the last word, as Docker's own completion wants them."""
    from compose_chap.cli import complete

    return complete.offer(chap, words, docker)
