"""The errors of psql when it loads a plain dump, and which of them do not affect the data. Pure.

psql must run with messages in English, `-b` and `VERBOSITY=verbose`, so that it writes each error with its statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

DEFAULT_PRIVILEGES, SOME_PRIVILEGES = "default privileges", "some privileges"

_LONGEST = 64 << 10
# Enough to see what a statement does; the longest name has 63 bytes.
_LONGEST_BEGINNING = 1000
# A dump may name any number of roles.
_MOST_LEFT_OUT = 50
_ERROR = re.compile(r"(?:ERROR|FATAL|PANIC):  \w{5}: (.*)")
_STATEMENT = "STATEMENT:  "
# Commands that an old psql does not know, and that do not affect the data.
_UNKNOWN_COMMAND = re.compile(r"invalid command \\(un)?restrict")
_PSQL_FAILED = re.compile(
    r"psql: |error: |\\connect: |invalid command |connection to server|You are currently not", re.I
)
_PRIVILEGE = re.compile(r"(GRANT|REVOKE|ALTER DEFAULT PRIVILEGES)\b", re.I)
# Statements for owners, settings and clean-up may name roles, parameters and objects that do not exist here.
# Databases and roles of the dumped server are not wanted.
_HARMLESS = re.compile(
    r"(ALTER .* OWNER TO|SET|RESET|DROP|SECURITY LABEL|(CREATE|ALTER) (DATABASE|ROLE|USER|GROUP|TABLESPACE)"
    r"|COMMENT ON (EXTENSION|SCHEMA|DATABASE|ROLE)|CREATE SCHEMA (IF NOT EXISTS )?\"?public(?=[\";])"
    r"|CREATE EXTENSION (IF NOT EXISTS )?\"?plpgsql\"?"
    r"|ALTER TABLE .* (DROP CONSTRAINT|ALTER COLUMN .* DROP (DEFAULT|NOT NULL|IDENTITY)))\b",
    re.I | re.DOTALL,
)
_ROLE = re.compile(r'role "(.*)" does not exist')


class Reader:
    """Reads the output of psql, line by line.

    `failure` is the first error that affects the data, `left_out` are the privileges that were not granted, for people.
    """

    def __init__(self) -> None:
        self.failure = ""
        self.left_out: set[str] = set()
        self._message = ""
        self._in_statement = False

    def read(self, line: str) -> None:
        """Take a line."""
        if self._in_statement:
            # Comments may come before the statement. Its first line says what it does.
            if line.strip() and not line.startswith("--"):
                self._classify(line.strip()[:_LONGEST_BEGINNING])
        elif match := _ERROR.match(line):
            self.end()
            self._message = match[1]
        elif self._message and line.startswith(_STATEMENT):
            self._in_statement = True
            self.read(line.removeprefix(_STATEMENT))
        elif _PSQL_FAILED.match(line) and not _UNKNOWN_COMMAND.search(line):
            self._fail(line)

    def end(self) -> None:
        """Finish reading: an error without a statement counts as a failure."""
        if self._message:
            self._fail(self._message)
            self._message = ""

    def _classify(self, statement: str) -> None:
        message, self._message, self._in_statement = self._message, "", False
        if _PRIVILEGE.match(statement):
            self.left_out.add(privileges_of(message) if len(self.left_out) < _MOST_LEFT_OUT else SOME_PRIVILEGES)
        elif not _HARMLESS.match(statement):
            self._fail(message)

    def _fail(self, message: str) -> None:
        self.failure = self.failure or message


def privileges_of(message: str) -> str:
    """Return the name for privileges that were not granted, from the error message."""
    match = _ROLE.search(message)
    return f"privileges of the role {match[1]}" if match else SOME_PRIVILEGES


def lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of a stream; very long lines are cut."""
    rest = b""
    for data in pieces:
        *complete, rest = (rest + data).split(b"\n")
        yield from (line[:_LONGEST].decode(errors="replace") for line in complete)
        rest = rest[:_LONGEST]
    if rest:
        yield rest.decode(errors="replace")
