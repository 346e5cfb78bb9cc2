"""Convert a plain dump into an archive, in a jail: psql runs whatever the dump contains, and can start a shell.

The resulting archive is trusted no more than the dump: it is checked like any other.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain

from compose_chap import units
from compose_chap.engine.execution import Execution
from compose_chap.engine.world import World
from compose_chap.errors import DatabaseError, DumpError, EngineError
from compose_chap.postgres import pg_tools
from compose_chap.postgres.pg_tools import NOBODY
from compose_chap.postgres.reach import connection, first_error
from compose_chap.postgres.server import Database, Server, identifier
from compose_chap.postgres.untrusted import jail, script_errors, unexpected
from compose_chap.postgres.untrusted.sandbox import Quarantine

_ENDS = 4096
_MARK = b"\xef\xbb\xbf"
_ROLES = "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'"
_HAS_TABLES = "SELECT 1 FROM pg_class WHERE relkind IN ('r', 'p') AND oid >= 16384 LIMIT 1"
# A hostile dump may create any number.
_DATABASES = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1 LIMIT 100"


@dataclass(frozen=True)
class Loaded:
    """A plain dump loaded into a jail: its server, the database in it, and what was left out, for people."""

    server: Server
    database: str
    left_out: frozenset[str]


@dataclass(frozen=True)
class Archive:
    """An archive in custom format: its path in the quarantine, and what it lacks of the dump, for people."""

    path: str
    left_out: frozenset[str]


def archive(
    world: World,
    quarantine: Quarantine,
    pieces: Iterator[bytes],
    database: str,
    notify: Callable[[str, int], None],
    *,
    trust: bool,
) -> Archive:
    """Load plain SQL into a jail, check the result, and copy it as an archive into the quarantine.

    `database` is the live one; the jail gets its server's image, locale and role names, and nothing else. `notify`
    gets the current action and bytes. Raise DumpError for a damaged dump, or for one with unexpected objects unless it
    is trusted; DatabaseError when it needs more disk space or time than there is.
    """
    server = quarantine.server
    container = world.engine.container(server.container)
    if not container:
        raise DatabaseError("The database's container is gone.", hint="Run the command again.")
    databases = server.databases()
    like = databases.get(database) or server.databases(templates=True)["template1"]
    roles = [str(name) for (name,) in server.query(_ROLES)]
    with loaded(world, container.image_id, pieces, database, like, roles) as result:
        notify("out of the jail", 0)
        unexpected.refuse(unexpected.objects(result.server, result.database), trust=trust)
        return Archive(_bring_out(result.server, result.database, quarantine, notify), result.left_out)


@contextmanager
def loaded(
    world: World, image: str, pieces: Iterator[bytes], database: str, like: Database, roles: Sequence[str]
) -> Iterator[Loaded]:
    """Load plain SQL into a jail of an image, and yield the result while the block runs.

    `database` is the name that the dump's database is expected to have, and `like` has its locale; the jail gets
    `roles` by name. Raise DumpError for a damaged dump, or when the jailed server gives impossible answers.
    """
    try:
        with jail.server(world, image) as jailed:
            # Privileges in the dump name roles. The jail has these roles by name only; its own, it has already.
            jailed.command("\n".join(f"CREATE ROLE {identifier(name)};" for name in roles if name != jailed.admin))
            # A dump with CREATE DATABASE and \\connect works if its database has the name of the live one.
            jailed.drop(database)  # the live one may be called `postgres`, which every new server has
            jailed.create(database, replace(like, owner=jailed.admin))
            left_out = _load(jailed, database, _checked_to_the_end(pieces))
            yield Loaded(jailed, _database(jailed, database), frozenset(left_out))
    except (IndexError, TypeError, ValueError, RecursionError):
        # A hostile dump may control the jailed server by now, and make it answer anything.
        raise DumpError("The server in which the dump was loaded gave an impossible answer.") from None


def _checked_to_the_end(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a plain dump. Raise DumpError at the end unless it ends with pg_dump's last line."""
    head = tail = b""
    for data in pieces:
        # Remove the byte order mark of Windows, which psql may not understand.
        data = data if head else data.removeprefix(_MARK)
        head, tail = (head + data)[:_ENDS], (tail[-_ENDS:] + data)[-_ENDS:]
        yield data
    for kind in (b"cluster dump", b"dump"):
        if b"-- PostgreSQL database " + kind in head and b"-- PostgreSQL database " + kind + b" complete" not in tail:
            raise DumpError("The dump is cut off: its last line is missing.")


def _load(jailed: Server, database: str, pieces: Iterator[bytes]) -> set[str]:
    """Run a plain dump in the jail, and return the privileges that it could not grant. Raise DumpError if it fails."""
    end = secrets.token_hex(16)
    reader = script_errors.Reader()
    psql = ["psql", "-XqAtb", "-v", "VERBOSITY=verbose", "-U", jailed.admin, "-d", connection(database)]
    command = ["sh", "-c", 'exec "$@" 2>&1', "sh", *psql]

    def read(execution: Execution) -> bool:
        ended = False
        for line in script_errors.lines(execution.output()):
            reader.read(line)
            ended = ended or line == end
        reader.end()
        return ended

    with (
        jailed.engine.execute(
            jailed.container, command, watched=False, environment={"LC_ALL": "C"}, user=NOBODY
        ) as execution,
        ThreadPoolExecutor(1) as pool,
    ):
        # Read in parallel: psql blocks when nobody reads its output.
        reading = pool.submit(read, execution)
        try:
            with suppress(EngineError):  # it ended early, and its output says why
                # If the dump ends within rows, quotes or a statement, this final query gets no answer.
                for data in chain(pieces, [f"\nSELECT '{end}';\n".encode()]):
                    execution.send(data)
                    if reader.failure:
                        break
            execution.end_input()
            ended = reading.result()
        except BaseException:
            # Nothing else ends psql in the jail.
            jailed.engine.discard(jailed.container)
            raise
    if reader.failure or not ended:
        raise DumpError(
            f"psql could not load the dump: {reader.failure or 'it is cut off, or ends inside of something'}",
            hint="Make it again, best in PostgreSQL's own format: pg_dump -Fc chap_core > chap_core.dump",
        )
    return reader.left_out


def _database(jailed: Server, wanted: str) -> str:
    """Return the database of the jail that has the tables. Raise DumpError when several have."""
    names = [str(name) for (name,) in jailed.query(_DATABASES)]
    filled = [name for name in names if jailed.query(_HAS_TABLES, name)]
    if len(filled) > 1 and wanted not in filled:
        raise DumpError(
            f"The dump is one of several databases: {', '.join(filled[:5])}.",
            hint="A dump of CHAP's database alone is needed. On that server: pg_dump -Fc chap_core > chap_core.dump",
        )
    return wanted if wanted in filled or not filled else filled[0]


def _bring_out(jailed: Server, database: str, quarantine: Quarantine, notify: Callable[[str, int], None]) -> str:
    most, size = quarantine.server.free_space("/tmp") // 2, 0
    command = ["pg_dump", "-U", jailed.admin, "-Fc", "-Z", pg_tools.compression(jailed), "-d", connection(database)]
    with (
        quarantine.receiving("dump") as (path, send),
        jailed.engine.execute(jailed.container, command, user=NOBODY) as execution,
    ):
        for data in pg_tools.batched(execution.output()):
            size += len(data)
            if size > most:
                raise DatabaseError(f"The dump takes more than {units.size(most)}, half of what the server has free.")
            send(data)
            notify("dump out of the jail", size)
        if execution.status() != 0:
            raise DumpError(
                f"pg_dump could not read what the dump made: {first_error(execution.stderr.decode(errors='replace'))}"
            )
    return path
