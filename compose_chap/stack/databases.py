"""CHAP's PostgreSQL server and its database, as the stack's own settings name them."""

from __future__ import annotations

from compose_chap.engine.engine import Engine
from compose_chap.errors import DatabaseError, StackError
from compose_chap.model import DatabaseAccess, Stack
from compose_chap.postgres.server import Database, Server


def server_of(engine: Engine, stack: Stack) -> Server:
    """Return the stack's PostgreSQL server. Raise StackError when its container does not run."""
    container = stack.database.containers[0]
    if not container.running:
        raise StackError(
            f"The database container {container.name} is not running (it is {container.state}).",
            state="Nothing was changed.",
            hint=f"Start it: docker start {container.name}",
        )
    return Server(engine, container.id, stack.access.admin, stack.access.owner)


def refuse_irreversible(server: Server, live: str) -> None:
    """Raise DatabaseError when databases could not be renamed on this server, so that nothing could be undone."""
    if not server.superuser:
        raise DatabaseError(
            f"This tool needs a superuser of PostgreSQL, and '{server.admin}' is not one. It could neither end sessions"
            " nor rename a database, so nothing could be undone.",
            state="Nothing was changed.",
            hint="Give the database's container the name of its administrator in POSTGRES_USER, and the password in"
            " POSTGRES_PASSWORD, or let its socket be trusted in pg_hba.conf.",
        )
    if prepared := server.prepared_transactions(live):
        raise DatabaseError(
            f"Prepared transactions hold the database '{live}': {', '.join(prepared)}. It can be neither copied nor"
            " given another name while they last.",
            state="Nothing was changed.",
            hint="End each of them, in that database: COMMIT PREPARED 'NAME'; or ROLLBACK PREPARED 'NAME';",
        )


def database_of(server: Server, access: DatabaseAccess) -> Database:
    """Return CHAP's database. Raise DatabaseError when the server does not have it."""
    return database_named(server, access.name)


def database_named(server: Server, name: str) -> Database:
    """Return a database of the server. Raise DatabaseError when the server does not have it."""
    databases = server.databases()
    if name not in databases:
        raise DatabaseError(
            f"The server has no database '{name}'. It has: {', '.join(databases) or 'none'}.",
            hint="CHAP names its database at the end of CHAP_DATABASE_URL: see whether that is right.",
        )
    return databases[name]
