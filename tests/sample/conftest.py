"""The stacks of the sample's own tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sample.stack import SampleStack
from tests.sample.steps import Make


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Return what makes a started stack with some rows; it is gone after the test."""
    stacks: list[SampleStack] = []

    def started(**options: object) -> SampleStack:
        stack = SampleStack.create(tmp_path / str(len(stacks)), **options)  # type: ignore[arg-type]
        stacks.append(stack)
        stack.up()
        stack.fill(rows=2000)
        return stack

    yield started
    for stack in stacks:
        stack.down()
