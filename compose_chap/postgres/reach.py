"""How PostgreSQL's tools reach the server beside them in its container, whatever stands in their way there.

Nothing is guessed that can be asked. The server itself writes down at which port and socket it listens. Its
administrator is who it says is a superuser: the name is tried that the image was given, in the ways that images
know, and then those that the server tells of. What a database, a role or the server's own file sets for every
session does not hold for ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from compose_chap.engine.engine import Engine
from compose_chap.engine.process import Finished
from compose_chap.errors import DatabaseError

# Our sessions have a name, by which a later run ends those that a killed one left.
APPLICATION = "docker-chap"

# An official image trusts its local socket; where an operator changed that, the container knows the password. The
# lines of the server's file are its process, its folder, when it started, its port, its socket's folder and its
# address. A user who may not read it goes by the sockets that are there.
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
    "SELECT json_build_array(rolsuper, current_setting('server_version_num')::int, (SELECT json_agg(rolname ORDER BY"
    " oid) FROM pg_roles WHERE rolsuper AND rolcanlogin)) FROM pg_roles WHERE rolname = current_user;"
)

# Set by a server's file, a database or a role, these end or hinder what takes its time or writes. Names are looked
# up where PostgreSQL's own are: the owner of a database may be nobody to trust.
_SETTINGS = (
    "-c search_path=pg_catalog -c role=none -c statement_timeout=0 -c lock_timeout=0"
    " -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off"
    r" -c default_transaction_isolation=read\ committed -c default_transaction_deferrable=off -c exit_on_error=off"
)
# An older server refuses a session that speaks of these.
_NEWER = ((140000, " -c idle_session_timeout=0"), (170000, " -c transaction_timeout=0"))


@dataclass(frozen=True)
class Administrator:
    """Whom the tools work as: a superuser, if there is one to be; the server's version, and a database to ask in."""

    name: str
    superuser: bool
    version: int
    home: str


def settings(version: int = 0) -> str:
    """Return what our sessions set for themselves in a server of this version (0 for any), for PGOPTIONS."""
    return _SETTINGS + "".join(option for since, option in _NEWER if version >= since)


def connection(database: str) -> str:
    """Return a database's name as every tool takes it: a bare one that holds `=` would be read as settings."""
    return "dbname='" + database.replace("\\", "\\\\").replace("'", "\\'") + "'"


def administrator(engine: Engine, container: str, likely: Sequence[str]) -> Administrator:
    """Return whom to work as in a container's server, `likely` names first. Raise DatabaseError when nobody gets in."""
    best: Administrator | None = None
    failure: Finished | None = None
    waiting, tried = [*likely], set[str]()
    asked_image = False
    while waiting:
        name = waiting.pop(0)
        if name and name not in tried:
            tried.add(name)
            found, others, said = _introduced(engine, container, name)
            if found and found.superuser:
                return found
            best, failure = best or found, failure or said
            waiting += others
        if not waiting and not asked_image:
            asked_image = True
            waiting += [*engine.run(container, _NAMED).stdout.splitlines(), "postgres"]
    if best:
        return best
    assert failure
    raise _refusal(failure)


def _introduced(engine: Engine, container: str, name: str) -> tuple[Administrator | None, list[str], Finished | None]:
    """Try to get in as a role. Return it, the superusers that the server tells of, and what psql did if it failed."""
    failure = None
    for home in ("postgres", "template1"):
        command = [*WITH_PASSWORD, "psql", "-XqAtw", "-v", "ON_ERROR_STOP=1", "-U", name, "-d", home]
        done = engine.run(container, command, stdin=_WHO.encode(), environment={"PGOPTIONS": settings()})
        if done.status == 0:
            superuser, version, others = json.loads(done.stdout)
            return Administrator(name, superuser, version, home), list(others or ()), None
        failure = failure or done
    return None, [], failure


def _refusal(failure: Finished) -> DatabaseError:
    if failure.status in (126, 127):
        return DatabaseError(
            "The container where CHAP looks for its database has no PostgreSQL in it (no psql).",
            hint="Is it a proxy or a pooler? Let CHAP_DATABASE_URL name the PostgreSQL service itself.",
        )
    return DatabaseError(f"PostgreSQL refused: {first_error(failure.stderr)}")


def first_error(stderr: str) -> str:
    """Return the line of what a tool of PostgreSQL wrote that says best why it failed."""
    lines: Sequence[str] = [line for line in stderr.splitlines() if line.strip()]
    # A warning may speak of errors too, as that of a collation's version does, and stands before the true one.
    told = [line for line in lines if not re.search(r"\b(WARNING|NOTICE|HINT|DETAIL):", line)]
    errors = [line for line in told if re.search(r"error|fatal|invalid|could not|not found", line, re.I)]
    return (errors or told or lines or ["it gave no reason"])[0]
