"""What fails, and the messages that wait to be sent: one file beside the stack's records, replaced in one step.

So a change is written down together with the message about it: a run that is killed neither loses the message nor
makes it twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from compose_chap import reading, units
from compose_chap.alarms.changes import Failing
from compose_chap.errors import StateError
from compose_chap.reading import Value
from compose_chap.records import lock
from compose_chap.records.files import own_folder
from compose_chap.records.run_records import FOLDER

FILE, LOCK = "alarms.json", "alarms.lock"
MOST = 20  # messages that wait
_LONGEST = 3000  # bytes of a text: a message of ntfy or Telegram holds 4096
_LARGEST = 1 << 20  # bytes of the file


@dataclass(frozen=True)
class Waiting:
    """A message, and the addresses that it has not reached, as `addresses.identity` has them.

    `begun` are those of them to which it was being sent when that was cut off: it may have arrived. `dropped` is how
    many older messages were thrown away before it, since there were too many.
    """

    at: datetime
    title: str
    text: str
    bad: bool
    to: tuple[str, ...]
    begun: tuple[str, ...] = ()
    dropped: int = 0


@dataclass(frozen=True)
class Ledger:
    """What fails now, the messages that wait, oldest first, and when the last digest was made."""

    failing: tuple[Failing, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    digest_at: datetime | None = None

    def with_message(self, message: Waiting) -> Ledger:
        """Return it with one message more; the oldest goes where there are too many."""
        message = replace(message, text=units.clipped(message.text, _LONGEST))
        waiting = [*self.waiting, message]
        while len(waiting) > MOST:
            oldest = waiting.pop(0)
            waiting[0] = replace(waiting[0], dropped=waiting[0].dropped + oldest.dropped + 1)
        return replace(self, waiting=tuple(waiting))

    def with_changed(self, number: int, message: Waiting) -> Ledger:
        """Return it with another state of the message of this number."""
        return replace(self, waiting=(*self.waiting[:number], message, *self.waiting[number + 1 :]))

    def without_sent(self) -> Ledger:
        """Return it without the messages that have reached everybody."""
        return replace(self, waiting=tuple(message for message in self.waiting if message.to))


def read(directory: Path) -> Ledger:
    """Return the ledger of the stack whose main folder is `directory`, an empty one where there is none.

    Raise StateError when it cannot be read.
    """
    path = directory / FOLDER / FILE
    try:
        value = reading.parse(own_folder.read(path, _LARGEST), str(path), StateError)
    except FileNotFoundError:
        return Ledger()
    digest = value.get("digest_at")
    return Ledger(
        tuple(map(_failing, value.at("failing").items())),
        tuple(map(_waiting, value.at("waiting").items())),
        digest.moment() if digest else None,
    )


def write(directory: Path, ledger: Ledger) -> None:
    """Write it down. Raise StateError; then what was written before is unchanged."""
    own_folder.make(directory / FOLDER)
    document = json.dumps({"version": 1, **asdict(ledger)}, indent=1, default=_moment)
    own_folder.write(directory / FOLDER / FILE, f"{document}\n".encode())


def remove(directory: Path) -> None:
    """Forget it. Raise StateError."""
    for name in (FILE, LOCK):
        own_folder.remove(directory / FOLDER / name)


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Keep other processes from sending what this one sends, while the block runs. Raise StateError."""
    path = own_folder.make(directory / FOLDER) / LOCK
    if LOCK not in own_folder.names(directory / FOLDER):
        own_folder.write(path, b"")
    with ExitStack() as stack:
        try:
            stack.enter_context(lock.claimed(path))
        except OSError as error:
            raise own_folder.cannot("lock", path, error) from None
        yield


def _moment(value: object) -> str:
    assert isinstance(value, datetime)
    return value.isoformat()


def _failing(value: Value) -> Failing:
    return Failing(
        value.at("subject").filled(),
        value.at("since").moment(),
        value.at("fault").text(),
        value.at("hint").text(),
    )


def _waiting(value: Value) -> Waiting:
    return Waiting(
        value.at("at").moment(),
        value.at("title").text(),
        value.at("text").text(),
        value.at("bad").flag(),
        value.at("to").texts(),
        value.at("begun").texts(),
        value.at("dropped").integer(),
    )
