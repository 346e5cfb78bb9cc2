"""Which commands there are, in the order of help, what each exit status means, how their help looks, and how a command
that is printed for a person to type is completed."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click


@dataclass(frozen=True)
class CommandEntry:
    """A command: the module in `commands` that has it, what it does in a sentence, and examples."""

    module: str
    summary: str
    examples: tuple[str, ...]


# A command's module is imported when the command is called, so that the list of commands is quick.
COMMANDS = {
    "status": CommandEntry(
        "status",
        "Show what runs, how it is, and the last backup.",
        ("status", "status --all-contexts", "status --metrics-file /var/lib/prometheus/node-exporter/chap.prom"),
    ),
    "check": CommandEntry("check", "Run the checks that come before an upgrade.", ("check", "check v2.1.0")),
    "versions": CommandEntry("check", "List the versions that CHAP can move to, newest last.", ("versions",)),
    "backup": CommandEntry(
        "backup",
        "Make a backup, and check it by reading it back.",
        ("backup", "backup -o /mnt/backups --reason 'before the audit'"),
    ),
    "backups": CommandEntry("backups", "List the backups, or pin one.", ("backups", "backups --json")),
    "verify": CommandEntry(
        "verify",
        "Check again that a backup or a dump can be restored.",
        ("verify latest", "verify 20261123T044925Z --deep", "verify chap_core_pre-upgrade.dump"),
    ),
    "copy": CommandEntry(
        "copies",
        "Copy a backup to another place, encrypted.",
        (
            "copy --to sftp:backup@example.org:/chap --password-file /etc/chap-copies.password --init",
            "copy --to disk:BACKUPS/chap --password-file /etc/chap-copies.password",
        ),
    ),
    "copies": CommandEntry(
        "copies", "List the copies of backups in another place.", ("copies --from disk:BACKUPS/chap",)
    ),
    "schedule": CommandEntry(
        "schedule",
        "Back up, copy, prune and test on a schedule; show the schedule.",
        ("schedule on --at 01:30 --copy-to sftp:chap@backup.example.org:/srv/chap", "schedule", "schedule run"),
    ),
    "prune": CommandEntry(
        "prune", "Remove old backups, kept databases and kept images.", ("prune --dry-run", "prune --keep-last 5 --yes")
    ),
    "upgrade": CommandEntry(
        "upgrade",
        "Upgrade CHAP completely and verified, or not at all.",
        ("upgrade v2.1.0 --dry-run", "upgrade v2.1.0", "upgrade v2.1.0 --yes --drain 600"),
    ),
    "rehearse": CommandEntry(
        "rehearse",
        "Try the upgrade to VERSION on a copy of the data, beside production, and throw it away.",
        ("rehearse v2.1.0", "rehearse v2.1.0 --from latest"),
    ),
    "rollback": CommandEntry("rollback", "Undo the last upgrade: files, images and data.", ("rollback",)),
    "restore": CommandEntry(
        "restore",
        "Put a backup or a dump back.",
        ("restore latest", "restore chap_core_pre-upgrade.dump", "restore --undo"),
    ),
    "recover": CommandEntry("rollback", "Finish or undo a run that was cut off.", ("recover",)),
    "pin": CommandEntry(
        "pin",
        "Write a version into the Compose files, and nothing else.",
        ("pin v2.1.0 --dry-run", "pin v2.1.0 --digest"),
    ),
    "attach": CommandEntry(
        "attach",
        "Follow a run that was begun with --detach, and return its exit status.",
        ("attach", "attach 20261128T070000Z"),
    ),
    "history": CommandEntry("history", "Show what was done, when, by whom, with which result.", ("history",)),
    "report": CommandEntry(
        "report",
        "Write an audit report: what runs, every backup and copy with its proof, and what was done.",
        ("report", "report -o /srv/www/chap.html", "report --json"),
    ),
    "version": CommandEntry("version", "Show the version of this tool.", ("version",)),
}

EXIT_STATUSES = {
    0: "Done.",
    1: "Refused, failed, or a check found a fault. CHAP itself was not changed.",
    2: "The command was not understood.",
    3: "It failed, and everything was put back and verified.",
    4: "It failed, and could not be put back. The message says what state each part is in.",
    5: "Another run works on this stack, or a run was killed or cut off: `docker chap recover`.",
    130: "Cancelled, or answered with no. CHAP is as it was before.",
}

# Columns of a help.
_WIDEST, _NARROWEST = 100, 30

# The options that every command has.
COMMON_NAMES = ("files", "project_name", "project_directory", "env_files", "json", "progress")

# The commands with -o FOLDER, the folder of the backups.
WITH_FOLDER = ("backup", "backups", "check", "copy", "prune", "rehearse", "restore", "upgrade", "verify")

# `docker chap` where a command follows it; the same where that needs the folder, and does not name it yet.
_OWN_COMMAND = re.compile(r"\bdocker chap(?= [a-z]+\b)")
_WITHOUT_FOLDER = re.compile(rf"\bdocker chap (?:{'|'.join(WITH_FOLDER)})(?![a-z])(?! --undo| --dump-only)(?!.* -o )")


def of_stack(text: str, program: Sequence[str]) -> str:
    """Return a text whose commands begin with the words of `program` in place of `docker chap`."""
    name = shlex.join(program)
    return _OWN_COMMAND.sub(lambda _: name, text)


def in_folder(text: str, folder: Path) -> str:
    """Return a text whose commands look for backups in this folder, and write them to it."""
    option = f" -o {shlex.quote(str(folder))}"
    return _WITHOUT_FOLDER.sub(lambda match: match[0] + option, text)


class _HelpFormatter(click.HelpFormatter):
    """A help that fits narrow terminals too: click's own is never narrower than 50 columns."""

    def __init__(self, *_ignored: object, **_options: object) -> None:
        super().__init__(width=max(min(shutil.get_terminal_size().columns, _WIDEST) - 2, _NARROWEST))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names and what there is to say of each; in a narrow terminal that is below a long name."""
        super().write_dl(rows, col_max if self.width > 2 * col_max else self.width // 3, col_spacing)


class HelpContext(click.Context):
    """The context of a command, with the help for terminals of any width."""

    formatter_class = _HelpFormatter


class _Command(click.Command):
    """A command whose help shows its own options first, and those that every command has last."""

    context_class = HelpContext

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for option in self.get_params(context):
            if record := option.get_help_record(context):
                (common if option.name in (*COMMON_NAMES, "help") else own).append(record)
        for title, records in (("Options", own), ("Common options", common)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def command(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a function the command of this name."""
    return click.command(name, cls=_Command)
