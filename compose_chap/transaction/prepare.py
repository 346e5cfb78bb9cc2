"""The part of a run while CHAP still serves: when it fails, nothing was changed, and the message says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from compose_chap import redact
from compose_chap.errors import Cancelled, ChapError, NeedsPerson
from compose_chap.records import lock
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.transaction import evidence
from compose_chap.transaction.run.change import Change


@dataclass(frozen=True)
class Unchanged:
    """The texts for a run that fails while CHAP still serves: its `state`, and what could not be cleaned up.

    `left` begins the sentence with the reason, `when` the one with the command for later.
    """

    state: str
    left: str
    when: str


@contextmanager
def preparing(change: Change, journal: Journal, clean_up: Callable[[], None], words: Unchanged) -> Iterator[None]:
    """Run a block that changes nothing that CHAP uses. When it fails, call `clean_up` and close the journal.

    Raise what the block raised, Cancelled on the operator's word, or NeedsPerson when a checkout moved and does not
    go back. What cannot be cleaned up leaves the journal open, and `recover` does it.
    """
    try:
        yield
    except BaseException as error:
        with lock.signals_ignored():
            ended = _end_unchanged(change, journal, clean_up, words, error)
        raise ended from None


def _end_unchanged(
    change: Change, journal: Journal, clean_up: Callable[[], None], words: Unchanged, error: BaseException
) -> BaseException:
    cause = redact.redact(error.message if isinstance(error, ChapError) else str(error))
    state, hint, cancelled = words.state, "", isinstance(error, KeyboardInterrupt)
    journal.release_reserve()
    try:
        clean_up()
        journal.end("cancelled" if cancelled else "failed", failure=cause)
    except ChapError as second:
        if journal.began(Step.CHECKOUT):
            return NeedsPerson(
                f"The {change.operation} failed: {cause}\nPutting everything back failed too: {second.message}",
                state="CHAP still runs as before. Its checkout, or the names of its images, may be the new ones.",
                hint="Repair the cause, then run: docker chap recover",
            )
        state += f"\n{words.left}: {second.message}"
        hint = f"{words.when}: docker chap recover"
    if cancelled:
        error = Cancelled(f"The {change.operation} was cancelled.", state=state, hint=hint)
    elif isinstance(error, ChapError):
        error.state = state if hint else error.state or state
        error.hint = hint or error.hint
    if isinstance(error, ChapError):
        error.details = evidence.of_run(change.project.directory, journal, [], ended=not hint)
    return error
