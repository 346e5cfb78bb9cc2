"""What psql writes when a plain dump fails somewhere, and which of it does not touch the data. Pure.

psql has to run with its messages in English, `-b` and `VERBOSITY=verbose`: it writes each error with the statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

DEFAULT_PRIVILEGES, SOME_PRIVILEGES = "default privileges", "some privileges"

_LONGEST = 64 << 10
_ERROR = re.compile(r"(?:ERROR|FATAL|PANIC):  \w{5}: (.*)")
_STATEMENT = "STATEMENT:  "
# Commands to psql itself that an old psql does not know, and that do nothing to the data.
_UNKNOWN_COMMAND = re.compile(r"invalid command \\(un)?restrict")
_PSQL_FAILED = re.compile(
    r"psql: |error: |\\connect: |invalid command |connection to server|You are currently not", re.I
)
_PRIVILEGE = re.compile(r"(GRANT|REVOKE|ALTER DEFAULT PRIVILEGES)\b", re.I)
# Owners, settings and clean-up of a dump may name roles, parameters and objects that are not there. Databases and
# roles of the server that was dumped are not wanted.
_HARMLESS = re.compile(
    r"(ALTER .* OWNER TO|SET|RESET|DROP|SECURITY LABEL|(CREATE|ALTER) (DATABASE|ROLE|USER|GROUP|TABLESPACE)"
    r"|COMMENT ON (EXTENSION|SCHEMA|DATABASE|ROLE)|CREATE SCHEMA (IF NOT EXISTS )?\"?public(?=[\";])"
    r"|CREATE EXTENSION (IF NOT EXISTS )?\"?plpgsql\"?"
    r"|ALTER TABLE .* (DROP CONSTRAINT|ALTER COLUMN .* DROP (DEFAULT|NOT NULL|IDENTITY)))\b",
    re.I | re.DOTALL,
)
_ROLE = re.compile(r'role "(.*)" does not exist')


class Reader:
    """Reads what psql writes, line by line.

    `failure` is the first error that does touch the data, `left_out` the privileges that were not given, for people.
    """

    def __init__(self) -> None:
        self.failure = ""
        self.left_out: set[str] = set()
        self._message = ""
        self._in_statement = False

    def read(self, line: str) -> None:
        """Take a line."""
        if self._in_statement:
            # Comments may stand before the statement. What it does is in its first line.
            if line.strip() and not line.startswith("--"):
                self._judge(line.strip())
        elif match := _ERROR.match(line):
            self.end()
            self._message = match[1]
        elif self._message and line.startswith(_STATEMENT):
            self._in_statement = True
            self.read(line.removeprefix(_STATEMENT))
        elif _PSQL_FAILED.match(line) and not _UNKNOWN_COMMAND.search(line):
            self._fail(line)

    def end(self) -> None:
        """Take the end of what psql writes: an error without its statement is one."""
        if self._message:
            self._fail(self._message)
            self._message = ""

    def _judge(self, statement: str) -> None:
        message, self._message, self._in_statement = self._message, "", False
        if _PRIVILEGE.match(statement):
            self.left_out.add(privileges_of(message))
        elif not _HARMLESS.match(statement):
            self._fail(message)

    def _fail(self, message: str) -> None:
        self.failure = self.failure or message


def privileges_of(message: str) -> str:
    """Return what to call privileges that were not given, by the error that says why."""
    match = _ROLE.search(message)
    return f"privileges of the role {match[1]}" if match else SOME_PRIVILEGES


def lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of a stream, cut where they are longer than a message is."""
    held = b""
    for data in pieces:
        *whole, held = (held + data).split(b"\n")
        yield from (line[:_LONGEST].decode(errors="replace") for line in whole)
        held = held[:_LONGEST]
    if held:
        yield held.decode(errors="replace")
