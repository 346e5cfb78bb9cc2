"""Whether data are of a newer CHAP than the installed one: old code cannot work with them."""

from __future__ import annotations

from contextlib import suppress

from compose_chap import revisions
from compose_chap.engine.world import World
from compose_chap.errors import DatabaseError, DumpError, EngineError
from compose_chap.image import release_key, release_tag
from compose_chap.model import Stack
from compose_chap.postgres.server import Server
from compose_chap.restore import marks
from compose_chap.restore.source import Source
from compose_chap.stack import model_schema
from compose_chap.transaction.run.baseline import Baseline
from compose_chap.transaction.run.change import Change

_UPGRADE_FIRST = "See the releases: docker chap versions\nUpgrade, then restore again: docker chap upgrade VERSION"


def version_here(world: World, stack: Stack, source: Source, baseline: Baseline) -> str:
    """Return the version of the code that is here, empty when nothing says it.

    Where CHAP is down, a backup that was made with the very same image knows it, or the image itself, or the worker, or
    what the image is called, if that is a release.
    """
    if baseline.version or (_same_code(stack, source) and source.version):
        return baseline.version or source.version
    tag = stack.api.image.tag if release_key(stack.api.image.tag) else ""
    answers = [_version_in_image(world, stack), *baseline.worker_versions.values(), tag.removeprefix("v")]
    return next(filter(None, answers), "")


def _version_in_image(world: World, stack: Stack) -> str:
    with suppress(EngineError):
        return model_schema.of_stack(world, stack).version
    return ""


def _same_code(stack: Stack, source: Source) -> bool:
    images = source.backup.manifest.images if source.backup else ()
    return stack.api.containers[0].image_id in [image.id for image in images]


def not_known(world: World, stack: Stack, source: Source, version: str, baseline: Baseline) -> str:
    """Return what to know where neither versions nor what the code says can be compared, empty otherwise."""
    if _same_code(stack, source) or (version and source.version) or _columns_of_code(world, stack):
        return ""
    unknown = "CHAP and its image do not say what they know. Whether the data are of a newer one"
    if baseline.has_data:
        return f"{unknown} is seen by the columns of the live database only."
    return f"{unknown} cannot be seen."


def refuse_version(made_by: str, running: str) -> None:
    """Raise DumpError for a backup of a newer CHAP than the one that runs."""
    written, known = release_key(made_by), release_key(running)
    if written and known and written > known:
        raise DumpError(
            f"The backup was made by CHAP {made_by}, and CHAP {running} runs.",
            state="Nothing was changed.",
            hint=f"Upgrade, then restore again: docker chap upgrade {release_tag(made_by)}\n"
            "Or bring that version back with it: --with-version",
        )


def refuse_newer(
    world: World, stack: Stack, source: Source, server: Server, change: Change, marks_in: tuple[str, ...]
) -> None:
    """Raise DumpError for data of a newer CHAP than the code here, where no versions could be compared.

    Alembic's marks in the data say it, and only where they cannot, the columns.
    """
    here = version_here(world, stack, source, change.baseline)
    if _same_code(stack, source) or (release_key(source.version) and release_key(here)):
        return
    _refuse_other_data(world, stack, source, server, change)
    chain = marks.chain_of(world, stack, here)
    if mark := revisions.unknown(marks_in, chain):
        raise DumpError(
            f"The dump is from a newer CHAP: the one that is here does not know its Alembic revision {mark[:40]!r}.",
            hint=_UPGRADE_FIRST,
        )
    if not revisions.surely_older(marks_in, chain):
        _refuse_columns(world, stack, server, change)


def _refuse_other_data(world: World, stack: Stack, source: Source, server: Server, change: Change) -> None:
    tables = {_table(name) for name in _known_columns(world, stack, server, change)}
    if tables and not {_table(name) for name in _columns(server, change.incoming)} & tables:
        raise DumpError(f"{source.path} has none of CHAP's tables: it is a dump of something else.")


def _refuse_columns(world: World, stack: Stack, server: Server, change: Change) -> None:
    """Raise DumpError for data with columns that the code here does not know.

    Where its image does not say that, it is what the live database has.
    """
    known = _known_columns(world, stack, server, change)
    tables = {_table(name) for name in known}
    more = sorted(name for name in _columns(server, change.incoming) - known if _table(name) in tables)
    if more and _columns_of_code(world, stack):
        raise DumpError(
            f"The dump is from a newer CHAP: the one that runs does not know {', '.join(more[:5])}.",
            hint=_UPGRADE_FIRST,
        )
    if more:
        raise DumpError(
            f"The dump may be from a newer CHAP: the live database does not have {', '.join(more[:5])}.",
            hint="CHAP and its image do not say what they know. If you know that it fits: --trust",
        )


def _known_columns(world: World, stack: Stack, server: Server, change: Change) -> set[str]:
    known = _columns_of_code(world, stack)
    # The live one may be gone or damaged.
    with suppress(DatabaseError):
        known |= _columns(server, change.live)
    return known


def _columns_of_code(world: World, stack: Stack) -> set[str]:
    with suppress(EngineError):
        return set(model_schema.of_stack(world, stack).column_names)
    return set()


def _columns(server: Server, database: str) -> set[str]:
    return {f"{table}.{name}" for table, names in server.columns(database).items() for name in names}


def _table(column: str) -> str:
    return column.rpartition(".")[0]
