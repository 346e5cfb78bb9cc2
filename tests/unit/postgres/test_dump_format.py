"""What a dump is, by its content, and what plain SQL may hold."""

from __future__ import annotations

import pytest

from compose_chap.errors import DumpError
from compose_chap.postgres import dump_format
from compose_chap.postgres.dump_format import Kind, Packing

HEAD = "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 17.6 (Debian 17.6-1)\n\n"


def test_a_dump_is_known_by_its_content() -> None:
    assert dump_format.kind(b"PGDMP\x01\x10", "x.sql") is Kind.CUSTOM
    assert dump_format.kind(b"toc.dat\0".ljust(257, b"\0") + b"ustar  " + b"\0" * 300, "x") is Kind.TAR
    for text in (HEAD, "\\restrict abc\n\nSET x = 1;", "-- a comment\nCREATE TABLE a (b int);"):
        assert dump_format.kind(text.encode(), "x.dump") is Kind.PLAIN
    assert dump_format.packing(b"\x1f\x8b\x08") is Packing.GZIP
    assert dump_format.packing(b"\x28\xb5\x2f\xfd") is Packing.ZSTD
    assert dump_format.server_major(HEAD.encode()) == 17


@pytest.mark.parametrize("head", [b"", b"<html>", b"OCI runtime exec failed", b"PK\x03\x04", b"\0" * 600])
def test_what_is_no_dump_is_refused(head: bytes) -> None:
    with pytest.raises(DumpError):
        dump_format.kind(head, "x.dump")


def test_a_dump_of_a_whole_server_is_plain_sql_too() -> None:
    head = b"--\n-- PostgreSQL database cluster dump\n--\n\nSET default_transaction_read_only = off;\n"
    for content in (head, b"\\restrict abc\n\n" + head, head.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + head):
        assert dump_format.kind(content, "all.sql") is Kind.PLAIN


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"\xfd7zXZ\0\0\x04", "compressed with xz"),
        (b"BZh91AY&SY", "compressed with bzip2"),
        (b"\x04\x22\x4d\x18d", "compressed with lz4"),
        (b"PK\x03\x04", "compressed with zip"),
    ],
)
def test_a_compression_that_is_not_known_is_named(head: bytes, message: str) -> None:
    with pytest.raises(DumpError, match=message) as caught:
        dump_format.packing(head, "x.dump")
    assert "Unpack it first" in caught.value.hint


ARCHIVE = b"PGDMP\x01\x10\x00\x04\x08\x01" + b"CREATE TABLE public.a (\n    b integer,\n    c text\n);\n" * 3


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (ARCHIVE.replace(b"\n", b"\r\n"), "a terminal changed its line ends"),
        (HEAD.encode("utf-16"), "UTF-16, as PowerShell"),
        (b"WARN[0000] compose.yml: `version` is obsolete\n" + ARCHIVE, r"before the dump: 'WARN\[0000\]"),
        (b"pg_dump: warning: there are circular foreign keys\n" + HEAD.encode(), "before the dump: 'pg_dump: warning"),
        (b"Password: \r\n" + b"--\r\n-- PostgreSQL database dump\r\n--\r\n", "before the dump: 'Password:'"),
    ],
)
def test_what_tools_and_terminals_do_to_a_dump_is_named(head: bytes, message: str) -> None:
    with pytest.raises(DumpError, match=message) as caught:
        dump_format.kind(head, "x.dump")
    assert "Make it again" in caught.value.hint


def test_what_is_only_like_that_is_not_refused() -> None:
    assert dump_format.kind(ARCHIVE, "x") is Kind.CUSTOM
    assert dump_format.kind(ARCHIVE.replace(b"\n", b"\r\n", 2), "x") is Kind.CUSTOM
    for text in (
        "\ufeff" + HEAD,
        HEAD + "INSERT INTO a VALUES ('PGDMP');\n",
        "-- mine\n" + HEAD,
        HEAD.replace("\n", "\r\n"),
    ):
        assert dump_format.kind(text.encode(), "x") is Kind.PLAIN
    assert dump_format.server_major(HEAD.replace("\n", "\r\n").encode()) == 17


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


def test_contents_are_read_and_unexpected_objects_are_named() -> None:
    result = dump_format.contents(LISTING)
    assert result.server_major == 17
    assert [(entry.kind, entry.rest) for entry in result.unexpected()] == [("FUNCTION", "public harm() chap")]
    assert "ACL" not in result.without_privileges() and "EXTENSION" not in result.without_privileges()
    assert result.privileges().startswith("3701;")


@pytest.mark.parametrize("kind", ["ACL", "COMMENT", "DATABASE", "DATABASE PROPERTIES"])
def test_properties_of_the_database_itself_are_unexpected(kind: str) -> None:
    name = "- chap_core chap" if kind.startswith("DATABASE") else "- DATABASE chap_core chap"
    (entry,) = dump_format.contents(f"{LISTING.partition('250;')[0]}3704; 0 0 {kind} {name}\n").unexpected()
    assert entry.kind == kind


@pytest.mark.parametrize("kind", ["TABLE ATTACH", "INDEX ATTACH", "DOMAIN", "STATISTICS", "VIEW", "RULE", "POLICY"])
def test_what_is_no_plain_table_is_unexpected(kind: str) -> None:
    (entry,) = dump_format.contents(f"{LISTING.partition('250;')[0]}3704; 0 0 {kind} public harm chap\n").unexpected()
    assert (entry.kind, entry.rest) == (kind, "public harm chap")


def test_what_only_a_superuser_can_restore_can_be_left_out() -> None:
    listing = LISTING + "251; 3466 16501 EVENT TRIGGER - harm chap\n"
    result = dump_format.contents(listing)
    assert [entry.kind for entry in result.beyond_trust()] == ["EVENT TRIGGER"]
    assert result.without_beyond_trust().entries == dump_format.contents(LISTING).entries
    archive = dump_format.contents(LISTING + "3703; 826 16600 DEFAULT ACL public DEFAULT PRIVILEGES FOR TABLES chap\n")
    assert archive.default_privileges() and not dump_format.contents(LISTING).default_privileges()
