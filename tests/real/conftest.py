"""One journey for each road, shared by the tests of that road, and the table of all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.real.images import WORK
from tests.real.journey import Journey
from tests.real.roads import ROADS, Road

COLUMNS = ("became", "upgrade", "rollback", "restore", "rehearse")
# The tests of a road share a stack, so they run in one process.
PARAMETERS = [pytest.param(road, id=road.name, marks=pytest.mark.xdist_group(road.name)) for road in ROADS]


@pytest.fixture(scope="module", params=PARAMETERS)
def begun(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    """Give a stack of a road's old release with rows in every table; add the road's line to the table afterwards."""
    road: Road = request.param
    journey = Journey.begin(road, tmp_path_factory.mktemp("real"))
    try:
        yield journey
    finally:
        journey.stack.down()
        line = "\t".join([road.name, *(journey.line.get(column, "-") for column in COLUMNS)])
        with (WORK / "table.tsv").open("a") as table:
            table.write(line + "\n")


@pytest.fixture
def journey(begun: Journey) -> Journey:
    """Give the journey with its stack at the beginning, whatever the test before left."""
    begun.put_back()
    return begun
