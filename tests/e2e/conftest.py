"""Sample stacks for the tests of whole commands. They run the built file, as `docker chap`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.calls import chap
from tests.sample.stack import SampleStack, environment


def running(stack: SampleStack) -> Iterator[SampleStack]:
    """Give a started stack with rows in its tables, and remove it afterwards."""
    try:
        stack.up()
        stack.fill(rows=2_000)
        yield stack
    finally:
        stack.down()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """CHAP alone at v2.0.0: API, worker, database, broker."""
    yield from running(SampleStack.create(tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """CHAP with DHIS2, a model service and one-shots, at v2.0.0, its files nested by include."""
    yield from running(SampleStack.create(tmp_path_factory.mktemp("bundled"), kind="bundled"))


@pytest.fixture(scope="module")
def backup_folder(small: SampleStack) -> Path:
    """Make a backup that a module's tests copy and read."""
    return Path(chap(small, "backup")["backup"]["folder"])


@pytest.fixture(scope="module")
def world(small: SampleStack) -> tuple[object, ...]:
    """Look once at what a hostile dump could change."""
    return world_of(small)


@pytest.fixture
def unharmed(small: SampleStack, world: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> Iterator[SampleStack]:
    """Give a stack that has to be as it was before the module's first dump, for code that is called in this process."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    yield small
    assert world_of(small) == world


def world_of(stack: SampleStack) -> tuple[object, ...]:
    """Return what a hostile dump could change: databases, roles with their passwords, files."""
    roles = stack.sql("SELECT rolname, rolpassword, rolsuper FROM pg_authid ORDER BY 1", "postgres")
    left = stack.inside("sh", "-c", "ls -A /tmp | grep -v ^\\\\.s || true")
    return stack.databases(), roles, stack.checksum(), left, stack.columns("postgres")
