"""The command that writes an audit report: report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from compose_chap import reading, units
from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command
from compose_chap.cli.options import output_file
from compose_chap.cli.recorded import records_of
from compose_chap.cli.screen.layout import paragraph
from compose_chap.cli.values import files
from compose_chap.errors import ChapError, SeveralStacks, StateError, UsageError
from compose_chap.model import Origin, Stack
from compose_chap.records import audit
from compose_chap.records.files import durable
from compose_chap.stack import observe

_STANDARD_OUTPUT = "-"
_DEFAULT = "report.html"


@command("report")
@click.option(
    "-o",
    "--output",
    type=output_file,
    shell_complete=files,
    metavar="FILE",
    help="Where to write it, instead of report.html in this folder; - for standard output.",
)
@common
def report_command(call: Call, output: str | None) -> None:
    """Write an audit report: what runs, every backup and copy with its proof, and what was done.

    It is one HTML file that loads nothing: it can be read offline and on a telephone, printed and mailed. It says what
    is wrong now, what is scheduled and what was done, how the data grew, and who did what. It holds no secret. While
    CHAP or its engine is down, it is made from the records alone, and says so. With --json the facts are printed, and a
    page is written only where -o says so.
    """
    # Only here: it brings a library that draws.
    from compose_chap.report import gather, page

    if output == _STANDARD_OUTPUT and call.json:
        raise UsageError("-o - and --json both need standard output.", hint="Write the page to a file: -o report.html")
    target = None if output == _STANDARD_OUTPUT or call.json and not output else Path(output or _DEFAULT).absolute()
    if target:
        _refuse_others(target, page.MARK.encode())
    world = call.world()
    stack, directory, origin, why = _which(call)
    world.notify("look", stack.project.name if stack else directory.name)
    known = gather.gather(world, directory, origin, stack, why)
    if target:
        durable.write_file(target, page.page(known).encode())
    if output == _STANDARD_OUTPUT:
        sys.stdout.buffer.write(page.page(known).encode())
        sys.stdout.buffer.flush()
        return
    summary = f"The report is written. {_open(len(known.problems))}"
    document: dict[str, Any] = {"file": str(target) if target else None, **known.to_json()}
    call.result(document, f"{paragraph(summary)}\n{target}")


def _open(problems: int) -> str:
    if not problems:
        return "No problem is open."
    return f"{units.several(problems, 'problem')} {'is' if problems == 1 else 'are'} open: see the top of the page."


def _which(call: Call) -> tuple[Stack | None, Path, Origin, str]:
    """Return the stack that is meant, and where its records lie; without an answer of the engine, and why."""
    world = call.world()
    try:
        stack = observe.find_stack(world.engine, call.where())
    except SeveralStacks:
        raise
    except ChapError as error:
        return None, *_records(call), error.message
    if not stack.project.local:
        raise StateError(
            f"The records of '{stack.project.name}' are not on this machine, and a report is made from them:"
            f" {stack.project.files[0]}.",
            state="Nothing was written.",
            hint="Run it on the server where they are.",
        )
    return stack, stack.project.directory, world.engine.origin(stack.project.name), ""


def _records(call: Call) -> tuple[Path, Origin]:
    try:
        return records_of(call)
    except StateError:
        # A journal that cannot be read is a problem in the report, and no reason for none.
        where = call.where()
        here = next((folder for folder in where.record_folders if audit.exists(folder)), None)
        if here is None:
            raise
        return here, Origin(where.name)


def _refuse_others(target: Path, mark: bytes) -> None:
    """Raise StateError where something is that is no report: it would be lost."""
    if not target.parent.is_dir():
        raise StateError(f"There is no folder {target.parent}.", state="Nothing was written.", hint="Make it first.")
    try:
        head = reading.open_file(target, StateError, links=True)
    except FileNotFoundError:
        return
    with open(head, "rb") as file:
        if file.read(1) and mark not in (b"<" + file.read(4096)):
            raise StateError(
                f"{target} exists, and is not a report of this tool.",
                state="Nothing was written.",
                hint="Name another file: docker chap report -o FILE",
            )
