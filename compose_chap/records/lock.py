"""The lock of a stack: one run at a time. And signals: a run is interrupted once, its way back never."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType

from compose_chap.errors import Locked, StateError
from compose_chap.ownership import not_own
from compose_chap.reading import kind, parse
from compose_chap.records.files import own_folder
from compose_chap.records.run_records import FOLDER, LARGEST_JOURNAL, journal_file, operator
from compose_chap.records.steps import reached
from compose_chap.units import moment

_LOOK = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore Ctrl-C, SIGTERM and a lost terminal while the block runs."""
    with _handled(_SIGNALS, signal.SIG_IGN):
        yield


@contextmanager
def single_interruption() -> Iterator[None]:
    """Let the first Ctrl-C, SIGTERM or lost terminal interrupt the block, and ignore all later ones."""
    names = [name for name in _SIGNALS if signal.getsignal(name) not in (signal.SIG_IGN, _ignore)]

    def interrupt(number: int, frame: FrameType | None) -> None:
        # Not SIG_IGN: Python prints an error where another signal has come at the same time, and is to be ignored now.
        for name in names:
            signal.signal(name, _ignore)
        raise KeyboardInterrupt

    with _handled(names, interrupt):
        yield


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing."""


@contextmanager
def _handled(
    names: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None] | signal.Handlers
) -> Iterator[None]:
    old = [(name, signal.signal(name, handler)) for name in names]
    try:
        yield
    finally:
        for name, before in old:
            signal.signal(name, before)


# The lock


@contextmanager
def locked(directory: Path, operation: str, now: datetime) -> Iterator[None]:
    """Hold the lock of the stack whose main folder is `directory` while the block runs.

    The kernel releases it when this process and the children that inherited it have ended, however that happens.
    Raise Locked, naming the holder, when another run holds it.
    """
    path = own_folder.make(directory / FOLDER) / "lock"
    descriptor = _open_lock(path)
    try:
        if not _try_lock(descriptor, path):
            raise _locked_by(os.pread(descriptor, 4096, 0), directory)
        # A `docker compose` that outlives this process still works on the stack: it inherits the lock.
        os.set_inheritable(descriptor, True)
        owner = {"operation": operation, "by": operator(), "since": now.isoformat()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    """Open the lock's file, or make it. It must be our own regular file, because it will be truncated."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        with own_folder.opened(path.parent) as handle:
            descriptor = os.open(path.name, flags, 0o600, dir_fd=handle)
    except OSError as error:
        raise own_folder.cannot("open", path, error) from None
    status = os.fstat(descriptor)
    fault = not_own(status) or ("" if stat.S_ISREG(status.st_mode) else f"is {kind(status)}, not a file")
    if fault or status.st_nlink != 1:
        os.close(descriptor)
        raise StateError(
            f"{path} {fault or 'has a second name (a hard link)'}.", hint=f"Look at it, and remove it: ls -l {path}"
        )
    return descriptor


def _try_lock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise StateError(f"Cannot lock {path}: {error.strerror}.") from None


def _locked_by(content: bytes, directory: Path) -> Locked:
    who, steps = "another docker chap", list[str]()
    with suppress(OSError, StateError, LookupError):
        journal = parse(own_folder.read(journal_file(directory), LARGEST_JOURNAL), "the journal", StateError)
        steps = [step.at("step").text() for step in journal.at("steps").items()]
    with suppress(StateError):
        owner = parse(content, "the lock", StateError)
        operation, by = owner.at("operation").text(), owner.at("by").text()
        who = f"{operation} by {by}, since {moment(owner.at('since').moment())}, now {reached(steps)}"
    return Locked(
        f"Another run works on this stack: {who}.",
        state="This command changed nothing.",
        hint="Wait until it has ended, then try again. See it: docker chap status",
    )


# Files and folders in progress


@contextmanager
def claimed(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Mark a folder or file as in use while the block runs; the kernel removes the mark of a process that died.

    With `shared` others may mark it too. Raise OSError when it is not there.
    """
    descriptor = os.open(path, _LOOK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def in_use(path: Path) -> bool:
    """Whether a process has a folder or file `claimed`."""
    with suppress(OSError):
        descriptor = os.open(path, _LOOK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def abandoned(path: Path) -> bool:
    """Whether a folder or file of our own is no longer `claimed` by any process."""
    with suppress(OSError):
        descriptor = os.open(path, _LOOK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return not not_own(os.fstat(descriptor))
        finally:
            os.close(descriptor)
    return False
