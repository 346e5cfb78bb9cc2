"""Send what waits: to each address in order, and never a second time to one that has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from compose_chap import units
from compose_chap.alarms import addresses, ledger
from compose_chap.alarms.ledger import Ledger, Waiting
from compose_chap.alarms.wording import AlarmText
from compose_chap.errors import StateError

# From then on a message says of itself that it is late.
_LATE = timedelta(minutes=10)


class Sender(Protocol):
    """What sends a text to an address."""

    def send(self, address: str, text: AlarmText) -> str:
        """Send it, and return why it did not arrive, empty when it did."""


@dataclass(frozen=True)
class Undelivered:
    """An address, as it may be shown, that a message did not reach, and why."""

    shown: str
    why: str


Update = Callable[[Ledger], Ledger]
Load = Callable[[], AbstractContextManager[Sender]]


def deliver(
    directory: Path, to: Sequence[str], update: Update, load: Load, clock: Callable[[], datetime]
) -> tuple[list[Undelivered], list[str]]:
    """Change the ledger of a stack, and send what then waits to the addresses in `to`.

    `load` gives what sends, and is called only when there is something to send. Return what could not be sent, and
    what could not be written down, for people; then it is sent anyway. It raises no ChapError.
    """
    post = _Post(directory, clock)
    try:
        with ledger.held(directory):
            post.send(to, update, load)
    except StateError as error:
        # Without a place for records, or a lock on them, people have to hear of it even more.
        post.troubles.append(error.message)
        post.send(to, update, load)
    return post.failures, list(dict.fromkeys(post.troubles))


class _Post:
    """One round of sending."""

    def __init__(self, directory: Path, clock: Callable[[], datetime]) -> None:
        self._directory, self._clock = directory, clock
        self._ledger = Ledger()
        self.failures: list[Undelivered] = []
        self.troubles: list[str] = []

    def send(self, to: Sequence[str], update: Update, load: Load) -> None:
        known = {addresses.identity(address): address for address in to}
        try:
            before = ledger.read(self._directory)
        except StateError as error:
            self.troubles.append(error.message)
            before = Ledger()
        # Nobody waits any more at an address that was taken away.
        waiting = (
            replace(message, to=tuple(name for name in message.to if name in known)) for message in before.waiting
        )
        self._ledger = update(replace(before, waiting=tuple(waiting)).without_sent())
        if self._ledger != before:
            self._save()
        if self._ledger.waiting:
            try:
                with load() as sender:
                    for name, address in known.items():
                        self._send_to(sender, name, address)
            except StateError as error:
                self.failures += [Undelivered(addresses.shown(address), error.message) for address in to]
            self._ledger = self._ledger.without_sent()
            self._save()

    def _send_to(self, sender: Sender, name: str, address: str) -> None:
        """Send an address what waits for it, in order, until something does not arrive."""
        for number, message in enumerate(self._ledger.waiting):
            if name not in message.to:
                continue
            self._change(number, replace(message, begun=(*message.begun, name)))
            text = _as_sent(message, name, self._clock())
            if why := sender.send(address, text):
                self._change(number, message)
                self.failures.append(Undelivered(addresses.shown(address), why))
                return
            arrived = replace(message, to=_without(message.to, name), begun=_without(message.begun, name))
            self._change(number, arrived)

    def _change(self, number: int, message: Waiting) -> None:
        self._ledger = self._ledger.with_changed(number, message)
        self._save()

    def _save(self) -> None:
        try:
            ledger.write(self._directory, self._ledger)
        except StateError as error:
            self.troubles.append(error.message)


def _without(names: Sequence[str], name: str) -> tuple[str, ...]:
    return tuple(other for other in names if other != name)


def _as_sent(message: Waiting, name: str, now: datetime) -> AlarmText:
    notes = []
    if now - message.at > _LATE:
        notes.append(f"This message was written at {units.moment(message.at)}. It could not be sent before.")
    if name in message.begun:
        notes.append("It may have arrived already: sending it was cut off.")
    if message.dropped:
        notes.append(
            f"{units.several(message.dropped, 'older message')} could not be sent and"
            f" {'was' if message.dropped == 1 else 'were'} thrown away."
        )
    return AlarmText(
        message.title, "\n\n".join([" ".join(notes), message.text] if notes else [message.text]), message.bad
    )
