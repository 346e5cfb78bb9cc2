"""How psql is called."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from compose_chap.engine.process import Finished
from compose_chap.postgres.server import Server


def test_a_search_path_of_a_database_means_nothing_to_the_administrator() -> None:
    seen: list[Mapping[str, str]] = []

    def run(container: str, command: Any, *, given: bytes, environment: Mapping[str, str]) -> Finished:
        seen.append(environment)
        return Finished(0, "", "")

    def execute(container: str, command: Any, *, watched: bool, environment: Mapping[str, str]) -> None:
        seen.append(environment)

    engine: Any = SimpleNamespace(run=run, execute=execute)
    server = Server(engine, "db", "chap")
    server.query("SELECT 1;")
    server.answers("SELECT 1;", "SELECT 2;")
    server.counts("chap_core")
    server.ready()
    server.session("chap_core")
    assert len(seen) == 5 and all(one["PGOPTIONS"] == "-c search_path=pg_catalog" for one in seen)
