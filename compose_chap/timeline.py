"""The time line of a command: where its seconds go. Written only where `DOCKER_CHAP_TIMELINE` names a file.

Each step, each question and the command itself is a line of JSON in that file as soon as it ends:

    {"kind": "question", "name": "psql", "by": "server.counts", "thread": 1, "begin": 1764312345.123, "end": …}

`kind` is `command`, `step`, `question` (a program that was run, in a container or here, or a registry's answer) or
`engine` (one request to Docker). `begin` and `end` are seconds since 1970. Nothing else of a question is written: what
goes into it and what comes out may be secret.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from compose_chap.errors import UsageError

VARIABLE = "DOCKER_CHAP_TIMELINE"

# Modules that only pass a call on; their functions are not named as callers.
_BELOW = ("compose_chap.timeline", "compose_chap.engine.", "compose_chap.postgres.psql", "compose_chap.stack.chap")
_ASKERS = 2


class Timeline:
    """A file that gets a line for everything that ends. Without a `path` nothing is written."""

    def __init__(self, path: str = "", clock: Callable[[], float] = lambda: 0.0) -> None:
        """Raise UsageError when the file cannot be written."""
        self.clock = clock
        self._file: int | None = None
        self._begun, self._step, self._since = clock(), "", 0.0
        if path:
            try:
                self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise UsageError(
                    f"Cannot write the time line to {path}: {error.strerror}.",
                    state="Nothing was changed.",
                    hint=f"Let {VARIABLE} name a file in a folder that is yours, or unset it.",
                ) from None

    @property
    def written(self) -> bool:
        """Whether a time line is written."""
        return self._file is not None

    def add(self, kind: str, name: str, begin: float, by: str = "") -> None:
        """Write down what ends now."""
        if self._file is not None:
            import json  # few commands write a time line, and the others start sooner without

            event = {"kind": kind, "name": name, "by": by, "thread": threading.get_ident(), "begin": begin}
            with suppress(OSError):  # a disk that is full now must not end the work
                os.write(self._file, (json.dumps({**event, "end": self.clock()}) + "\n").encode())

    def step(self, name: str) -> None:
        """Write down that a step begins, and with that the one before ends. Asked again, it goes on."""
        if name != self._step:
            if self._step:
                self.add("step", self._step, self._since)
            self._step, self._since = name, self.clock()

    def close(self, command: str) -> None:
        """Write down that the command ends."""
        self.step("")
        self.add("command", command, self._begun)
        if self._file is not None:
            os.close(self._file)
            self._file = None


_current = Timeline()


def begin(path: str, clock: Callable[[], float]) -> Timeline:
    """Write this process's time line to a file from now on; `clock` tells seconds since 1970. Raise UsageError."""
    global _current
    _current = Timeline(path, clock)
    return _current


def stepped(notify: Callable[..., None]) -> Callable[..., None]:
    """Return a `notify` that also records its steps in the time line."""
    if not _current.written:
        return notify

    def recorded(step: str, *more: Any) -> None:
        if step != "wait":  # a part of the step before
            _current.step(step)
        notify(step, *more)

    return recorded


@contextmanager
def during(kind: str, name: str) -> Iterator[None]:
    """Write down how long the block takes, if somebody wants it."""
    if not _current.written:
        yield
        return
    since = _current.clock()
    try:
        yield
    finally:
        _current.add(kind, name, since, _callers())


def program(command: Sequence[str]) -> str:
    """Return what to call a program that is run: its name, for docker with the words of its command."""
    words = list(command)
    while words[:2] == ["sh", "-c"]:
        words = words[4:]
    if not words or "\n" in words[0]:
        return "python" if words else "sh"
    name = Path(words[0]).name
    return " ".join([name, *(word for word in words[1:3] if name == "docker" and re.fullmatch("[a-z]+", word))])


def _callers() -> str:
    """Return the functions of this package that made the call, the nearest first."""
    import traceback

    names = [
        f"{module.rpartition('.')[2]}.{frame.f_code.co_name}"
        for frame, _ in traceback.walk_stack(None)
        if (module := str(frame.f_globals.get("__name__", ""))).startswith("compose_chap.")
        and not module.startswith(_BELOW)
    ]
    return " < ".join(names[:_ASKERS])
