"""Hand a command over to a process of its own, follow it, and be that process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from compose_chap.engine.world import World
from compose_chap.errors import ChapError, EngineError
from compose_chap.processes import background
from compose_chap.records import detached
from compose_chap.records.detached import ERR, OUT, Detached, Invocation
from compose_chap.records.files import own_folder

# How the process that watches over a run is called; it is followed by the run's folder.
WATCH = "watch-over"
# Set for a detached run: nobody can answer questions there, and they were asked before it began.
DETACHED = "DOCKER_CHAP_DETACHED"
# What they were answered about, where words such as `latest` may mean something else later.
CONFIRMED = "DOCKER_CHAP_CONFIRMED"

_STARTS = 20.0  # seconds
_PIECE = 1 << 16

# Of the terminal's docker: it would be listened to, and taken for a wish to stop.
_NOT_HANDED_ON = ("DOCKER_CLI_PLUGIN_SOCKET",)


def confirmed() -> str:
    """Return what was confirmed before this process was begun for it, empty where it is no run in the background."""
    return os.environ.get(CONFIRMED, "") if DETACHED in os.environ else ""


def hand_over(
    world: World,
    directory: Path,
    program: Sequence[str],
    words: tuple[str, ...],
    flags: Sequence[str],
    secrets: Mapping[str, str],
) -> Detached:
    """Start the command `words` of this program apart, with docker's `flags`, and return the run.

    It has this process's environment, with `secrets` (names and values) added. Raise StateError, or EngineError when it
    does not start.
    """
    environment = {name: value for name, value in world.environment.items() if name not in _NOT_HANDED_ON}
    umask = os.umask(0)
    os.umask(umask)
    command = (*program, *flags, "chap", *words)
    order = Invocation(command, os.getcwd(), umask, {**environment, **secrets, DETACHED: "1"})
    folder = detached.prepare(directory, order, words, world.clock())
    try:
        watch = [*program, WATCH, str(folder)]
        background.start_apart(watch, environment, detached.unit_of(folder), f"docker chap {words[0]}")
        if not world.until(lambda _: True if detached.taken(folder) else None, _STARTS, pause=0.05):
            raise EngineError(
                f"The run could not be started in the background within {_STARTS:.0f} seconds.",
                state="Nothing was changed.",
                hint="Run the command again without --detach.",
            )
        return detached.look(folder)
    except (OSError, ChapError) as error:
        detached.forget(folder)
        if isinstance(error, ChapError):
            raise
        raise EngineError(
            f"The run could not be started in the background: {error.strerror}.",
            state="Nothing was changed.",
            hint="Run the command again without --detach.",
        ) from None


def watch_over(folder: Path, clock: Callable[[], datetime]) -> int:
    """Be the process of a detached run: run its order to the end, and return its exit status."""
    with detached.claimed(folder) as claim:
        out, err = (own_folder.new_file(folder / name) for name in (OUT, ERR))
        order = detached.take(folder)
        status = 127
        try:
            status = background.watch_over(order.command, order.folder, order.environment, order.umask, out, err, claim)
        except OSError as error:
            os.write(err, f"Error: Cannot run {order.command[0]}: {error.strerror}.\n".encode())
        detached.end(folder, status, clock())
    return status


def follow(world: World, run: Detached, lines: int, tell: Callable[[bytes], None]) -> Detached:
    """Give `tell` the output of a run: its last `lines` lines, then everything as it comes, until it has ended.

    Return the run as it is then.
    """
    errors = own_folder.open_to_read(run.folder / ERR)
    try:
        _skip(errors, lines)
        while True:
            # Looked at before reading: what it wrote before its end is read after that.
            now = detached.look(run.folder)
            while piece := os.read(errors, _PIECE):
                tell(piece)
            if not now.running:
                return now
            world.sleep(0.2)
    finally:
        os.close(errors)


def result(run: Detached) -> bytes:
    """Return what a run that has ended wrote to its standard output."""
    descriptor = own_folder.open_to_read(run.folder / OUT)
    with open(descriptor, "rb") as file:
        return file.read()


def _skip(descriptor: int, lines: int) -> None:
    """Put a file's position where its last lines begin, as far as they lie in its last mebibyte."""
    size = os.fstat(descriptor).st_size
    start = max(size - (1 << 20), 0)
    end = os.pread(descriptor, size - start, start)
    at = len(end)
    for _ in range(lines + 1):
        at = end.rfind(b"\n", 0, at)
        if at < 0:
            break
    os.lseek(descriptor, start + at + 1, os.SEEK_SET)
