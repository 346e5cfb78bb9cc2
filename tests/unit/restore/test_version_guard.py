"""Whether data are of a newer CHAP, also where CHAP is down and its image is called by no release."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compose_chap.backups.catalogue import Backup
from compose_chap.backups.manifest import ChapFacts, ImageFacts
from compose_chap.errors import DatabaseError, DumpError
from compose_chap.postgres.dump_format import Kind, Packing
from compose_chap.restore import version_guard
from compose_chap.restore.source import Source
from compose_chap.transaction.baseline import Baseline
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


def refuse(given: Source, incoming: dict[str, list[str]], live: dict[str, list[str]] | None = None) -> None:
    def columns(name: str) -> dict[str, list[str]]:
        if name == "live" and live is None:
            raise DatabaseError("It is gone.")
        return incoming if name == "incoming" else live or {}

    server: Any = SimpleNamespace(columns=columns)
    change: Any = SimpleNamespace(live="live", incoming="incoming", baseline=baseline())
    world: Any = None
    version_guard.refuse_columns(world, down(), given, server, change)


def test_the_version_of_what_is_down_is_found_where_it_can_be() -> None:
    assert version_guard.version_here(down(), source("2.0.0"), baseline()) == ""
    assert version_guard.version_here(down("v2.0.0"), source(), baseline()) == "2.0.0"
    assert version_guard.version_here(down(), source(), baseline("2.0.0")) == "2.0.0"
    assert version_guard.version_here(down(), source("2.0.0", "sha256:here"), baseline()) == "2.0.0"


@pytest.mark.parametrize("given", [source("2.1.0"), source()])
def test_columns_of_the_live_database_count_where_chap_is_down(given: Source) -> None:
    refuse(given, LIVE, LIVE)
    refuse(given, {"public.observation": ["id"], "public.new": ["id"]}, LIVE)
    with pytest.raises(DumpError, match="newer CHAP.*public.dataset.uuid") as caught:
        refuse(given, {**LIVE, "public.dataset": ["id", "uuid"]}, LIVE)
    assert "--trust" in caught.value.hint
    # Nothing can be compared.
    refuse(given, LIVE, None)


def test_a_backup_of_the_same_code_is_not_refused_for_what_the_live_database_lost() -> None:
    refuse(source("dev", "sha256:here"), LIVE, {**LIVE, "public.observation": ["id"]})


def test_what_could_not_be_checked_is_said() -> None:
    stack = down()
    assert "live database only" in version_guard.not_known(stack, source(), "", baseline())
    assert "cannot be seen" in version_guard.not_known(stack, source(), "", baseline(has_data=False))
    assert version_guard.not_known(stack, source("2.0.0"), "2.0.0", baseline()) == ""
    assert version_guard.not_known(stack, source("dev", "sha256:here"), "dev", baseline()) == ""
