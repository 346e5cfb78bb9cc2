"""What kind of dump a file is, by its content, and whether it does what no dump of CHAP does. Pure.

A dump is a program: whoever restores it runs it. CHAP's dumps hold tables, their rows and what belongs to
them; anything that can run code later, or elsewhere, has no place in one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
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

_ENTRY = re.compile(r"^(\d+); \d+ \d+ (.*)$")


@dataclass(frozen=True)
class Entry:
    """A line of an archive's table of contents: its number, kind, and the rest (schema, name, owner)."""

    number: int
    kind: str
    rest: str
    line: str


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
        return [entry for entry in self.entries if entry.kind not in _ALLOWED]

    def without_privileges(self) -> str:
        """Return a list for `pg_restore --use-list` of all entries but privileges, which may name unknown roles."""
        return "".join(entry.line + "\n" for entry in self.entries if entry.kind not in ("ACL", "DEFAULT ACL"))

    def privileges(self) -> str:
        """Return a list for `pg_restore --use-list` of the privileges alone, empty when there are none."""
        return "".join(entry.line + "\n" for entry in self.entries if entry.kind == "ACL")


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
        if text and not text.startswith(("--", "\\restrict")):
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


# The lines that pg_dump writes and that a role without power cannot run. They do not touch the data: the tool
# gives the database its owner and privileges itself.
_SKIPPED = re.compile(
    r"^(ALTER [A-Z ]+ .* OWNER TO .*;|(GRANT|REVOKE) .*;|ALTER DEFAULT PRIVILEGES .*;|COMMENT ON (EXTENSION|SCHEMA) .*;"
    r"|SET (SESSION AUTHORIZATION|transaction_timeout|default_table_access_method|default_tablespace) .*;"
    r"|CREATE SCHEMA public;|SELECT pg_catalog\.set_config\('search_path', '', false\);)$"
)
# With this off a quote ends elsewhere, and what looks like text could be a command.
_OTHER_STRINGS = re.compile(r"standard_conforming_strings(?! = on;$)", re.I)
_COPY = re.compile(r"^COPY .* FROM stdin;$", re.I)
_PSQL_OWN = re.compile(r"^\\(restrict|unrestrict) [A-Za-z0-9]+$")


def harmless_sql(lines: Iterable[bytes], *, trust: bool = False) -> Iterator[bytes]:
    """Yield the lines of a plain dump that a role without power can run; owners and privileges are left out.

    Raise DumpError at the first command to psql itself (`\\!`, `\\connect`, `\\copy` and the like), which would
    run outside the database. `trust` lets everything pass but the lines that need another role.
    """
    copying = False
    quotes = _Quotes()

    for number, raw in enumerate(lines, 1):
        if copying:
            copying = raw.rstrip(b"\r\n") != b"\\."
            yield raw
            continue
        line = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")

        if quotes.outside and _PSQL_OWN.match(line):
            continue
        if quotes.outside and _SKIPPED.match(line):
            # An own search path is kept: names in a dump are qualified, and the side database is new.
            if "search_path" in line:
                yield raw
            continue
        refused = quotes.commands(line) or _OTHER_STRINGS.search(line)
        if refused and not trust:
            raise DumpError(
                f"Line {number} of the dump has a command for psql itself: {line.strip()[:60]!r}.",
                state="Nothing was changed.",
                hint="No dump of CHAP needs one. If you know where it comes from: --trust",
            )
        copying = quotes.outside and bool(_COPY.match(line))
        yield raw


class _Quotes:
    """Follows SQL's quotes and comments over lines, to know where a backslash is a command to psql."""

    def __init__(self) -> None:
        self._end = ""
        self._depth = 0

    @property
    def outside(self) -> bool:
        """Whether the line that comes begins outside of quotes and comments."""
        return not self._end

    def commands(self, line: str) -> bool:
        """Take one line, and return whether it has a backslash outside of quotes and comments."""
        at, found = 0, False

        while at < len(line):
            rest = line[at:]
            if self._end:
                at += self._inside(rest)
            elif rest.startswith("--"):
                break
            elif rest.startswith("/*"):
                self._end, self._depth, at = "*/", 1, at + 2
            elif rest[0] in "'\"":
                escaped = rest[0] == "'" and at > 0 and line[at - 1] in "eE"
                self._end, at = ("e'" if escaped else rest[0]), at + 1
            elif match := re.match(r"\$([A-Za-z_][A-Za-z_0-9]*)?\$", rest):
                self._end, at = match[0], at + len(match[0])
            else:
                found = found or rest[0] == "\\"
                at += 1
        return found

    def _inside(self, rest: str) -> int:
        """Return how many characters to go on; the end of the quote is taken note of."""
        if self._end == "*/":
            if rest.startswith(("/*", "*/")):
                self._depth += 1 if rest[0] == "/" else -1
                self._end = "*/" if self._depth else ""
                return 2
            return 1
        if self._end == "e'":
            if rest[0] == "\\":
                return 2
            if rest[0] == "'":
                self._end = ""
            return 1
        if rest.startswith(self._end):
            length, self._end = len(self._end), ""
            return length
        return 1
