"""Run checks in parallel, each as soon as its prerequisites are done. Most of them wait for a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from compose_chap.check import Check, Finding, answered, words_of
from compose_chap.preflight.subject import Subject

CheckFunction = Callable[[Subject], Finding]


@dataclass(frozen=True)
class Examined:
    """The result of a check, or that it was skipped; with `blocks`, checks that require it are skipped too."""

    check: Check
    blocks: bool


def run(subject: Subject, checks: Sequence[tuple[str, Sequence[str], CheckFunction]]) -> dict[str, Examined]:
    """Run checks (name, names of its prerequisites, function) and return the results by name, in the same order.

    Prerequisites must come before the checks that require them; names that are not among the checks are ignored.
    """
    begun: dict[str, Future[Examined]] = {}
    with ThreadPoolExecutor(len(checks)) as pool:
        for name, requires, function in checks:
            before = {other: begun[other] for other in requires if other in begun}
            begun[name] = pool.submit(_run, subject, name, before, function)
    return {name: future.result() for name, future in begun.items()}


def _run(subject: Subject, name: str, before: Mapping[str, Future[Examined]], function: CheckFunction) -> Examined:
    if missing := [other for other, future in before.items() if future.result().blocks]:
        return Examined(Check(name, "skipped", f"Skipped, because '{words_of(missing[0])}' did not pass."), True)
    check = answered(name, subject.world.clock, lambda: function(subject), if_raised="fail")
    return Examined(check, check.failed)
