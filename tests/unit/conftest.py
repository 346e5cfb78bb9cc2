"""What holds for every small test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import fakes


@pytest.fixture(autouse=True)
def the_fake_knows_all_that_it_is_asked() -> Iterator[None]:
    """Fail a test in which the engine in memory was asked what it does not know, also where that error was caught."""
    fakes.UNKNOWN.clear()
    yield
    assert not fakes.UNKNOWN, fakes.UNKNOWN[:3]
