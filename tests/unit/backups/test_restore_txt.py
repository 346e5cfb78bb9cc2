"""The commands that a person is shown: they hold for a server at another port, and for names that want quoting."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compose_chap.backups import restore_txt
from compose_chap.model import Project, Role
from compose_chap.postgres import reach
from tests.fakes import manifest


def instructions(live: str, admin: str, port: int) -> list[list[str]]:
    """Return the commands of RESTORE.txt, as a shell reads them."""
    service = SimpleNamespace(name="db")
    project = Project("p", Path("/srv"), (Path("/srv/a.yml"),))
    access = SimpleNamespace(name=live, owner="chap", admin="guessed")
    stack: Any = SimpleNamespace(project=project, writers=[service], database=service, access=access, of=lambda _: [])
    text = restore_txt.text(stack, manifest(), admin, port)
    assert "guessed" not in text and not stack.of(Role.DHIS2)
    return [shlex.split(line) for line in text.splitlines() if line.startswith("   ") and " exec " in line]


def test_the_administrator_is_the_server_s_answer() -> None:
    commands = instructions("chap_core", "boss", 5432)
    assert len(commands) == 4 and all(words[words.index("-U") + 1] == "boss" for words in commands)
    assert not any("PGPORT" in word for words in commands for word in words)


def test_another_port_is_given_to_every_tool() -> None:
    for words in instructions("chap_core", "boss", 5433):
        at = words.index("exec")
        assert words[at + 1 : at + 5] == ["-T", "-e", "PGPORT=5433", "db"]


def test_a_database_called_postgres_is_renamed_from_another() -> None:
    rename, *_ = instructions("postgres", "boss", 5432)
    assert rename[rename.index("-d") + 1] == "template1"
    rename, *_ = instructions("chap_core", "boss", 5432)
    assert rename[rename.index("-d") + 1] == "postgres"


@pytest.mark.parametrize(
    ("name", "stdin"),
    [
        ("chap_core", "chap_core"),
        ("Ärzte", "Ärzte"),
        ("a b", "dbname='a b'"),
        ("a = 'b'", r"dbname='a = \'b\''"),
        ("postgresql://x", "dbname='postgresql://x'"),
        ("-c", "dbname='-c'"),
    ],
)
def test_a_name_is_not_read_as_settings(name: str, stdin: str) -> None:
    assert reach.argument(name) == stdin
    restore = next(words for words in instructions(name, "boss", 5432) if "pg_restore" in words)
    assert restore[restore.index("-d") + 1] == stdin


@pytest.mark.parametrize("live", ["x" * 63, "ä" * 31, "chap_core"])
def test_the_name_of_the_previous_database_is_not_cut(live: str) -> None:
    rename, *_, drop = [*instructions(live, "boss", 5432)]
    old = drop[-1]
    assert rename[-1] == f'ALTER DATABASE "{live}" RENAME TO "{old}"'
    assert len(old.encode()) <= 63 and old != live and old.endswith("_old")
