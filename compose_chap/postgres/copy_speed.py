"""How fast the disk of a database's server copies, measured in the container where PostgreSQL will do it."""

from __future__ import annotations

import re
from contextlib import suppress
from math import inf

from compose_chap.errors import ChapError
from compose_chap.postgres.server import CLONES_FROM, Server

# 128 MiB of a file of the database, in pieces: on a slow disk none begins after two seconds. They lie where PostgreSQL
# has its own temporary files: when it starts it removes what a power cut left there, and no base backup takes it.
# Where PostgreSQL can clone and the file system too, one file is cloned instead, and nothing is copied.
# The script may be an orphan when it ends, and it ends by itself: PostgreSQL takes an orphan that was ended by a signal
# for a crash of its own.
_SCRIPT = """
cd "$1" && folder=${2%/*} && folder=${folder%/*}/pgsql_tmp && probe=$folder/pgsql_tmp.docker-chap.$$ || exit 0
umask 077
trap 'rm -f "$probe"' EXIT
trap 'exit 0' HUP INT TERM
[ -d "$folder" ] || mkdir "$folder" || exit 0
[ -n "$3" ] && cp --reflink=always "$2" "$probe" 2>/dev/null && echo cloned && exit 0
rm -f "$probe"
began=$(date +%s)
for piece in 0 1 2 3 4 5 6 7; do
  [ $(($(date +%s) - began)) -lt 2 ] || exit 0
  at=$((piece * 256))
  dd if="$2" of="$probe" bs=64k count=256 skip=$at seek=$at conv=notrunc,fsync 2>&1 || exit 0
done
"""
_COPIED = re.compile(r"^(\d+) bytes.* copied, ([\d.]+) s", re.MULTILINE)
_OWNER = re.compile(r"\d+:\d+")
_LEAST = 16 << 20  # bytes: less says little about a disk

_FILE = (
    "SELECT current_setting('data_directory'), pg_relation_filepath(oid) FROM pg_class"
    " WHERE relkind IN ('r', 't', 'm', 'i') AND NOT relisshared ORDER BY pg_relation_size(oid) DESC LIMIT 1"
)


def copied_per_second(server: Server, database: str) -> float:
    """Return how many bytes of a database its server's disk copies in a second, 0 where that cannot be measured.

    Up to 128 MiB of its largest file are copied beside it, and removed. It takes some seconds at the most. Where the
    copy is a clone, the speed is infinite.
    """
    with suppress(ChapError):
        ((data, file),) = server.query(_FILE, database)
        owner = server.engine.run(server.container, ["stat", "-c", "%u:%g", data]).stdout.strip()
        # As the owner of the data, so that PostgreSQL can use, and remove, what is made there.
        if _OWNER.fullmatch(owner):
            clones = "can clone" if server.version() >= CLONES_FROM else ""
            command = ["sh", "-c", _SCRIPT, "sh", data, file, clones]
            finished = server.engine.run(server.container, command, user=owner, environment={"LC_ALL": "C"})
            return measured(finished.stdout)
    return 0.0


def measured(output: str) -> float:
    """Return the bytes a second of the fastest piece that dd wrote about, 0 where none says enough.

    What else the server does in that moment makes a piece slower, and is over when the time comes. A clone takes no
    time.
    """
    if output.startswith("cloned"):
        return inf
    pieces = [(int(size), float(seconds)) for size, seconds in _COPIED.findall(output)]
    return max((size / seconds for size, seconds in pieces if size >= _LEAST and seconds > 0), default=0.0)
