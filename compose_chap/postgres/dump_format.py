"""What kind of dump a file is, by its content, and whether it does what no dump of CHAP does. Pure.

A dump is a program: whoever restores it runs it. CHAP's dumps hold tables, their rows and what belongs to
them; anything that can run code later, or elsewhere, has no place in one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from compose_chap.errors import DumpError


class Kind(Enum):
    """The formats that pg_dump writes."""

    CUSTOM = "custom"
    TAR = "tar"
    DIRECTORY = "directory"
    PLAIN = "plain"


class Packing(Enum):
    """How a dump was compressed as a whole, after pg_dump."""

    NONE = ""
    GZIP = "gzip"
    ZSTD = "zstd"


# What `pg_restore --list` calls the entries that a database of CHAP has.
_ALLOWED = (
    "ACL",
    "CHECK CONSTRAINT",
    "COMMENT",
    "CONSTRAINT",
    "DEFAULT",
    "DEFAULT ACL",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "SCHEMA",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "STATISTICS DATA",
    "TABLE",
    "TABLE ATTACH",
    "TABLE DATA",
    "TYPE",
)

# What old or selective dumps hold too, and every server has: kind and name.
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
        *("FOREIGN SERVER", "FOREIGN TABLE", "FUNCTION", "LARGE OBJECT", "MATERIALIZED VIEW", "OPERATOR"),
        *("MATERIALIZED VIEW DATA", "OPERATOR CLASS", "OPERATOR FAMILY", "POLICY", "PROCEDURAL LANGUAGE", "PROCEDURE"),
        *("PUBLICATION", "PUBLICATION TABLE", "ROW SECURITY", "RULE", "SECURITY LABEL", "SERVER", "SHELL TYPE"),
        *("STATISTICS", "SUBSCRIPTION", "TEXT SEARCH CONFIGURATION", "TEXT SEARCH DICTIONARY", "TRANSFORM"),
        *("TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE", "TRIGGER", "USER MAPPING", "VIEW"),
    ),
    key=len,
    reverse=True,
)

# What only a superuser may make. The one who restores a dump is none, trusted or not.
_BEYOND_TRUST = (
    *("ACCESS METHOD", "EVENT TRIGGER", "FOREIGN DATA WRAPPER", "OPERATOR CLASS", "OPERATOR FAMILY"),
    *("PROCEDURAL LANGUAGE", "SECURITY LABEL", "SHELL TYPE", "SUBSCRIPTION", "TEXT SEARCH PARSER"),
    *("TEXT SEARCH TEMPLATE", "UNTRUSTED"),
)


def is_beyond_trust(name: str) -> bool:
    """Whether something, called by its kind and name, can be restored by a superuser only."""
    return name.startswith(tuple(f"{kind} " for kind in _BEYOND_TRUST))


_ENTRY = re.compile(r"^(\d+); \d+ \d+ (.*)$")


@dataclass(frozen=True)
class Entry:
    """A line of an archive's table of contents: its number, kind, and the rest (schema, name, owner)."""

    number: int
    kind: str
    rest: str
    line: str

    @property
    def called(self) -> str:
        """Its kind and the rest, as people read it."""
        return f"{self.kind} {self.rest}"

    @property
    def name(self) -> str:
        """The name of what lies in no schema: an extension, a schema."""
        return self.rest.removeprefix("- ").partition(" ")[0]

    @property
    def belongs_to_server(self) -> bool:
        """Whether every server has it already, and its owner is the administrator: PL/pgSQL, the schema public."""
        # An owner follows, or nothing.
        return any(self.kind == kind and f"{self.rest} ".startswith(f"{name} ") for kind, name in _OF_SERVER)


@dataclass(frozen=True)
class Contents:
    """What `pg_restore --list` says of an archive."""

    database: str
    server: str
    entries: tuple[Entry, ...]

    @property
    def server_major(self) -> int:
        """The major version of the server that was dumped, 0 when it does not say."""
        match = re.match(r"\d+", self.server)
        return int(match[0]) if match else 0

    def foreign(self) -> list[Entry]:
        """Return the entries that no dump of CHAP has."""
        return [entry for entry in self.entries if entry.kind not in _ALLOWED and not entry.belongs_to_server]

    def beyond_trust(self) -> list[Entry]:
        """Return the entries that only a superuser can restore."""
        return [entry for entry in self.entries if is_beyond_trust(entry.called) and not entry.belongs_to_server]

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
        """Whether it says which privileges later tables get. Only the role that makes those tables can say so."""
        return any(entry.kind == "DEFAULT ACL" for entry in self.entries)


# All that is read of a dump at a time is a line. What PostgreSQL itself can hold of one is not much more.
_LONGEST_LINE = 256 << 20


def blocks(size: int) -> str:
    """Return a size in bytes as a shell's `ulimit -f` wants it, in POSIX blocks."""
    return str(max(size, 0) // 512)


def check_line(length: int) -> None:
    """Raise DumpError for a line that no dump has, before it fills the memory."""
    if length > _LONGEST_LINE:
        raise DumpError("The dump has a line that is longer than any that PostgreSQL writes.")


def packing(head: bytes) -> Packing:
    """Return how a file is compressed, by its first bytes."""
    if head.startswith(b"\x1f\x8b"):
        return Packing.GZIP
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return Packing.ZSTD
    return Packing.NONE


def kind(head: bytes, name: str) -> Kind:
    """Return the format of a dump by its first bytes (at least 512 of them). Raise DumpError for no dump at all."""
    if not head:
        raise DumpError(f"{name} is empty.", hint="The command that made it failed. Use another dump.")
    if head.startswith(b"PGDMP"):
        return Kind.CUSTOM
    if head[257:262] == b"ustar" and head.startswith((b"toc.dat\0", b"./toc.dat\0")):
        return Kind.TAR
    if b"-- PostgreSQL database cluster dump" in head.splitlines():
        raise DumpError(
            f"{name} is a dump of a whole server, made by pg_dumpall.",
            hint="A dump of CHAP's database alone is needed. On that server: pg_dump -Fc chap_core > chap_core.dump",
        )
    if _looks_like_sql(head):
        return Kind.PLAIN
    raise DumpError(f"{name} is not a PostgreSQL dump.", hint="A dump is made by: docker chap backup, or by pg_dump.")


def _looks_like_sql(head: bytes) -> bool:
    if b"\0" in head:
        return False
    for line in head.decode("utf-8", "replace").splitlines():
        text = line.strip()
        if text.startswith("-- PostgreSQL database dump"):
            return True
        if text and not text.startswith(("--", "\\restrict ")):
            return bool(re.match(r"(SET|SELECT|CREATE|BEGIN|COPY|INSERT|ALTER|DROP)\b", text))
    return False


def contents(listing: str) -> Contents:
    """Parse what `pg_restore --list` printed."""
    facts = dict(re.findall(r"^;\s+(dbname|Dumped from database version): (.*)$", listing, re.M))
    entries = tuple(_entry(line) for line in listing.splitlines() if _ENTRY.match(line))
    return Contents(facts.get("dbname", ""), facts.get("Dumped from database version", ""), entries)


def _entry(line: str) -> Entry:
    match = _ENTRY.match(line)
    assert match
    rest = match[2]
    for known in _KINDS:
        if rest.startswith(known + " "):
            return Entry(int(match[1]), known, rest[len(known) + 1 :], line)
    return Entry(int(match[1]), rest.split(" ")[0], rest, line)
