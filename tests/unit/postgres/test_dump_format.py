"""What a dump is, by its content, and what plain SQL may hold."""

from __future__ import annotations

import pytest

from compose_chap.errors import DumpError
from compose_chap.postgres import dump_format, plain_sql
from compose_chap.postgres.dump_format import Kind, Packing

HEAD = "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 17.6 (Debian 17.6-1)\n\n"
FOOT = "--\n-- PostgreSQL database dump complete\n--\n\n"


def read(text: str, *, trust: bool = False, left_out: set[str] | None = None) -> str:
    lines, told = text.encode().splitlines(True), set() if left_out is None else left_out
    return b"".join(plain_sql.harmless_sql(lines, told, trust=trust)).decode()


def test_a_dump_is_known_by_its_content() -> None:
    assert dump_format.kind(b"PGDMP\x01\x10", "x.sql") is Kind.CUSTOM
    assert dump_format.kind(b"toc.dat\0".ljust(257, b"\0") + b"ustar  " + b"\0" * 300, "x") is Kind.TAR
    for text in (HEAD, "\\restrict abc\n\nSET x = 1;", "-- a comment\nCREATE TABLE a (b int);"):
        assert dump_format.kind(text.encode(), "x.dump") is Kind.PLAIN
    assert dump_format.packing(b"\x1f\x8b\x08") is Packing.GZIP
    assert dump_format.packing(b"\x28\xb5\x2f\xfd") is Packing.ZSTD
    assert plain_sql.server_major(HEAD.encode()) == 17


@pytest.mark.parametrize("head", [b"", b"<html>", b"OCI runtime exec failed", b"PK\x03\x04", b"\0" * 600])
def test_what_is_no_dump_is_refused(head: bytes) -> None:
    with pytest.raises(DumpError):
        dump_format.kind(head, "x.dump")


def test_a_dump_of_a_whole_server_is_told_what_is_needed_instead() -> None:
    head = b"--\n-- PostgreSQL database cluster dump\n--\n\nSET default_transaction_read_only = off;\n"
    for content in (head, b"\\restrict abc\n\n" + head, head.replace(b"\n", b"\r\n")):
        with pytest.raises(DumpError, match="pg_dumpall") as told:
            dump_format.kind(content, "all.sql")
        assert "pg_dump -Fc" in told.value.hint and "--trust" not in told.value.hint


LISTING = """\
;
; Archive created at 2026-11-23 04:00:00 UTC
;     dbname: chap_core
;     Dumped from database version: 17.6
;
235; 1259 16491 TABLE public backtest chap
3700; 0 16491 TABLE DATA public backtest chap
3701; 0 0 ACL - SCHEMA public pg_database_owner
2; 3079 16385 EXTENSION - plpgsql
3702; 0 0 COMMENT - EXTENSION plpgsql
250; 1255 16500 FUNCTION public harm() chap
"""


def test_contents_are_read_and_what_is_foreign_is_named() -> None:
    found = dump_format.contents(LISTING)
    assert found.server_major == 17 and found.database == "chap_core"
    assert [(entry.kind, entry.rest) for entry in found.foreign()] == [("FUNCTION", "public harm() chap")]
    assert "ACL" not in found.without_privileges() and "EXTENSION" not in found.without_privileges()
    assert found.privileges().startswith("3701;")


def test_what_pg_dump_writes_passes() -> None:
    body = (
        "\\restrict Abc1\nSET client_encoding = 'UTF8';\nSELECT pg_catalog.set_config('search_path', '', false);\n"
        "CREATE TABLE public.t (\n    id integer DEFAULT nextval('public.s'::regclass) NOT NULL,\n"
        '    "odd""name" text\n);\n'
        "ALTER TABLE public.t OWNER TO chap;\n"
        'COPY public.t (id, "order") FROM stdin;\n1\ta\\\\b \\! c\n\\N\t\'\n\\.\n\n'
        "INSERT INTO public.t VALUES (1, 'it''s \\! fine; -- ( ');\nSELECT pg_catalog.setval('public.s', 3, true);\n"
        "\\unrestrict Abc1\n"
    )
    passed = read(HEAD + body + FOOT)
    assert "OWNER" not in passed and "restrict" not in passed
    assert "1\ta\\\\b \\! c\n\\N\t'\n\\.\n" in passed and "it''s \\! fine" in passed


def test_privileges_may_fail_and_what_is_left_out_is_told() -> None:
    left_out: set[str] = set()
    body = (
        'GRANT SELECT ON TABLE public.t TO "o\'brien";\n'
        "ALTER DEFAULT PRIVILEGES FOR ROLE chap IN SCHEMA public GRANT SELECT ON TABLES TO reader;\n"
    )
    passed = read(HEAD + body + FOOT, left_out=left_out)
    assert "DO 'BEGIN EXECUTE ''GRANT SELECT ON TABLE public.t TO \"o''''brien\";''; EXCEPTION" in passed
    assert "DEFAULT" not in passed and left_out == {"default privileges"}
    archive = dump_format.contents(LISTING + "3703; 826 16600 DEFAULT ACL public DEFAULT PRIVILEGES FOR TABLES chap\n")
    assert archive.default_privileges() and not dump_format.contents(LISTING).default_privileges()


HOSTILE = (
    "\\! id",
    "SET row_security = off; \\! id",
    "CREATE TABLE a (b int) \\g |id",
    "SELECT (\nCOPY public.t FROM stdin;\n\\! id\n\\.",
    "CREATE TABLE a$$ (b int); \\! id $$;",
    "CREATE TABLE a (b int DEFAULT 1e5$$ \\! id $$);",
    "INSERT INTO t VALUES (nameE'\\' ; \\! id --');",
    "INSERT INTO t VALUES (E'\\' ; \\! id --');",
    "INSERT INTO t VALUES (U&'\\0027');",
    "SET standard_conforming_strings = off;",
    "SET client_encoding = 'SJIS';",
    "set names 'SJIS';",
    "INSERT INTO t VALUES (set_config('standard_' || 'conforming_strings', 'off', false));",
    "UPDATE pg_settings SET setting = 'off';",
    "DO 'begin end';",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC\nCOPY public.t FROM stdin;\n\\! id\n\\.\nEND;",
    "CREATE /* */ OR REPLACE /* */ FUNCTION f() RETURNS int AS 'x';",
    "SELECT 1;",
    "CREATE TABLE a\0 (b int);",
    "/* /* */ */ \\! id",
    "\\connect a\n\\connect b",
    "\\copy t from program 'id'",
    "COPY t FROM PROGRAM 'id'; \\! id",
    "GRANT x TO y; \\! id;",
    'GRANT x TO "y" \\g |id;',
    "COMMENT ON SCHEMA public IS ''; \\! id;",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_could_be_a_command_to_psql_is_refused(text: str) -> None:
    with pytest.raises(DumpError):
        read(HEAD + text + "\n" + FOOT)


def test_a_dump_that_was_cut_off_is_refused_at_every_line() -> None:
    lines = (HEAD + "CREATE TABLE t (a int);\nCOPY public.t FROM stdin;\n1\n2\n\\.\n" + FOOT).splitlines(True)
    whole = next(number for number, line in enumerate(lines) if "complete" in line)
    for count in range(2, whole):
        with pytest.raises(DumpError, match="cut off"):
            read("".join(lines[:count]))
    read("".join(lines))
