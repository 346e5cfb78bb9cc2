"""Write only a dump of CHAP's database: to a file that the operator names, or to a pipe."""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from compose_chap.backups import dump_file
from compose_chap.backups.catalogue import PARTIAL
from compose_chap.engine.engine import Engine
from compose_chap.engine.world import Notify
from compose_chap.model import Stack
from compose_chap.postgres import pg_tools
from compose_chap.postgres.untrusted import unexpected
from compose_chap.records import lock
from compose_chap.records.files import durable
from compose_chap.stack.databases import database_of, server_of


@dataclass(frozen=True)
class DumpOnly:
    """A proven dump: rows of each table, bytes and, as in a manifest, its unexpected objects and lost tables.

    There is no manifest that could say so later.
    """

    tables: Mapping[str, int]
    size: int
    unexpected: Sequence[str]
    lost_tables: Sequence[str]


def into(engine: Engine, stack: Stack, sink: Callable[[bytes], object], notify: Notify) -> DumpOnly:
    """Write a dump to `sink`, piece by piece, while pg_restore reads it.

    Raise DatabaseError or DumpError when it is not proven; then what `sink` got is not a dump.
    """
    server = server_of(engine, stack)
    name = database_of(server, stack.access).name
    size = 0

    def counted(data: bytes) -> None:
        nonlocal size
        sink(data)
        size += len(data)
        notify("backup", "dump", size, 0)

    with ThreadPoolExecutor(1) as aside:
        inspection = aside.submit(unexpected.inspect, server, name)
        tables = dump_file.dump_into(server, name, pg_tools.compression(server), counted)
    return DumpOnly(tables, size, *inspection.result())


def into_file(engine: Engine, stack: Stack, target: Path, notify: Notify) -> DumpOnly:
    """Write a dump to a file, 0600. An existing file stays until the new dump is proven.

    Raise what `into` raises, and StateError when the disk is full or broken; then nothing of the new file is left.
    """
    # A unique name, so that two runs with the same target do not write into the same file.
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}{PARTIAL}")
    with dump_file.disk_errors(target.parent, "dump", "--dump-only FILE"):
        _remove_abandoned(target)
        try:
            with ExitStack() as claims:
                with dump_file.new_file(partial, anywhere=True) as file:
                    claims.enter_context(lock.claimed(partial))
                    made = into(engine, stack, file.write, notify)
                os.replace(partial, target)
            durable.sync_folder(target.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    return made


def _remove_abandoned(target: Path) -> None:
    for left in target.parent.glob(f".{glob.escape(target.name)}.*{PARTIAL}"):
        if lock.abandoned(left):
            left.unlink(missing_ok=True)
