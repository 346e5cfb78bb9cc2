"""What every command that works on a stack has around it: an entry in the audit trail, and the lock."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from compose_chap import units
from compose_chap.cli.call import Call, HandedOver
from compose_chap.cli.screen.layout import paragraph
from compose_chap.engine.world import World
from compose_chap.errors import (
    Cancelled,
    ChapError,
    ComposeFileError,
    EngineError,
    Interrupted,
    Locked,
    NeedsPerson,
    RolledBack,
    StackError,
    StateError,
    UsageError,
)
from compose_chap.model import Origin, Stack
from compose_chap.operations import guard
from compose_chap.records import audit
from compose_chap.records.audit import AuditEntry
from compose_chap.redact import redact, without_values
from compose_chap.stack import observe

# What is written down, also when it was refused before it was known which stack is meant.
RECORDED = ("backup", "verify", "copy", "prune", "upgrade", "rehearse", "rollback", "restore", "recover", "pin")

_RESULTS = {Cancelled: audit.CANCELLED, RolledBack: audit.ROLLED_BACK, NeedsPerson: audit.NEEDS_PERSON}

# Options whose value may be a token as a whole.
_SECRET = ("--ping", "--alarm")
_LONGEST = 2000  # bytes of a message


@dataclass
class Attempt:
    """What will be written down when a command has ended; None where there is no place for records."""

    entry: AuditEntry | None

    def learn(self, summary: str = "", **facts: Any) -> None:
        """Add what was done: in a few words, and as facts that JSON can hold."""
        if self.entry:
            summary = summary or self.entry.summary
            self.entry = replace(self.entry, summary=summary, facts={**self.entry.facts, **facts})


@contextmanager
def guarded(
    call: Call, world: World, stack: Stack, find: Callable[[], Stack], operation: str = ""
) -> Iterator[tuple[Stack, Attempt]]:
    """Hold the lock of the stack that is meant while the block runs, and write down how it ended.

    `find` found that stack. It is asked once more when the lock may have been waited for: who had it may have changed
    all. Raise what `find`, `guard.guarded` and the block raise.
    """
    operation = operation or call.command
    project, origin = stack.project, world.engine.origin(stack.project.name)
    with recorded(call, project.directory if project.local else None, origin, operation) as attempt:
        with guard.guarded(world, stack, operation, call.wait_lock):
            yield (find() if call.wait_lock else stack), attempt


@contextmanager
def recorded(
    call: Call, directory: Path | None, origin: Origin = Origin(), operation: str = "", *, unlocked: bool = False
) -> Iterator[Attempt]:
    """Write down that a command begins, and when the block has ended, how. What is only shown is not written down.

    With `unlocked` no lock follows that would refuse where nothing can be written; then a warning says so.
    """
    dry = click.get_current_context().params.get("dry_run")
    folder = None if dry else directory
    attempt = Attempt(_begun(call, folder, origin, operation or call.command, unlocked=unlocked))
    click.get_current_context().meta["recorded"] = True
    try:
        yield attempt
    except BaseException as error:
        _ended(call, folder, attempt, error)
        raise
    _ended(call, folder, attempt, None)


def record_refusal(call: Call, error: ChapError) -> None:
    """Write down a command that failed before it was known which stack is meant, where records lie in this folder."""
    context = click.get_current_context()
    if call.command not in RECORDED or context.meta.get("recorded") or isinstance(error, UsageError):
        return
    where = call.where()
    folder = next((folder for folder in where.record_folders if audit.exists(folder)), None)
    with suppress(ChapError), recorded(call, folder, Origin(where.name)) if folder else nullcontext():
        raise error


def _begun(call: Call, directory: Path | None, origin: Origin, operation: str, *, unlocked: bool) -> AuditEntry | None:
    words = tuple(map(redact, without_values(call.words, _SECRET)))
    try:
        return audit.begin(directory, operation, words, origin, call.clock()) if directory else None
    except StateError as error:
        # What keeps it from being written keeps a command from taking the lock too, and that says so.
        if unlocked:
            call.tell(paragraph(f"Warning: this could not be recorded: {error.message}", sys.stderr))
        return None


def _ended(call: Call, directory: Path | None, attempt: Attempt, error: BaseException | None) -> None:
    if directory is None or attempt.entry is None:
        return
    result, status, message = _outcome(error)
    message = units.clipped(redact(message), _LONGEST)
    entry = replace(attempt.entry, result=result, exit_status=status, message=message, ended_at=call.clock())
    try:
        audit.end(directory, entry)
    except StateError as second:
        call.tell(f"Warning: the result could not be recorded: {second.message}")


def _outcome(error: BaseException | None) -> tuple[str, int, str]:
    """Return how a command ended, its exit status, and what it said."""
    if isinstance(error, HandedOver):
        return audit.DETACHED, 0, ""
    if error is None:
        return audit.DONE, 0, ""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):  # click's own word for Ctrl-C at a question
        return audit.CANCELLED, Cancelled.exit_status, ""
    if not isinstance(error, ChapError):
        return audit.FAILED, 1, type(error).__name__
    return _result(error), error.exit_status, error.message


def _result(error: ChapError) -> str:
    for kind, result in _RESULTS.items():
        if isinstance(error, kind):
            return result
    checked = error.details.get("checks") and not error.details.get("run")
    return audit.REFUSED if checked or isinstance(error, (Locked, Interrupted, UsageError)) else audit.FAILED


def records_of(call: Call) -> tuple[Path, Origin]:
    """Return the folder of the stack that is meant, and which stack that is, also while its engine is off.

    Raise ChapError when neither an engine nor this folder, nor one above it, says where records lie.
    """
    where, engine = call.where(), call.world().engine
    try:
        return observe.find_directory(engine, where), engine.origin(where.name)
    except (EngineError, StackError, ComposeFileError):
        # What was done is asked for most when nothing runs. Then this folder's records are meant, or those above it.
        here = next((folder for folder in where.record_folders if audit.exists(folder)), None)
        if here is None:
            raise
        return here, Origin(where.name)
