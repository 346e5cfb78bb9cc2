"""Whether data are of a newer CHAP, also where CHAP is down and its image is called by no release."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from compose_chap import revisions
from compose_chap.backups.catalogue import Backup
from compose_chap.backups.manifest import ChapFacts, ImageFacts
from compose_chap.errors import DatabaseError, DumpError, EngineError
from compose_chap.postgres.database_schema import MARK_TABLE, Column, DatabaseSchema
from compose_chap.postgres.dump_format import Kind, Packing
from compose_chap.restore import marks, restore, version_guard
from compose_chap.restore.restore import RestorePlan
from compose_chap.restore.source import Source
from compose_chap.stack import model_schema
from compose_chap.stack.model_schema import ModelSchema
from compose_chap.transaction.run.baseline import Baseline
from tests.fakes import manifest

LIVE = {"public.observation": ["id", "value"], "public.dataset": ["id"]}


def down(tag: str = "latest") -> Any:
    """Return a stack whose API is down, with an image of this tag."""
    container = SimpleNamespace(id="1", image_id="sha256:here", running=False)
    return SimpleNamespace(api=SimpleNamespace(containers=[container], image=SimpleNamespace(tag=tag)))


def source(version: str = "", image: str = "sha256:other") -> Source:
    made = Backup(Path("/b"), manifest(chap=ChapFacts(version), images=(ImageFacts("chap", "api", "", image),)))
    return Source(Path("/b/a.dump"), Kind.CUSTOM, Packing.NONE, made if version else None)


def baseline(worker: str = "", *, has_data: bool = True) -> Baseline:
    return Baseline("", {"worker": worker}, (), "", ready=False, has_data=has_data, untouched={})


def refuse(
    source: Source,
    incoming: dict[str, list[str]],
    live: dict[str, list[str]] | None = None,
    result: tuple[str, ...] = (),
) -> None:
    def columns(name: str) -> dict[str, list[str]]:
        if name == "live" and live is None:
            raise DatabaseError("It is gone.")
        return incoming if name == "incoming" else live or {}

    server: Any = SimpleNamespace(columns=columns)
    change: Any = SimpleNamespace(live="live", incoming="incoming", baseline=baseline())
    version_guard.refuse_newer(world(), down(), source, server, change, result)


def world(models: ModelSchema | None = None) -> Any:
    """Return a world in which the stack's image says what its models want, or is gone and cannot be asked."""

    def once(key: Any, ask: Any) -> Any:
        if models is None:
            raise EngineError("No such image.")
        return models

    return SimpleNamespace(environment={}, engine=SimpleNamespace(once=once))


MODELS = ModelSchema("2.1.0", {"dataset": (Column("id", "integer", nullable=False, default=True),)}, (), (), ())


def test_the_version_of_a_stopped_chap_is_known_where_possible() -> None:
    assert version_guard.version_here(world(), down(), source("2.0.0"), baseline()) == ""
    assert version_guard.version_here(world(), down("v2.0.0"), source(), baseline()) == "2.0.0"
    assert version_guard.version_here(world(), down(), source(), baseline("2.0.0")) == "2.0.0"
    assert version_guard.version_here(world(), down(), source("2.0.0", "sha256:here"), baseline()) == "2.0.0"
    # The image knows itself better than its name does, and than a worker that was not upgraded with it.
    assert version_guard.version_here(world(MODELS), down("v2.0.0"), source(), baseline("2.0.0")) == "2.1.0"


@pytest.mark.parametrize("candidate", [source("2.1.0"), source()])
def test_columns_of_the_live_database_count_where_chap_is_down(candidate: Source) -> None:
    refuse(candidate, LIVE, LIVE)
    refuse(candidate, {"public.observation": ["id"], "public.new": ["id"]}, LIVE)
    with pytest.raises(DumpError, match="newer CHAP.*public.dataset.uuid") as caught:
        refuse(candidate, {**LIVE, "public.dataset": ["id", "uuid"]}, LIVE)
    assert "--trust" in caught.value.hint
    # Nothing can be compared.
    refuse(candidate, LIVE, None)


def test_a_backup_of_the_same_code_is_not_refused_for_what_the_live_database_lost() -> None:
    refuse(source("dev", "sha256:here"), LIVE, {**LIVE, "public.observation": ["id"]})


def test_skipped_comparisons_are_noted() -> None:
    stack = down()
    assert "live database only" in version_guard.not_known(world(), stack, source(), "", baseline())
    assert "cannot be seen" in version_guard.not_known(world(), stack, source(), "", baseline(has_data=False))
    assert version_guard.not_known(world(), stack, source("2.0.0"), "2.0.0", baseline()) == ""
    assert version_guard.not_known(world(), stack, source("dev", "sha256:here"), "dev", baseline()) == ""
    # CHAP is down, and its image says what it knows.
    assert version_guard.not_known(world(MODELS), stack, source(), "", baseline()) == ""


CHAINS = {version: revisions.of_release(version) for version in ("2.0.0", "2.1.0", "2.2.0", "2.3.1", "2.5.1")}


@pytest.mark.parametrize(
    ("result", "running", "newer", "older"),
    [
        # None: older than v2.2.0, which says enough only where the code is not.
        ((), "2.5.1", False, True),
        ((), "2.2.0", False, True),
        ((), "2.1.0", False, False),
        (("de7478f3ff6d",), "2.5.1", False, True),
        (("e1f2a3b4c5d6",), "2.5.1", False, True),
        (("e1f2a3b4c5d6",), "2.2.0", False, True),
        (("de7478f3ff6d",), "2.1.0", True, False),
        (("de7478f3ff6d",), "2.2.0", True, False),
        (("0b1c2d3e4f5a",), "2.5.1", True, False),
        (("ff2b1bbb8418",), "2.1.0", False, False),
        (("ff2b1bbb8418",), "2.5.1", False, True),
    ],
)
def test_a_mark_tells_older_from_newer(result: tuple[str, ...], running: str, newer: bool, older: bool) -> None:
    assert bool(revisions.unknown(result, CHAINS[running])) is newer
    assert revisions.surely_older(result, CHAINS[running]) is older


def test_a_release_that_nobody_knows_has_no_chain_unless_it_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert revisions.of_release("2.6.0") == revisions.of_release("") == ()

    def asked(*_: Any) -> Any:
        if answer is None:
            raise EngineError("It does not say.")
        return SimpleNamespace(chain=answer)

    monkeypatch.setattr(model_schema, "of_stack", asked)
    for answer, version, chain in (
        (("a", "b"), "2.1.0", ("a", "b")),
        (("a", "b"), "2.6.0", ("a", "b")),
        ((), "2.1.0", CHAINS["2.1.0"]),
        (None, "2.1.0", CHAINS["2.1.0"]),
        (None, "2.6.0", ()),
    ):
        assert marks.chain_of(cast(Any, None), down(), version) == chain
    assert revisions.unknown(("x",), ()) == "" and not revisions.surely_older((), ())


@pytest.mark.parametrize(
    ("result", "running", "mended"),
    [
        ((), "2.5.1", ("prediction_length", "target_column")),
        (("a7b8c9d0e1f2",), "2.5.1", ("prediction_length", "target_column")),
        ((), "2.2.0", ("prediction_length",)),
        ((), "2.3.1", ("prediction_length",)),
        (("ff2b1bbb8418",), "2.2.0", ("old_mark", "prediction_length")),
        (("ff2b1bbb8418",), "2.5.1", ("old_mark", "prediction_length", "target_column")),
        (("e1f2a3b4c5d6",), "2.5.1", ("target_column",)),
        (("f2a3b4c5d6e1",), "2.5.1", ()),
        (("e1f2a3b4c5d6",), "2.2.0", ()),
        (("ff2b1bbb8418",), "2.1.0", ()),
        ((), "2.0.0", ()),
    ],
)
def test_what_newer_code_does_to_older_data_is_mended(
    result: tuple[str, ...], running: str, mended: tuple[str, ...]
) -> None:
    has = DatabaseSchema({"backtest": ()}, {}, (), result)
    assert marks.repairs(has, CHAINS[running], backtests=True) == mended
    without = tuple(name for name in mended if name != "target_column")
    assert marks.repairs(has, CHAINS[running], backtests=False) == without


def test_leftovers_of_failed_backtests_are_repaired_if_the_table_exists() -> None:
    half = DatabaseSchema({"backtest": (), "backtestspecification": ()}, {}, (), ("e1f2a3b4c5d6",))
    assert marks.repairs(half, CHAINS["2.5.1"], backtests=True) == ("half_migrated",)


def test_a_mark_counts_more_than_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    older = {**LIVE, "public.dataset": ["id", "gone_since"]}
    monkeypatch.setattr(marks, "chain_of", lambda *_: CHAINS["2.5.1"])
    refuse(source(), older, LIVE)
    with pytest.raises(DumpError, match="newer CHAP.*'0b1c2d3e4f5a'"):
        refuse(source(), LIVE, LIVE, ("0b1c2d3e4f5a",))
    with pytest.raises(DumpError, match="none of CHAP's tables"):
        refuse(source(), {"public.else": ["id"]}, LIVE)


@pytest.mark.parametrize(
    ("tables", "empty", "refused"),
    [
        ({"public.dataset": 0, MARK_TABLE: 1}, False, True),
        ({"public.dataset": 0, MARK_TABLE: 1}, True, False),
        ({"public.dataset": 1}, False, False),
        ({}, True, True),
    ],
)
def test_a_dump_without_rows_is_restored_only_on_demand(tables: dict[str, int], empty: bool, refused: bool) -> None:
    plan = RestorePlan(down(), source(), trust=False, empty=empty)
    if not refused:
        restore._compare(plan, tables)
        return
    with pytest.raises(DumpError) as caught:
        restore._compare(plan, tables)
    assert not tables or "--allow-empty" in caught.value.hint
