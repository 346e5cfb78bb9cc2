"""Which run is the one to undo, and small things that an upgrade says."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from compose_chap import redact
from compose_chap.errors import StateError
from compose_chap.model import Container, Project, Role, Service, Stack
from compose_chap.operations import rollback
from compose_chap.postgres import reach
from compose_chap.preflight import release_notes
from compose_chap.records import run_records
from compose_chap.transaction.data.written import rows_since
from compose_chap.transaction.evidence import secrets_of
from compose_chap.transaction.run.kept import kept_name
from tests.fakes import run_record


def record(directory: Path, identity: str, operation: str, result: str = "done", undoes: str = "") -> None:
    """Write the record of a run that ended."""
    run = run_record(id=identity, operation=operation, result=result, undoes=undoes)
    for path in (
        run_records.undo_file(directory, identity),
        directory / run_records.FOLDER / "runs" / f"{identity}.json",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(run))


def test_the_last_effective_run_is_undone(tmp_path: Path) -> None:
    record(tmp_path, "1", "upgrade")
    record(tmp_path, "2", "upgrade", "rolled back")
    record(tmp_path, "3", "pin")
    assert rollback.last_undoable(tmp_path, "upgrade")["id"] == "1"

    record(tmp_path, "4", "restore")
    with pytest.raises(StateError, match="There was another run after that upgrade: restore 4") as refused:
        rollback.last_undoable(tmp_path, "upgrade")
    assert refused.value.hint == "Undo that first: docker chap restore --undo"

    # What was undone no longer stands in the way of what was before it.
    record(tmp_path, "5", "rollback", undoes="4")
    assert rollback.last_undoable(tmp_path, "upgrade")["id"] == "1"
    record(tmp_path, "6", "rollback", undoes="1")
    with pytest.raises(StateError, match="no upgrade to undo"):
        rollback.last_undoable(tmp_path, "upgrade")

    # Nor is a restore that was made before it to be undone for it.
    record(tmp_path, "7", "restore")
    with pytest.raises(StateError, match="no upgrade to undo") as refused:
        rollback.last_undoable(tmp_path, "upgrade")
    assert "restore --undo" not in refused.value.hint


def test_rows_since_tell_of_tables_that_shrank_too() -> None:
    old = {"public.a": 5, "public.b": 5, "public.gone": 2, "public.modeltemplatedb": 1}
    new = {"public.a": 7, "public.b": 4, "public.new": 1, "public.modeltemplatedb": 3}
    assert rows_since(old, new) == {"public.a": 2, "public.b": -1, "public.gone": -2, "public.new": 1}


def test_passwords_are_taken_out_of_evidence() -> None:
    message = "no connection to postgresql://chap:hunter22@db:5432/chap (token swordfish)"
    assert redact.redact(message, ["swordfish"]) == "no connection to postgresql://chap:***@db:5432/chap (token ***)"


def stack(**environment: str) -> Stack:
    """Return a stack of API and database whose containers have this environment."""

    def service(name: str, role: Role) -> Service:
        container = Container(
            id=name,
            name=name,
            project="p",
            service=name,
            image=name,
            image_id=name,
            state="running",
            health="",
            exit_status=0,
            restarts=0,
            started_at="",
            command=(),
            names=frozenset({name}),
            addresses=frozenset(),
            labels={},
            environment=environment,
        )
        return Service(name, role, (container,))

    return Stack(Project("p", Path("/"), ()), (service("chap", Role.API), service("postgres", Role.DATABASE)))


def test_only_the_notes_between_two_versions_are_shown() -> None:
    assert [check.name for check in release_notes.between(stack(), "2.0.0", "v2.1.0")] == []
    assert [check.name for check in release_notes.between(stack(), "1.4.0", "v2.1.0")] == ["note_models"]
    assert [check.name for check in release_notes.between(stack(), "2.1.0", "v2.2.0")] == ["note_columns"]
    assert [check.name for check in release_notes.between(stack(), "latest", "v2.2.0")] == []
    odd = stack(POSTGRES_PASSWORD="p@ss")
    assert [check.name for check in release_notes.between(odd, "1.1.4", "v1.2.0")] == ["note_password"]


def test_a_warning_is_no_reason_for_a_failure() -> None:
    warning = 'WARNING:  database "chap_core" has a collation version mismatch, indexes may be invalid'
    error = "pg_restore: error: could not read from input file: end of file"
    assert reach.first_error(f"{warning}\n{error}\n") == error
    assert reach.first_error(f"{warning}\n") == warning


RUN = "20261123T041500Z"


@pytest.mark.parametrize("live", ["chap_core", "x" * 39, "x" * 63, "é" * 31, "日" * 21, 'My "Health" Data', "postgres"])
@pytest.mark.parametrize("word", ["before", "after", "incoming"])
def test_every_name_that_is_made_of_a_databases_name_fits(live: str, word: str) -> None:
    made = kept_name(live, word, RUN)
    assert len(f"{made}_failed".encode()) <= 63
    assert made.endswith(f"_{word}_20261123t041500z")


def test_names_with_the_same_prefix_are_distinguished() -> None:
    assert kept_name("é" * 30 + "a", "before", RUN) != kept_name("é" * 30 + "b", "before", RUN)
    assert kept_name("chap_core", "before", RUN) == "chap_core_before_20261123t041500z"


SECRETS = ("sword/fish@7", "s:w/o@rd", 'quo"ted\\one', "it's/mine", "p%40ss/word")


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "expected",
    [
        "no connection to postgresql+psycopg2://chap:{}@db:5432/chap, gave up",
        '{{"CHAP_DATABASE_URL": "postgresql://chap:{}@db/chap"}}',
        "redis://:{}@redis:6379/0",
        "it said {} and no more",
    ],
)
def test_a_password_of_any_spelling_is_hidden(secret: str, expected: str) -> None:
    environment = {"CHAP_DATABASE_URL": f"postgresql://chap:{secret}@db:5432/chap", "PATH": "/bin", "PWD": "/app/where"}
    (hidden,) = {value for value in secrets_of([container(environment)]) if value == secret}
    in_base64 = base64.b64encode(secret.encode()).decode().rstrip("=")
    for spelled in (
        secret,
        json.dumps(secret)[1:-1],
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        in_base64,
    ):
        assert spelled not in redact.redact(expected.format(spelled), secrets_of([container(environment)]))
    assert hidden == secret


@pytest.mark.parametrize(
    "name", ["CHAP_DB_PWD", "DBPWD", "POSTGRES_PASSWORD", "PGPASSWORD", "API_KEY", "CHAP_API_TOKEN"]
)
def test_a_setting_whose_name_says_so_is_secret(name: str) -> None:
    assert secrets_of([container({name: "swordfish", "PWD": "/app/where", "OLDPWD": "/home/chap"})]) == ["swordfish"]


@pytest.mark.parametrize(
    "dsn", ["host=db password=swordfish dbname=x", "host=db password='swordfish'", "x?password=swordfish&y"]
)
def test_a_dsn_is_hidden_in_settings_and_in_logs(dsn: str) -> None:
    assert "swordfish" in secrets_of([container({"CHAP_DSN": dsn})])
    assert "swordfish" not in redact.redact(f"could not connect: {dsn}")


def test_what_is_no_secret_stays() -> None:
    for text in (
        "password authentication failed for user chap",
        "token: expired, PWD=/app",
        "http://chap:8000/health and mail@example.org",
        "POSTGRES_PASSWORD=${POSTGRES_PASSWORD:?set it}",
        "v2.0.0 -> v2.1.0",
    ):
        assert redact.redact(text) == text


def container(environment: dict[str, str]) -> Any:
    return SimpleNamespace(environment=environment)
