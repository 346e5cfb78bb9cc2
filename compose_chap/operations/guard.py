"""Who may change a stack: one run at a time, and none while an earlier run is unfinished."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from compose_chap.engine.world import World
from compose_chap.errors import Locked
from compose_chap.model import Stack
from compose_chap.records import engine_lock, run_records


@contextmanager
def guarded(world: World, stack: Stack, operation: str, patience: float = 0) -> Iterator[None]:
    """Hold the lock of a stack while the block runs.

    Raise Locked when another run still holds it after `patience` seconds, and Interrupted when an interrupted run has
    to be recovered first. If the stack's files are not on this machine, only the lock on its engine counts.
    """
    with waited_for(world, patience, lambda: engine_lock.locked(world, stack, operation)):
        if stack.project.local:
            run_records.refuse_open_run(stack.project.directory)
        yield


@contextmanager
def waited_for(world: World, patience: float, lock: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Hold a lock while the block runs, with retries for `patience` seconds while another run holds it.

    Raise Locked after that.
    """
    with ExitStack() as locks:

        def take(waited: float) -> bool | None:
            try:
                locks.enter_context(lock())
                return True
            except Locked as other:
                if waited >= patience:
                    raise
                world.notify("lock", other.message)
                return None

        world.until(take, patience, pause=1)
        yield
