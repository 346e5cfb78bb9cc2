"""How fast the disk of a database's server copies, measured in the container where PostgreSQL will do it."""

from __future__ import annotations

import re
from contextlib import suppress

from compose_chap.errors import ChapError
from compose_chap.postgres.server import Server

# 128 MiB of a file of the database, in pieces: on a slow disk none begins after two seconds. They lie where PostgreSQL
# has its own temporary files: when it starts it removes what a power cut left there, and no base backup takes it.
# The script may be an orphan when it ends, and it ends by itself: PostgreSQL takes an orphan that was ended by a signal
# for a crash of its own.
_SCRIPT = """
cd "$1" && folder=${2%/*} && folder=${folder%/*}/pgsql_tmp && probe=$folder/pgsql_tmp.docker-chap.$$ || exit 0
umask 077
trap 'rm -f "$probe"' EXIT
trap 'exit 0' HUP INT TERM
[ -d "$folder" ] || mkdir "$folder" || exit 0
began=$(date +%s)
for piece in 0 1 2 3; do
  [ $(($(date +%s) - began)) -lt 2 ] || exit 0
  at=$((piece * 512))
  dd if="$2" of="$probe" bs=64k count=512 skip=$at seek=$at conv=notrunc,fsync 2>&1 || exit 0
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

    Up to 128 MiB of its largest file are copied beside it, and removed. It takes some seconds at the most.
    """
    with suppress(ChapError):
        ((data, file),) = server.query(_FILE, database)
        owner = server.engine.run(server.container, ["stat", "-c", "%u:%g", data]).stdout.strip()
        # As the owner of the data, so that PostgreSQL can use, and remove, what is made there.
        if _OWNER.fullmatch(owner):
            command = ["sh", "-c", _SCRIPT, "sh", data, file]
            finished = server.engine.run(server.container, command, user=owner, environment={"LC_ALL": "C"})
            return measured(finished.stdout)
    return 0.0


def measured(output: str) -> float:
    """Return the bytes a second of what dd wrote about each piece, 0 where that is too little to say."""
    pieces = [(int(size), float(seconds)) for size, seconds in _COPIED.findall(output)]
    size, seconds = sum(size for size, _ in pieces), sum(seconds for _, seconds in pieces)
    return size / seconds if size >= _LEAST and seconds > 0 else 0.0
