"""How PostgreSQL's tools in the container connect to the server there, however it is configured.

Nothing is guessed that can be asked. The server itself writes down on which port and socket it listens. Its
administrator is a superuser: first the names from the image's configuration are tried, in the ways that images
have, then those that the server lists. Settings that a database, a role or the server's configuration file makes for
every session do not apply to ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from compose_chap.engine.engine import Engine
from compose_chap.errors import DatabaseError
from compose_chap.processes.process import Finished

STANDARD_PORT = 5432

# The application name of our sessions, by which a later run ends those that a killed run left behind.
APPLICATION = "docker-chap"

# An official image trusts its local socket; where an operator changed that, the container has the password. The
# lines of postmaster.pid are: process, data folder, start time, port, socket folder, address. A user who may not
# read it uses the first socket there is.
WITH_PASSWORD = (
    *("sh", "-c"),
    f"export PGAPPNAME={APPLICATION} PGCLIENTENCODING=UTF8 PGCONNECT_TIMEOUT=60; "
    'pid="${PGDATA:-${POSTGRESQL_DATA_DIR:-/var/lib/postgresql/data}}/postmaster.pid"; '
    'if [ -r "$pid" ]; then { read -r _; read -r _; read -r _; read -r port; read -r at; read -r address; } < "$pid"; '
    '[ "$address" != "*" ] || address=; '
    '[ -z "$port" ] || export PGPORT="$port" PGHOST="${at:-${address:-localhost}}"; '
    'elif [ -z "${PGHOST-}" ]; then for at in /var/run/postgresql /tmp; do for port in "$at"/.s.PGSQL.*; do '
    'if [ -S "$port" ]; then export PGHOST="$at" PGPORT="${port##*.}"; break 2; fi; done; done; fi; '
    'for file in "${POSTGRESQL_POSTGRES_PASSWORD_FILE-}" "${POSTGRES_PASSWORD_FILE-}" "${POSTGRESQL_PASSWORD_FILE-}"; '
    'do if [ -r "$file" ]; then read -r secret < "$file" || :; break; fi; done; '
    "export PGPASSWORD="
    '"${PGPASSWORD-${POSTGRESQL_POSTGRES_PASSWORD-${POSTGRES_PASSWORD-${POSTGRESQL_PASSWORD-${secret-}}}}}"; '
    'exec "$@"',
    "sh",
)

_NAMED = (
    *("sh", "-c"),
    'if [ -r "${POSTGRES_USER_FILE-}" ]; then cat "$POSTGRES_USER_FILE"; fi; '
    'printf "\n%s\n" "${POSTGRES_USER-}" "${POSTGRESQL_USERNAME-}" "${PGUSER_SUPERUSER-}" "${PGUSER-}"',
    "sh",
)

_WHO = (
    "SELECT json_build_array(rolsuper, current_setting('server_version_num')::int, current_setting('port')::int,"
    " (SELECT json_agg(rolname ORDER BY oid) FROM pg_roles WHERE rolsuper AND rolcanlogin),"
    # Both are empty on a socket, and the same where a server is reached in its own container.
    " CASE WHEN inet_server_addr() IS DISTINCT FROM inet_client_addr() THEN host(inet_server_addr()) END)"
    " FROM pg_roles WHERE rolname = current_user;"
)

_NAME_THE_SERVER = "Let CHAP_DATABASE_URL name the PostgreSQL service itself, then recreate CHAP's API and worker."

# Set by a server, a database or a role, these could stop a long or writing session. Names resolve to PostgreSQL's
# own objects only, because the owner of a database may not be trusted.
_SETTINGS = (
    "-c search_path=pg_catalog -c role=none -c statement_timeout=0 -c lock_timeout=0"
    " -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off"
    r" -c default_transaction_isolation=read\ committed -c default_transaction_deferrable=off -c exit_on_error=off"
)
# An older server refuses a session with these.
_NEWER = ((140000, " -c idle_session_timeout=0"), (170000, " -c transaction_timeout=0"))


@dataclass(frozen=True)
class Administrator:
    """The role of the tools, a superuser where possible; the server's version, port, and a database to connect to."""

    name: str
    superuser: bool
    version: int
    port: int
    home: str


def session_settings(version: int = 0) -> str:
    """Return the settings of our sessions, for PGOPTIONS, on a server of this version (0 for any)."""
    return _SETTINGS + "".join(option for since, option in _NEWER if version >= since)


def connection(database: str) -> str:
    """Return the connection string for a database: a bare name with `=` in it would be read as settings."""
    return "dbname='" + database.replace("\\", "\\\\").replace("'", "\\'") + "'"


# As a person calls the tools


def inside(compose: Sequence[str], service: str, port: int) -> list[str]:
    """Return the words that lead a person into the container of a server, where a tool then reaches it."""
    where = [] if port == STANDARD_PORT else ["-e", f"PGPORT={port}"]
    return [*compose, "exec", "-T", *where, service]


def home_beside(live: str) -> str:
    """Return a database to connect to while the one called `live` is given another name."""
    return "template1" if live == "postgres" else "postgres"


def argument(database: str) -> str:
    """Return a database's name as a person gives it to -d: bare where that is not read as settings."""
    return database if re.fullmatch(r"\w[\w.-]*", database) else connection(database)


# Who to work as


def administrator(engine: Engine, container: str, likely: Sequence[str]) -> Administrator:
    """Return the role for a container's server, `likely` names first. Raise DatabaseError when none can connect."""
    best: Administrator | None = None
    failure: Finished | None = None
    waiting, tried = [*likely], set[str]()
    image_tried = False
    while waiting:
        name = waiting.pop(0)
        if name and name not in tried:
            tried.add(name)
            candidate, others, refused = _try_role(engine, container, name)
            if candidate and candidate.superuser:
                return candidate
            best, failure = best or candidate, failure or refused
            waiting += others
        if not waiting and not image_tried:
            image_tried = True
            waiting += [*engine.run(container, _NAMED).stdout.splitlines(), "postgres"]
    if best:
        return best
    assert failure
    raise _refusal(failure)


def _try_role(engine: Engine, container: str, name: str) -> tuple[Administrator | None, list[str], Finished | None]:
    """Try to connect as a role. Return it, the superusers that the server lists, and psql's result if it failed."""
    failure = None
    for home in ("postgres", "template1"):
        command = [*WITH_PASSWORD, "psql", "-XqAtw", "-v", "ON_ERROR_STOP=1", "-U", name, "-d", home]
        done = engine.run(container, command, stdin=_WHO.encode(), environment={"PGOPTIONS": session_settings()})
        if done.status == 0:
            superuser, version, port, others, elsewhere = json.loads(done.stdout)
            if elsewhere:
                raise _passed_on(f"it passes connections on to a server at {elsewhere}")
            return Administrator(name, superuser, version, port, home), list(others or ()), None
        failure = failure or done
    return None, [], failure


def _refusal(failure: Finished) -> DatabaseError:
    if failure.status in (126, 127):
        return DatabaseError(
            "The container where CHAP looks for its database has no PostgreSQL in it (no psql).",
            hint=f"If it is a proxy or pooler: {_NAME_THE_SERVER}",
        )
    # PgBouncer takes few settings, and says so in these words.
    if "unsupported startup parameter" in failure.stderr:
        return _passed_on(first_error(failure.stderr))
    # No server listens in that container.
    absent = "No such file or directory" in failure.stderr or "Connection refused" in failure.stderr
    hint = f"If it is still starting, wait. If it is a proxy or pooler: {_NAME_THE_SERVER}" if absent else ""
    return DatabaseError(f"PostgreSQL refused: {first_error(failure.stderr)}", hint=hint)


def _passed_on(why: str) -> DatabaseError:
    return DatabaseError(
        f"The container where CHAP looks for its database is a connection pooler or a proxy: {why}. Databases cannot"
        " be copied or renamed through it, as it holds sessions open.",
        state="Nothing was changed.",
        hint=_NAME_THE_SERVER,
    )


def first_error(stderr: str) -> str:
    """Return the line of a PostgreSQL tool's stderr that best says why it failed."""
    lines: Sequence[str] = [line for line in stderr.splitlines() if line.strip()]
    # A warning may mention errors too, as that of a collation's version does, and comes before the real one.
    relevant = [line for line in lines if not re.search(r"\b(WARNING|NOTICE|HINT|DETAIL):", line)]
    errors = [line for line in relevant if re.search(r"error|fatal|invalid|could not|not found", line, re.I)]
    return (errors or relevant or lines or ["it gave no reason"])[0]
