"""Checks run side by side, and still only after those that they require."""

from __future__ import annotations

from threading import Barrier, Thread
from types import SimpleNamespace
from typing import Any

from compose_chap.check import Finding
from compose_chap.errors import ChapError
from compose_chap.preflight import run_checks
from compose_chap.preflight.subject import shared_property
from tests.fakes import FakeEngine, world


def ok(subject: Any) -> Finding:
    return Finding("ok", "")


def test_what_is_required_and_failed_is_named_and_those_behind_it_are_skipped(tmp_path: Any) -> None:
    requests: list[str] = []

    def failing(subject: Any) -> Finding:
        raise ChapError("It is away.", hint="Start it.")

    def after(subject: Any) -> Finding:
        requests.append("after")
        return ok(subject)

    checks = [
        ("stack", (), failing),
        ("files", ("elsewhere",), ok),
        ("database", ("files", "stack"), after),
        ("room", ("database",), after),
    ]
    result = run_checks.run(SimpleNamespace(world=world(FakeEngine(tmp_path))), checks)  # type: ignore[arg-type]
    assert list(result) == ["stack", "files", "database", "room"]
    assert [entry.check.status for entry in result.values()] == ["fail", "ok", "skipped", "skipped"]
    assert result["stack"].check.hint == "Start it."
    assert result["room"].check.message == "Skipped, because 'database' did not pass."
    assert [name for name, entry in result.items() if entry.blocks] == ["stack", "database", "room"]
    assert not requests


def test_checks_that_require_nothing_of_each_other_do_not_wait(tmp_path: Any) -> None:
    meet = Barrier(3, timeout=10)

    def meeting(subject: Any) -> Finding:
        meet.wait()  # which breaks unless all three are there
        return ok(subject)

    checks = [(name, (), meeting) for name in ("a", "b", "c")]
    result = run_checks.run(SimpleNamespace(world=world(FakeEngine(tmp_path))), checks)  # type: ignore[arg-type]
    assert [entry.check.status for entry in result.values()] == ["ok"] * 3


def test_a_fact_is_asked_once_by_however_many_threads() -> None:
    requests: list[int] = []
    begin = Barrier(4, timeout=10)

    class Facts:
        @shared_property
        def size(self) -> int:
            """The size."""
            requests.append(1)
            if len(requests) == 1:
                raise ChapError("Not now.")
            return 7

    facts, sizes = Facts(), []

    def ask() -> None:
        begin.wait()
        try:
            sizes.append(facts.size)
        except ChapError:
            sizes.append(0)

    threads = [Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sizes) == [0, 7, 7, 7]  # an error is no answer: the next one asks again
    assert len(requests) == 2
