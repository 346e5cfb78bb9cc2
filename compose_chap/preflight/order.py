"""Run checks side by side, each as soon as those that it requires are done. Most of them wait for a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from compose_chap.check import Check
from compose_chap.errors import ChapError
from compose_chap.preflight.subject import Subject

Look = Callable[[Subject], Check]


@dataclass(frozen=True)
class Examined:
    """A check that was made, or skipped; with `blocks`, those that require it are skipped too."""

    check: Check
    blocks: bool


def examine(subject: Subject, checks: Sequence[tuple[str, Sequence[str], Look]]) -> dict[str, Examined]:
    """Make checks (name, names of those that it requires, the question) and return them by name, in the given order.

    What a check requires stands before it; a name that is not among the checks requires nothing.
    """
    begun: dict[str, Future[Examined]] = {}
    with ThreadPoolExecutor(len(checks)) as pool:
        for name, requires, look in checks:
            before = {other: begun[other] for other in requires if other in begun}
            begun[name] = pool.submit(_examine, subject, name, before, look)
    return {name: future.result() for name, future in begun.items()}


def _examine(subject: Subject, name: str, before: Mapping[str, Future[Examined]], look: Look) -> Examined:
    if missing := [other for other, future in before.items() if future.result().blocks]:
        return Examined(Check(name, "skipped", f"Not looked at, because of {missing[0]}."), True)
    begun = subject.world.clock()
    try:
        check = look(subject)
    except ChapError as error:
        check = Check(name, "fail", error.message, error.hint)
    took = int((subject.world.clock() - begun).total_seconds() * 1000)
    return Examined(replace(check, name=name, duration_ms=took), check.failed)
