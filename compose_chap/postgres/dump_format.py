"""The format of a dump, by its content, and whether it holds something that no dump of CHAP holds. Pure.

A dump is a program: whoever restores it runs it. CHAP's dumps hold tables, rows and what belongs to them,
and nothing that could run code later or on another server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum

from compose_chap.errors import DumpError


class Kind(Enum):
    """The formats that pg_dump writes."""

    CUSTOM = "custom"
    TAR = "tar"
    DIRECTORY = "directory"
    PLAIN = "plain"


class Packing(Enum):
    """How the dump file as a whole was compressed, after pg_dump."""

    NONE = ""
    GZIP = "gzip"
    ZSTD = "zstd"


# The kinds of entries in `pg_restore --list` that a database of CHAP has.
_ALLOWED = (
    "ACL",
    "CHECK CONSTRAINT",
    "COMMENT",
    "CONSTRAINT",
    "DEFAULT",
    "DEFAULT ACL",
    "FK CONSTRAINT",
    "INDEX",
    "SCHEMA",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "STATISTICS DATA",
    "TABLE",
    "TABLE DATA",
    "TYPE",
)

# Entries of old or selective dumps that every server already has: kind and name.
_OF_SERVER = (
    ("EXTENSION", "- plpgsql"),
    ("COMMENT", "- EXTENSION plpgsql"),
    ("SCHEMA", "- public"),
    ("COMMENT", "- SCHEMA public"),
)

# Longest first, so that TABLE DATA is not read as TABLE with the schema DATA.
_KINDS = sorted(
    (
        *_ALLOWED,
        *("ACCESS METHOD", "AGGREGATE", "BLOB", "BLOB METADATA", "BLOBS", "CAST", "COLLATION", "CONVERSION"),
        *("DATABASE", "DATABASE PROPERTIES", "DOMAIN", "EVENT TRIGGER", "EXTENSION", "FOREIGN DATA WRAPPER"),
        *(
            "FOREIGN SERVER",
            "FOREIGN TABLE",
            "FUNCTION",
            "INDEX ATTACH",
            "LARGE OBJECT",
            "MATERIALIZED VIEW",
            "OPERATOR",
        ),
        *("MATERIALIZED VIEW DATA", "OPERATOR CLASS", "OPERATOR FAMILY", "POLICY", "PROCEDURAL LANGUAGE", "PROCEDURE"),
        *("PUBLICATION", "PUBLICATION TABLE", "ROW SECURITY", "RULE", "SECURITY LABEL", "SERVER", "SHELL TYPE"),
        *("STATISTICS", "SUBSCRIPTION", "TEXT SEARCH CONFIGURATION", "TEXT SEARCH DICTIONARY", "TRANSFORM"),
        *("TEXT SEARCH PARSER", "TABLE ATTACH", "TEXT SEARCH TEMPLATE", "TRIGGER", "USER MAPPING", "VIEW"),
    ),
    key=len,
    reverse=True,
)

# Kinds that only a superuser may create. A dump, trusted or not, is never restored by a superuser.
_BEYOND_TRUST = (
    *("ACCESS METHOD", "EVENT TRIGGER", "FOREIGN DATA WRAPPER", "OPERATOR CLASS", "OPERATOR FAMILY"),
    *("PROCEDURAL LANGUAGE", "SECURITY LABEL", "SHELL TYPE", "SUBSCRIPTION", "TEXT SEARCH PARSER"),
    *("TEXT SEARCH TEMPLATE", "UNTRUSTED"),
)


def is_beyond_trust(name: str) -> bool:
    """Whether an object, named by its kind and name, can only be restored by a superuser."""
    return name.startswith(tuple(f"{kind} " for kind in _BEYOND_TRUST))


_ENTRY = re.compile(r"^(\d+); \d+ \d+ (.*)$")


@dataclass(frozen=True, slots=True)
class TocEntry:
    """A line of an archive's table of contents: its number, kind, and the rest (schema, name, owner)."""

    number: int
    kind: str
    rest: str
    line: str

    @property
    def called(self) -> str:
        """Its kind and the rest, for people."""
        return f"{self.kind} {self.rest}"

    @property
    def name(self) -> str:
        """The name, for an entry that is in no schema: an extension, a schema."""
        return self.rest.removeprefix("- ").partition(" ")[0]

    @property
    def is_ordinary(self) -> bool:
        """Whether a database of CHAP has such entries. Properties of the database itself do not belong in a dump."""
        return self.kind in _ALLOWED and not self.rest.startswith("- DATABASE ")

    @property
    def belongs_to_server(self) -> bool:
        """Whether every server has it already, owned by the administrator: PL/pgSQL, the schema public."""
        # After the name comes an owner, or nothing.
        return any(self.kind == kind and f"{self.rest} ".startswith(f"{name} ") for kind, name in _OF_SERVER)


@dataclass(frozen=True)
class Contents:
    """The table of contents of an archive, from `pg_restore --list`."""

    server: str
    entries: tuple[TocEntry, ...]

    @property
    def server_major(self) -> int:
        """The major version of the server that was dumped, 0 when unknown."""
        match = re.match(r"\d+", self.server)
        return int(match[0]) if match else 0

    def unexpected(self) -> list[TocEntry]:
        """Return the entries that no dump of CHAP should have."""
        return [entry for entry in self.entries if not entry.is_ordinary and not entry.belongs_to_server]

    def beyond_trust(self) -> list[TocEntry]:
        """Return the entries that only a superuser can restore."""
        return [entry for entry in self.entries if is_beyond_trust(entry.called) and not entry.belongs_to_server]

    def without_beyond_trust(self) -> Contents:
        """Return the contents without the entries that only a superuser can restore."""
        beyond = set(self.beyond_trust())
        return replace(self, entries=tuple(entry for entry in self.entries if entry not in beyond))

    def without_privileges(self) -> str:
        """Return a list for `pg_restore --use-list` of all entries but privileges, which may name unknown roles."""
        return "".join(
            entry.line + "\n"
            for entry in self.entries
            if entry.kind not in ("ACL", "DEFAULT ACL") and not entry.belongs_to_server
        )

    def privileges(self) -> str:
        """Return a list for `pg_restore --use-list` of the privileges alone, empty when there are none."""
        return "".join(entry.line + "\n" for entry in self.entries if entry.kind == "ACL")

    def default_privileges(self) -> bool:
        """Whether it sets privileges of later tables. Only the role that will create those tables can set them."""
        return any(entry.kind == "DEFAULT ACL" for entry in self.entries)


def blocks(size: int) -> str:
    """Return a size in bytes as POSIX blocks, for `ulimit -f`."""
    return str(max(size, 0) // 512)


def packing(head: bytes, name: str = "The dump") -> Packing:
    """Return how a file is compressed, by its first bytes. Raise DumpError for formats to be unpacked by hand."""
    if head.startswith(b"\x1f\x8b"):
        return Packing.GZIP
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return Packing.ZSTD
    for magic, called, command in _OTHER_PACKINGS:
        if head.startswith(magic):
            raise DumpError(f"{name} is compressed with {called}.", hint=f"Unpack it first, with: {command}")
    return Packing.NONE


_OTHER_PACKINGS = (
    (b"\xfd7zXZ\0", "xz", "xz -d"),
    (b"BZh", "bzip2", "bzip2 -d"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4 -d"),
    (b"PK\x03\x04", "zip", "unzip"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip", "7z x"),
    (b"\x5d\0\0", "lzma", "unlzma"),
)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_AGAIN = (
    "Make it again, without the messages of other tools in it:"
    " docker compose exec -T ... pg_dump -Fc ... > chap_core.dump"
)
_HEADER = re.compile(rb"^-- PostgreSQL database (cluster )?dump\b", re.M)


def kind(head: bytes, name: str) -> Kind:
    """Return the format of a dump by its first bytes (at least 512). Raise DumpError when it is not a dump."""
    if not head:
        raise DumpError(f"{name} is empty.", hint="The command that made it failed. Use another dump.")
    if head.startswith(b"PGDMP"):
        _check_line_ends(head, name)
        return Kind.CUSTOM
    if head[257:262] == b"ustar" and head.startswith((b"toc.dat\0", b"./toc.dat\0")):
        return Kind.TAR
    if head.startswith(_UTF_16):
        raise DumpError(
            f"{name} is text in UTF-16, as PowerShell's > writes it. It is not a dump any more.",
            hint="Make it again from another shell, or write it with an option of pg_dump: -f FILE",
        )
    begins = _begins_at(head)
    if begins and not _looks_like_sql(head[:begins]):
        text_before = head[:begins].decode("utf-8", "replace").strip().splitlines()
        raise DumpError(
            f"{name} has something else before the dump: {(text_before or [''])[0].strip()[:80]!r}.", hint=_AGAIN
        )
    if _looks_like_sql(head.removeprefix(_BYTE_ORDER_MARK)):
        return Kind.PLAIN
    raise DumpError(f"{name} is not a PostgreSQL dump.", hint="A dump is made by: docker chap backup, or by pg_dump.")


def _begins_at(head: bytes) -> int:
    # The offset of a dump that has something before it, 0 when nothing is before it or there is no dump.
    if (archive := head.find(b"PGDMP")) > 0:
        return archive
    text = _HEADER.search(head)
    # Before the header there is a comment line, and maybe psql's \restrict.
    return text.start() if text and not _looks_like_sql(head.removeprefix(_BYTE_ORDER_MARK)) else 0


def _check_line_ends(head: bytes, name: str) -> None:
    """Raise DumpError for an archive in which a terminal turned every LF into CR LF."""
    ends = head.count(b"\n")
    if ends >= _SOME and head.count(b"\r\n") == ends:
        raise DumpError(
            f"{name} was damaged when it was made: a terminal changed its line ends (docker exec -t does that).",
            hint="Make it again without a terminal: docker compose exec -T ... pg_dump -Fc ... > chap_core.dump",
        )


# With this many line feeds, it is no chance that all follow a carriage return.
_SOME = 4


def _looks_like_sql(head: bytes) -> bool:
    if b"\0" in head:
        return False
    for line in head.decode("utf-8", "replace").splitlines():
        text = line.strip()
        if text.startswith(("-- PostgreSQL database dump", "-- PostgreSQL database cluster dump")):
            return True
        if text and not text.startswith(("--", "\\restrict ")):
            return bool(re.match(r"(SET|SELECT|CREATE|BEGIN|COPY|INSERT|ALTER|DROP|START|DO|TRUNCATE)\b", text, re.I))
    return False


def server_major(head: bytes) -> int:
    """Return the major version of the server that a plain dump was made from, 0 when its first lines do not say."""
    match = re.search(rb"^-- Dumped from database version (\d+)", head, re.M)
    return int(match[1]) if match else 0


def contents(listing: str) -> Contents:
    """Parse the output of `pg_restore --list`."""
    facts = dict(re.findall(r"^;\s+(dbname|Dumped from database version): (.*)$", listing, re.M))
    entries = tuple(_entry(line) for line in listing.split("\n") if _ENTRY.match(line))
    return Contents(facts.get("Dumped from database version", ""), entries)


def _entry(line: str) -> TocEntry:
    match = _ENTRY.match(line)
    assert match
    rest = match[2]
    for known in _KINDS:
        if rest.startswith(known + " "):
            return TocEntry(int(match[1]), known, rest[len(known) + 1 :], line)
    return TocEntry(int(match[1]), rest.split(" ")[0], rest, line)
