"""No text from outside takes time that grows with the square of its length: these took many seconds, or hours."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from compose_chap import redact
from compose_chap.engine.last_error import last_error
from compose_chap.engine.registries.registry import challenges
from compose_chap.engine.registries.registry_http import Response
from compose_chap.postgres.untrusted.script_errors import SOME_PRIVILEGES, Reader

LONG = 60_000


def next_page(link: str) -> str:
    return Response("registry.example", 200, httpx.Headers({"Link": link}), b"").next_page()


def statement(text: str) -> str:
    reader = Reader()
    reader.read("ERROR:  42P01: no such table")
    reader.read(f"STATEMENT:  {text}")
    return reader.failure


HOSTILE: dict[str, tuple[Callable[[str], Any], str]] = {
    "addresses in a log": (redact.redact, "://:" * LONG),
    "names of secrets in a log": (redact.redact, "password" * LONG),
    "a secret without its end": (redact.redact, 'password="' + "\\" * LONG),
    "words in a log": (redact.redact, "a-" * LONG),
    "quotes in a log": (redact.redact, '"' * LONG + "a" * LONG),
    "addresses in a setting": (redact.passwords_in, "://:" * LONG),
    "a challenge": (lambda text: challenges([text]), "a" * LONG + "!"),
    "fields of a challenge": (lambda text: challenges([text]), 'a="' + '\\"' * LONG),
    "a next page": (next_page, "<" * LONG),
    "spaces before a next page": (next_page, "<a>;" + " " * LONG),
    "the margin of a traceback": (last_error, "\n".join(["|" * LONG, "+" * LONG])),
    "words before a traceback": (last_error, "a " * LONG),
    "names of exceptions": (last_error, "a.A" * LONG),
    "statements in a log": (last_error, "[SQL: x\n" * LONG),
    "a statement that failed": (statement, "ALTER TABLE " + " ALTER COLUMN " * LONG),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_text_takes_no_time(what: str) -> None:
    read, text = HOSTILE[what]
    begun = time.process_time()
    read(text)
    assert time.process_time() - begun < 3


def test_a_dump_that_names_any_number_of_roles_takes_no_memory() -> None:
    reader = Reader()
    for number in range(2_000):
        reader.read(f'ERROR:  42704: role "r{number}" does not exist')
        reader.read(f"STATEMENT:  GRANT SELECT ON dataset TO r{number};")
    assert len(reader.left_out) < 100 and SOME_PRIVILEGES in reader.left_out and not reader.failure


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://chap:a/b@c@db/x", "postgresql://chap:***@db/x"),
        ("a http://u:p@x/y, then ftp://v:q@z", "a http://u:***@x/y, then ftp://v:***@z"),
        ("http://x/a:b http://u@x/ me@x ://:@", "http://x/a:b http://u@x/ me@x ://:@"),
        ("http://x/,http://u:p@y/", "http://x/,http://u:***@y/"),
    ],
)
def test_passwords_in_addresses_are_hidden(text: str, expected: str) -> None:
    assert redact.redact(text) == expected
