"""A throwaway PostgreSQL for untrusted dumps: a dump is a program, and psql can start a shell.

It has no network, nothing of production (no volume, secret or password), no capabilities, and limits on memory,
processes and disk. Whatever a dump does there, it does alone; and its output is trusted no more than its input.
It ends with this process, however that dies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from compose_chap.engine.throwaway import Recipe, throwaway
from compose_chap.engine.world import World
from compose_chap.errors import DatabaseError
from compose_chap.postgres.reach import first_error
from compose_chap.postgres.server import Server
from compose_chap.postgres.untrusted import room

_ADMIN = "docker_chap_jail"
_START_SECONDS = 180
_LEAST_ROOM = 256 << 20
# A folder that any user may write, limited only by the disk, wherever the image has its data.
_DATA = "/tmp/postgresql"
# The image's entrypoint makes users and databases, and needs a network. We want only a server.
_START = """
initdb -D "$PGDATA" -U "$1" --auth-local=trust --auth-host=md5 --no-sync >/dev/null || exit
echo "host all all all md5" >>"$PGDATA/pg_hba.conf"
pg_ctl -D "$PGDATA" -s -w -t "$2" -l "$PGDATA/log" -o "$3" start || { tail -n 5 "$PGDATA/log" >&2; exit 1; }
"""
# Its data need not survive a crash. We parse its errors, so they must be in English.
_SETTINGS = (
    "-c lc_messages=C -c fsync=off -c full_page_writes=off -c synchronous_commit=off -c autovacuum=off"
    " -c wal_level=minimal -c max_wal_senders=0 -c max_wal_size=512MB -c listen_addresses="
)


@contextmanager
def server(world: World, image: str, *, names: Sequence[str] = (), most: int = 0) -> Iterator[Server]:
    """Run a PostgreSQL of `image` while the block runs. Containers that share its network reach it under `names`.

    `most` are the bytes that it may take, if that can be said; all
    but a quarter of what is free is it anyway. Raise DatabaseError when it does not start, and when what is done in the
    block needs more room or time than there is.
    """
    if not image or not world.engine.image(image):
        raise DatabaseError(
            "The PostgreSQL image that the backup was made with is not on this engine.",
            hint="Start the stack's database, or pull its image, then try again.",
        )
    world.notify("start throwaway", "without a network")
    # As a user that nothing else in there is, it waits for the end of this process; or of its time, at the latest.
    wait = ("timeout", "-s", "KILL", str(int(world.limit) + _START_SECONDS * 2), "cat")
    recipe = Recipe(
        image,
        {"PGDATA": _DATA},
        names=names,
        entrypoint=wait,
        user="0:0",
        volumes=("/tmp",),
        tmpfs=("/var/run/postgresql:mode=1777",),
        confined=True,
    )
    with throwaway(world.engine, recipe) as container:
        jailed = Server(world.engine, container, _ADMIN)
        listen = "'*'" if names else "''"
        command = ["sh", "-c", _START, "sh", _ADMIN, str(_START_SECONDS), _SETTINGS + listen]
        started = world.engine.run(container, command, user="postgres")
        if started.status != 0:
            raise DatabaseError(f"The throwaway PostgreSQL did not start: {first_error(started.stderr)}")
        # A quarter stays for everybody else.
        least = max(jailed.free_space() // 4, _LEAST_ROOM)

        def free() -> int:
            left = jailed.free_space()
            return min(left, least + most - _taken(jailed)) if most else left

        with room.watched(free, least, lambda: world.engine.discard(container), world.limit):
            yield jailed


def _taken(jailed: Server) -> int:
    output = jailed.engine.run(jailed.container, ["du", "-sk", _DATA], user="postgres").stdout.split()
    if not output or not output[0].isdigit():
        raise DatabaseError("The throwaway PostgreSQL does not say how much room it takes.")
    return int(output[0]) * 1024
