"""Who may change a stack: one run at a time, and none while an earlier one is half done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from compose_chap.engine.world import World
from compose_chap.model import Stack
from compose_chap.records import engine_lock, run_records


@contextmanager
def guarded(world: World, stack: Stack, operation: str) -> Iterator[None]:
    """Hold the lock of a stack while the block runs.

    Raise Locked when another run holds it, and Interrupted when one that was cut off has to be finished or undone
    first. Where the stack's files are not here, only its engine can tell.
    """
    with engine_lock.locked(world, stack, operation):
        if stack.project.local:
            run_records.refuse_open_run(stack.project.directory)
        yield
