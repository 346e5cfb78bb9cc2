"""Whether the code that will run on restored data can work with them, and which repairs that needs."""

from __future__ import annotations

from compose_chap.engine.world import World
from compose_chap.errors import DumpError, EngineError
from compose_chap.model import Stack
from compose_chap.postgres import database_schema
from compose_chap.postgres.database_schema import MARK_TABLE
from compose_chap.postgres.server import Server
from compose_chap.restore import marks, version_guard
from compose_chap.restore.source import Source
from compose_chap.stack import model_schema, schema
from compose_chap.transaction.data.repairs import OLD_MARK
from compose_chap.transaction.run.change import Change

_A_BACKTEST = "SELECT 1 FROM public.backtest LIMIT 1"


def mends(
    world: World, stack: Stack, source: Source, server: Server, change: Change, *, trust: bool
) -> tuple[str, ...]:
    """Return what is to be mended when the code here migrates the data. Raise DumpError for those of a newer CHAP."""
    has = database_schema.read(server, change.incoming)
    if not trust:
        version_guard.refuse_newer(world, stack, source, server, change, has.marks)
    here = version_guard.version_here(world, stack, source, change.baseline)
    backtests = "backtest" in has.tables and bool(server.query(_A_BACKTEST, change.incoming))
    repairs = marks.repairs(has, marks.chain_of(world, stack, here), backtests=backtests)
    if OLD_MARK in repairs:
        # With this mark, the check of the schema that follows would fail.
        server.command(f"DROP TABLE {MARK_TABLE};", change.incoming)
    return repairs


def judge(world: World, stack: Stack, server: Server, change: Change, *, trust: bool) -> str:
    """Compare the side database with the code that will run on it; return a bad verdict if it is accepted, else empty.

    Raise DumpError for data that this code cannot work with and does not migrate when it starts.
    """
    api = change.images_after[stack.api.name]["id"]
    try:
        comparison = schema.inspect(model_schema.of_image(world, api), server, change.incoming)
    except EngineError:
        return ""  # The schema of such an old release is checked when it runs.
    if comparison.status != "fail" or comparison.start_migrates:
        return ""
    if not trust:
        raise DumpError(
            f"CHAP {comparison.version} cannot work with these data. {comparison.summary}",
            hint="Use another backup. To list them: docker chap backups\nIf you want these data as they are: --trust",
        )
    return comparison.verdict
