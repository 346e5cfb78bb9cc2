"""The main job on real releases of CHAP, along every road. At the end there is a table of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.conftest import write_line
from tests.real.journey import Journey
from tests.real.roads import ROADS, Road
from tests.real.stages import stages


@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.name)
def test_road(road: Road, tmp_path: Path, subtests: pytest.Subtests) -> None:
    journey = Journey.begin(road, tmp_path)
    try:
        for stage in stages(road):
            with subtests.test(stage.__name__):
                journey.put_back()
                stage(journey)
    finally:
        journey.stack.down()
        write_line(road.name, journey.line)
