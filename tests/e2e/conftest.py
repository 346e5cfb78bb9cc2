"""Sample stacks for the tests of whole commands. They run the built file, as `docker chap`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sample.stack import SampleStack


def make(tmp_path_factory: pytest.TempPathFactory, kind: str, rows: int) -> Iterator[SampleStack]:
    """Give a started stack with rows in its tables, and remove it afterwards."""
    stack = SampleStack.create(tmp_path_factory.mktemp(kind), kind=kind)
    try:
        stack.up()
        stack.fill(rows=rows)
        yield stack
    finally:
        stack.down()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """CHAP alone at v2.0.0: API, worker, database, broker."""
    yield from make(tmp_path_factory, "small", 2_000)


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """CHAP with DHIS2, a model service and one-shots, at v2.0.0, its files nested by include."""
    yield from make(tmp_path_factory, "bundled", 2_000)
