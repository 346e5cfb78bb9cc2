"""A plain dump made into an archive, in a jail: psql runs whatever stands in it, and has a shell.

The archive that comes out is trusted no more than the dump was: it goes the way of every archive.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain

from compose_chap import units
from compose_chap.engine.engine import Execution
from compose_chap.engine.world import World
from compose_chap.errors import DatabaseError, DumpError, EngineError
from compose_chap.postgres import jail, pg_tools, script_errors, unexpected
from compose_chap.postgres.pg_tools import NOBODY
from compose_chap.postgres.reach import connection
from compose_chap.postgres.sandbox import Quarantine
from compose_chap.postgres.server import Server, first_error, identifier

_ENDS = 4096
_MARK = b"\xef\xbb\xbf"
_ROLES = "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'"
_HAS_TABLES = "SELECT 1 FROM pg_class WHERE relkind IN ('r', 'p') AND oid >= 16384 LIMIT 1"
# Who made it may have made any number.
_DATABASES = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1 LIMIT 100"


@dataclass(frozen=True)
class Archive:
    """An archive in custom format: where it is in the quarantine, and what of the dump is not in it, for people."""

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
    """Load plain SQL into a jail, look at what came of it, and bring it out as an archive into the quarantine.

    `database` is the live one, whose server's image, locale and names of roles the jail gets; no more of it. `notify`
    is given what is done, and bytes. Raise DumpError for one that is damaged or holds what no dump of CHAP has, unless
    that is trusted; DatabaseError where it needs more room or time than there is.
    """
    server = quarantine.server
    container = world.engine.container(server.container)
    if not container:
        raise DatabaseError("The database's container is gone.", hint="Run the command again.")
    there = server.databases()
    like = there.get(database) or server.databases(templates=True)["template1"]
    roles = [str(name) for (name,) in server.query(_ROLES)]
    try:
        with jail.server(world, container.image_id) as jailed:
            # A privilege is given to somebody. Who they are is all that the jail knows of them.
            jailed.command("\n".join(f"CREATE ROLE {identifier(name)};" for name in roles))
            # A dump that makes its database and goes there finds it made, if it is called as the live one is.
            jailed.drop(database)  # it may be called like the one that every new server has
            jailed.create(database, replace(like, owner=jailed.admin))
            left_out = _load(jailed, database, _whole(pieces))
            notify("out of the jail", 0)
            loaded = _database(jailed, database)
            unexpected.refuse(unexpected.objects(jailed, loaded), trust=trust)
            return Archive(_bring_out(jailed, loaded, quarantine, notify), frozenset(left_out))
    except (IndexError, TypeError, ValueError, RecursionError):
        # Whoever wrote the dump may own the server in there by now, and have it answer anything.
        raise DumpError("The server in which the dump was loaded answers what no server does.") from None


def _whole(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a plain dump. Raise DumpError at its end when that is not the one that pg_dump writes."""
    head = tail = b""
    for data in pieces:
        # What Windows puts before a text means nothing, but to psql it may be a word.
        data = data if head else data.removeprefix(_MARK)
        head, tail = (head + data)[:_ENDS], (tail[-_ENDS:] + data)[-_ENDS:]
        yield data
    for kind in (b"cluster dump", b"dump"):
        if b"-- PostgreSQL database " + kind in head and b"-- PostgreSQL database " + kind + b" complete" not in tail:
            raise DumpError("The dump is cut off: its last line is missing.")


def _load(jailed: Server, database: str, pieces: Iterator[bytes]) -> set[str]:
    """Run a plain dump in the jail, and return the privileges that it could not give. Raise DumpError if it fails."""
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
        # Somebody has to read while this writes: psql waits when nobody takes its words.
        reading = pool.submit(read, execution)
        try:
            with suppress(EngineError):  # it ended early, and its words say why
                # Inside of rows, quotes or a statement the last one is no question, and gets no answer.
                for data in chain(pieces, [f"\nSELECT '{end}';\n".encode()]):
                    execution.send(data)
                    if reader.failure:
                        break
            execution.end_input()
            ended = reading.result()
        except BaseException:
            # Nothing else makes what runs in there let go.
            jailed.engine.discard(jailed.container)
            raise
    if reader.failure or not ended:
        raise DumpError(
            f"psql could not load the dump: {reader.failure or 'it is cut off, or ends inside of something'}",
            hint="Make it again, best in PostgreSQL's own format: pg_dump -Fc chap_core > chap_core.dump",
        )
    return reader.left_out


def _database(jailed: Server, wanted: str) -> str:
    """Return the database of the jail that the tables are in. Raise DumpError when there is none, or several."""
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
