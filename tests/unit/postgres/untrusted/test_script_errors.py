"""What psql says of a plain dump: what does not touch the data is passed over, everything else is a failure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compose_chap.postgres.untrusted import script_errors
from compose_chap.postgres.untrusted.script_errors import SOME_PRIVILEGES, Reader


def messages_of(*errors: tuple[str, str]) -> list[str]:
    """Return what psql writes of errors, each with its message and statement."""
    lines = []
    for message, statement in errors:
        lines += [
            f"ERROR:  42704: {message}",
            "LOCATION:  somewhere, acl.c:5471",
            *f"STATEMENT:  {statement}".split("\n"),
        ]
    return lines


def read(lines: list[str]) -> Reader:
    reader = Reader()
    for line in lines:
        reader.read(line)
    reader.end()
    return reader


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE public.dataset OWNER TO somebody;",
        "--\n-- Name: dataset; Type: TABLE\n--\n\nALTER TABLE public.dataset OWNER TO somebody;",
        "ALTER SEQUENCE public.dataset_id_seq OWNER TO somebody;",
        "SET transaction_timeout = 0;",
        "SET SESSION AUTHORIZATION 'somebody';",
        "DROP TABLE public.dataset;",
        "ALTER TABLE ONLY public.observation DROP CONSTRAINT observation_dataset_id_fkey;",
        "ALTER TABLE public.dataset ALTER COLUMN id DROP DEFAULT;",
        "CREATE SCHEMA public;",
        "COMMENT ON EXTENSION plpgsql IS 'PL/pgSQL procedural language';",
        "CREATE DATABASE chap_core WITH TEMPLATE = template0;",
        "CREATE ROLE chap;",
        "ALTER ROLE chap WITH SUPERUSER;",
    ],
)
def test_what_does_not_touch_the_data_is_passed_over(statement: str) -> None:
    reader = read(messages_of(("it does not exist", statement)))
    assert not reader.failure and not reader.left_out


def test_privileges_that_cannot_be_given_are_named() -> None:
    reader = read(
        messages_of(
            ('role "o\'brien" does not exist', 'GRANT SELECT ON TABLE public.t TO "o\'brien";'),
            ('role "gone" does not exist', "ALTER DEFAULT PRIVILEGES FOR ROLE gone GRANT SELECT ON TABLES TO chap;"),
            ("invalid something", "REVOKE ALL ON SCHEMA public FROM x;"),
        )
    )
    assert not reader.failure
    assert reader.left_out == {"privileges of the role o'brien", "privileges of the role gone", SOME_PRIVILEGES}


@pytest.mark.parametrize(
    "lines",
    [
        *(
            messages_of((statement, statement))
            for statement in (
                "CREATE TABLE public.t (a int);",
                "COPY public.t (a) FROM stdin;",
                "INSERT INTO public.t VALUES (1);",
                "ALTER TABLE ONLY public.t ADD CONSTRAINT t_pkey PRIMARY KEY (a);",
                "CREATE UNIQUE INDEX i ON public.t USING btree (a);",
                "SELECT pg_catalog.setval('public.s', 3, true);",
                "CREATE SCHEMA publicity;",
                "CREATE EXTENSION IF NOT EXISTS postgis WITH SCHEMA public;",
                "-- ALTER TABLE public.t OWNER TO x;\nCREATE TYPE t AS ENUM ();",
            )
        ),
        ["FATAL:  57P01: terminating connection due to administrator command"],
        ["ERROR:  42601: syntax error", "ERROR:  42704: another", "STATEMENT:  SET x = 1;"],
        ['\\connect: connection to server on socket failed: FATAL:  database "x" does not exist'],
        ["invalid command \\N"],
        ["psql: error: connection to server failed"],
    ],
)
def test_what_touches_the_data_is_a_failure(lines: list[str]) -> None:
    assert read(lines).failure


def test_the_first_failure_is_named() -> None:
    lost = ("relation does not exist", "COPY public.t FROM stdin;")
    lines = messages_of(("no such role", "ALTER TABLE t OWNER TO x;"), lost, ("syntax error", "1 2 3;"))
    assert read([*lines, "invalid command \\."]).failure == "relation does not exist"


def test_an_old_psql_does_not_know_every_command() -> None:
    assert not read(["invalid command \\restrict", "invalid command \\unrestrict"]).failure


def test_lines_are_cut_before_they_fill_the_memory() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a\nb"
        yield b"c\n"
        for _ in range(1000):
            yield b"x" * 65536
        yield b"\n\xff"

    *first, long, last = script_errors.lines(pieces())
    assert first == ["a", "bc"] and len(long) == 65536 and last == "\ufffd"
