"""Sample stacks for the tests of whole commands. They run the built file, as `docker chap`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sample.stack import SampleStack


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
