"""Plain SQL as pg_dump writes it, read line by line, and refused where it is anything else. Pure.

psql runs it, and to psql a backslash outside of quotes is a command: a shell, a file, another database. So it
must be known at every character what psql takes it for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from compose_chap.errors import DumpError
from compose_chap.postgres.server import literal

# The lines that pg_dump writes and that a role without power cannot run. They do not touch the data: the tool
# gives the database its owner and privileges itself.
_SKIPPED = re.compile(
    r"^(ALTER [A-Z ]+ .* OWNER TO .*;|ALTER DEFAULT PRIVILEGES .*;|COMMENT ON (EXTENSION|SCHEMA) .*;"
    r"|SET (SESSION AUTHORIZATION|transaction_timeout|default_table_access_method|default_tablespace) .*;"
    r"|CREATE EXTENSION IF NOT EXISTS plpgsql WITH SCHEMA pg_catalog;|CREATE SCHEMA public;"
    # With --create and --clean: the side database is new, and has another name.
    r"|(CREATE|ALTER|DROP) DATABASE .*;|COMMENT ON DATABASE .*;)$"
)
_PRIVILEGE = re.compile(r"^(GRANT|REVOKE) .*;$")
DEFAULT_PRIVILEGES, SOME_PRIVILEGES = "default privileges", "some privileges"
# With --clean, before the first table: there is nothing to drop in a new database.
_CLEANING = re.compile(r"^(DROP [A-Z]+ .*|ALTER TABLE .* (DROP CONSTRAINT .*|ALTER COLUMN .* DROP DEFAULT));$")
# What pg_dump begins a statement with, and the settings that it makes. Others could change how psql reads the rest.
_FIRST_WORDS = ("alter", "comment", "copy", "create", "drop", "grant", "insert", "revoke", "select", "set")
_SETTING = re.compile(
    r"^SET ((statement|lock|idle_in_transaction_session|transaction)_timeout = 0|standard_conforming_strings = on"
    r"|client_encoding = '(UTF8|SQL_ASCII|LATIN\d+)'|check_function_bodies = (false|off)|xmloption = content"
    r"|client_min_messages = warning|row_security = off|default_tablespace = ''|default_table_access_method = heap"
    r"|default_with_oids = false|escape_string_warning = off|search_path = [\w, ]+);$"
)
_LOOKED_AT = re.compile(r"(set|select)\b", re.I)
_QUESTION = re.compile(
    r"^SELECT pg_catalog\.(set_config\('search_path', '', false\)|setval\('[^']*', \d+, (true|false)\));$"
)
# Functions that run text as SQL or change settings, and the ways to spell a name so that it is not recognised.
_EXECUTES = re.compile(r"set_config|_to_xml|ts_stat|ts_rewrite|pg_settings|dblink|[uU]&['\"]|\0", re.I)
_NAME = r'([\w$]+|"[^"]+")'
_COPY = re.compile(rf"^COPY {_NAME}(\.{_NAME})?( \({_NAME}(, {_NAME})*\))? FROM stdin;$")
_PSQL_OWN = re.compile(r"^\\(restrict|unrestrict) [A-Za-z0-9]+$")
# With --create. It is left out: the side database stays the only one that is written to.
_CONNECT = re.compile(rf"^\\connect ({_NAME}|-reuse-previous=on \"dbname='[^']*'\")$")
_VERSION = re.compile(r"^-- Dumped from database version (\d+)")
_HEADER, _FOOTER = "-- PostgreSQL database dump", "-- PostgreSQL database dump complete"


def server_major(head: bytes) -> int:
    """Return the major version of the server that a plain dump was made of, 0 when its first lines do not say."""
    found = (_VERSION.match(line) for line in head.decode("utf-8", "replace").splitlines())
    return next((int(match[1]) for match in found if match), 0)


def harmless_sql(lines: Iterable[bytes], left_out: set[str], *, trust: bool = False) -> Iterator[bytes]:
    """Yield the lines of a plain dump that a role without power can run, those of privileges so that they may fail.

    Owners are left out. What else is, and matters to somebody, is named in `left_out`.

    Raise DumpError at the first command to psql itself (`\\!`, `\\connect`, `\\copy` and the like), which would
    run outside the database, and at the end of a dump that was cut off. `trust` lets commands pass, and
    leaves out only the lines that need another role or database.
    """
    copying = begun = ended = connected = made = False
    scanner = _Scanner()
    number = 0

    for number, raw in enumerate(lines, 1):
        if copying:
            copying = raw.rstrip(b"\r\n") != b"\\."
            yield raw
            continue
        line = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
        fresh = scanner.between_statements

        if fresh:
            begun, ended = begun or line == _HEADER, ended or line == _FOOTER
            made = made or line.startswith("CREATE TABLE ")
            if not connected and _CONNECT.match(line):
                connected = True
                continue
            # Only a line that is one statement, and no more, is left out.
            if _PSQL_OWN.match(line) or (
                (_SKIPPED.match(line) or (not made and _CLEANING.match(line))) and _Scanner().one_statement(line)
            ):
                if line.startswith("ALTER DEFAULT PRIVILEGES "):
                    left_out.add(DEFAULT_PRIVILEGES)
                continue
            if _PRIVILEGE.match(line) and _Scanner().one_statement(line):
                if "\\" in line:
                    left_out.add(SOME_PRIVILEGES)
                else:
                    yield _if_it_fits(line)
                continue
        refused = scanner.refuses(line) or (not _QUESTION.match(line) and bool(_EXECUTES.search(line)))
        if fresh and _LOOKED_AT.match(line):
            refused = refused or not (_SETTING.match(line) or _QUESTION.match(line))
        if refused and not trust:
            raise DumpError(
                f"Line {number} of the dump holds what pg_dump does not write for CHAP: {line.strip()[:60]!r}.",
                state="Nothing was changed.",
                hint="It may be a command to psql itself. If you know where the dump comes from: --trust",
            )
        copying = fresh and bool(_COPY.match(line))
        yield raw

    if copying or (begun and not ended):
        raise DumpError(f"The dump is cut off: it ends at line {number}.")


def _if_it_fits(privilege: str) -> bytes:
    # It may name roles that this server does not have. The data are whole without it.
    body = f"BEGIN EXECUTE {literal(privilege)}; EXCEPTION WHEN OTHERS THEN NULL; END"
    return f"DO {literal(body)};\n".encode("utf-8", "surrogateescape")


# A word as psql reads it: what follows a digit or a letter belongs to it, so a quote or dollar inside begins nothing.
_WORD = re.compile(r"[\w$\udc80-\udcff]+")
_STRING_PREFIXES = ("", "e", "b", "x", "n")


class _Scanner:
    """Reads SQL as psql does, line by line, to know where a backslash would be a command to psql.

    Where it could read otherwise than psql (dollar quotes, functions with a body of statements, quotes that
    follow a word), it refuses: pg_dump writes none of that for a database of CHAP.
    """

    def __init__(self) -> None:
        self._end = ""
        self._comments = 0
        self._parentheses = 0
        self._words: list[str] = []
        self._empty = True
        self._at_start = True
        self._statements = 0

    @property
    def between_statements(self) -> bool:
        """Whether the line that comes begins outside of quotes, comments and statements."""
        return not self._end and self._empty

    def one_statement(self, line: str) -> bool:
        """Whether a line is one statement, with nothing behind it."""
        return not self.refuses(line) and self._statements == 1 and self.between_statements

    def refuses(self, line: str) -> bool:
        """Take one line, and return whether it holds what is refused."""
        at, refused = 0, False
        # SET and SELECT are looked at as whole lines, so they must begin one.
        self._at_start = not self._end and self._empty and line[:1].isalpha()

        while at < len(line):
            rest = line[at:]
            if self._end:
                at += self._inside(rest)
            elif rest.startswith("--"):
                break
            elif rest.startswith("/*"):
                self._end, self._comments, at = "*/", 1, at + 2
            elif match := _WORD.match(rest):
                refused = self._word(match[0], rest[match.end() :]) or refused
                at += match.end()
            elif rest[0] in "'\"":
                self._end, self._empty, at = rest[0], False, at + 1
            else:
                refused = refused or rest[0] == "\\"
                self._sign(rest[0])
                at += 1
        return refused

    def _word(self, word: str, behind: str) -> bool:
        """Take a word and return whether it is refused; a string may begin behind it."""
        self._empty = False
        self._words = [*self._words, word.lower()][:4]
        if behind.startswith("'"):
            if word.lower() not in _STRING_PREFIXES:
                return True
            # Only behind an E does a backslash mean something inside.
            return word.lower() == "e"
        defines = self._words[0] == "create" and {"function", "procedure"} & set(self._words)
        if self._words[0] not in _FIRST_WORDS or (self._words[0] in ("set", "select") and not self._at_start):
            return True
        return word.startswith("$") or bool(re.match(r"\d+\$", word)) or bool(defines)

    def _sign(self, sign: str) -> None:
        if sign == "(":
            self._parentheses += 1
        elif sign == ")":
            self._parentheses = max(self._parentheses - 1, 0)
        elif sign == ";" and not self._parentheses:
            self._words, self._empty, self._at_start = [], True, False
            self._statements += 1
            return
        self._empty = self._empty and sign.isspace()

    def _inside(self, rest: str) -> int:
        """Return how many characters to go on inside a quote or comment; its end is taken note of."""
        if self._end == "*/":
            if rest.startswith(("/*", "*/")):
                self._comments += 1 if rest[0] == "/" else -1
                self._end = "*/" if self._comments else ""
                return 2
            nearest = [place for place in (rest.find("/*", 1), rest.find("*/", 1)) if place > 0]
            return min(nearest, default=len(rest))
        end = rest.find(self._end)
        if end < 0:
            return len(rest)
        self._end = ""
        return end + 1
