"""What a procedure needs from outside: the engine, the clock, a way to wait and to report progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Event
from typing import TypeVar

from compose_chap.engine.engine import Engine
from compose_chap.errors import ChapError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Engine, clock, `sleep` (seconds), and `notify`.

    `notify(step, detail, done, total)` is called for each step and, in long ones, with the bytes or seconds done out
    of `total` (0 where that is not known). `patience` is how many seconds CHAP may show no progress before a wait for
    it fails, `limit` how many it may take in all.
    """

    engine: Engine
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]
    notify: Callable[..., None]
    patience: float = 120
    limit: float = 6 * 3600
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def until(self, condition: Callable[[float], T | None], limit: float, pause: float = 0.5) -> T | None:
        """Poll `condition` until it returns something, and return that; None after `limit` seconds.

        It gets the seconds waited so far, and is called a last time when they are `limit` or more.
        """
        begun = self.clock()
        while True:
            waited = (self.clock() - begun).total_seconds()
            answer = condition(waited)
            if answer is not None or waited >= limit:
                return answer
            self.sleep(pause)

    @contextmanager
    def parallel(self, most: int) -> Iterator[tuple[Executor, World]]:
        """Yield a pool of at most `most` threads, and the world to give to what runs in it.

        At its end the block waits for all of them. When it fails, a function that waits for something ends at its next
        pause, with a ChapError that nobody sees; when Ctrl-C interrupts it, the block does not even wait for that.
        """
        interrupted = Event()

        def sleep(seconds: float) -> None:
            self.sleep(seconds)
            if interrupted.is_set():
                raise ChapError("It was interrupted.")

        pool = ThreadPoolExecutor(most)
        try:
            yield pool, replace(self, sleep=sleep)
        except Exception:
            interrupted.set()
            pool.shutdown()
            raise
        except BaseException:
            interrupted.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()


Notify = Callable[..., None]
