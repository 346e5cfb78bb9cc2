"""How psql is called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from compose_chap.engine.process import Finished
from compose_chap.errors import DatabaseError
from compose_chap.postgres.server import Server, counted


def test_a_search_path_of_a_database_means_nothing_to_the_administrator() -> None:
    seen: list[Mapping[str, str]] = []

    def run(container: str, command: Any, *, given: bytes, environment: Mapping[str, str]) -> Finished:
        seen.append(environment)
        return Finished(0, "", "")

    def execute(container: str, command: Any, *, watched: bool, environment: Mapping[str, str]) -> None:
        seen.append(environment)

    engine: Any = SimpleNamespace(run=run, execute=execute)
    server = Server(engine, "db", "chap")
    server.query("SELECT 1")
    server.answers("SELECT 1", "SELECT 2")
    server.counts("chap_core")
    server.ready()
    server.session("chap_core")
    assert len(seen) == 5 and all(one["PGOPTIONS"] == "-c search_path=pg_catalog" for one in seen)


@pytest.mark.parametrize("value", ["a\x1fb", "\x1e", "\x1d", "--", "a\nb", "\u2028", "\x85", '"', None, 7, ""])
def test_no_value_is_taken_for_the_end_of_something(value: Any) -> None:
    def run(container: str, command: Any, *, given: bytes, environment: Mapping[str, str]) -> Finished:
        # PostgreSQL escapes what JSON must have escaped, and no more. Columns without a name have all the same.
        text = json.dumps(value, ensure_ascii=False)
        row = f'{{"?column?":1,"?column?":{text}}}\n'
        return Finished(0, row * 2 + "--\n" * (b"\\echo" in given) + row * (b"\\echo" in given), "")

    server = Server(SimpleNamespace(run=run), "db", "chap")  # type: ignore[arg-type]
    assert server.query("SELECT 1") == [[1, value]] * 2
    assert server.answers("SELECT 1", "SELECT 2") == [[[1, value]] * 2, [[1, value]]]
    name = json.dumps(str(value), ensure_ascii=False)
    assert counted(f"[{name}, 5]\n") == {str(value): 5}


@pytest.mark.parametrize("answer", ["1\n", '"a"\n', "{\n", "a|b\n"])
def test_an_answer_that_is_no_row_is_an_error(answer: str) -> None:
    server = Server(SimpleNamespace(run=lambda *_, **__: Finished(0, answer, "")), "db", "chap")  # type: ignore[arg-type]
    with pytest.raises(DatabaseError, match="not JSON"):
        server.query("SELECT 1")
