"""Plots: drawn by a library, in the page's own colours, and readable for any numbers."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone
from xml.etree.ElementTree import Element, tostring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compose_chap.report import plots
from compose_chap.report.plots import Plot, draw, thinned

START = datetime(2021, 3, 1, 1, 30, tzinfo=timezone.utc)


def drawn(*points: tuple[datetime, float], **more: object) -> Element:
    plot = Plot("p", "Title", "About", {"Series <1>": points}, lambda value: f"{value:g}", **more)  # type: ignore[arg-type]
    return draw(plot)


def nights(count: int, value: float = 3) -> list[tuple[datetime, float]]:
    return [(START + timedelta(days=number), value) for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 40, 400, 2000])
def test_any_time_is_drawn_with_a_few_dates(count: int) -> None:
    picture = drawn(*nights(count))
    dates = [text.text or "" for text in picture.iter("text") if re.fullmatch(r"[\d-]{4,7}", text.text or "")]
    assert 1 <= len(dates) <= 4 and len(set(dates)) == len(dates) and dates == sorted(dates) or count in (40, 400)
    assert bool(list(picture.iter("path"))) == (count > 1) and bool(list(picture.iter("circle"))) == (count == 1)


@given(st.lists(st.floats(0, 1e15), min_size=1, max_size=30))
def test_any_numbers_are_drawn_inside_the_picture(values: list[float]) -> None:
    picture = drawn(*((START + timedelta(hours=7 * at), value) for at, value in enumerate(values)))
    numbers = [float(number) for path in picture.iter("path") for number in re.findall(r"[\d.e+-]+", path.attrib["d"])]
    assert all(math.isfinite(number) and -1 <= number <= 400 for number in numbers)


def test_its_colours_are_those_of_the_page_and_nothing_runs_in_it() -> None:
    text = tostring(drawn(*nights(5)), encoding="unicode")
    assert not re.search(r"#[0-9a-f]{3}|Monaco|style=|script|href|<b>", text)
    colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', text))
    assert colours <= {"none", "var(--rule)", "var(--muted)", "var(--plot-1)", "var(--plot-2)"}


def test_two_series_have_a_legend_and_a_colour_each() -> None:
    both = {"Database": nights(9), "Dump": nights(9, 1)}
    picture = draw(Plot("p", "T", "D", both, lambda value: f"{value:g} MiB"))
    texts = [text.text for text in picture.iter("text")]
    assert {"Database", "Dump", "0 MiB", "3 MiB"} <= set(texts)
    assert {path.attrib["stroke"] for path in picture.iter("path")} == set(plots._COLOURS)


def test_the_axis_begins_at_nothing_and_ends_above_all() -> None:
    for most in (1, 7, 99, 1e9):
        scale = plots._upwards([most / 2, most])
        assert scale.ticks()[0] == 0 and scale.ticks()[-1] >= most and len(scale.ticks()) <= 6
    assert plots._upwards([0]).ticks()[-1] > 0


@given(st.lists(st.integers(), max_size=300), st.integers(2, 50))
def test_what_is_thinned_keeps_its_ends_and_its_order(points: list[int], most: int) -> None:
    numbered = list(enumerate(points))
    kept = thinned(numbered, most)
    assert len(kept) == min(len(points), most) and kept == sorted(kept)
    assert kept[:1] == numbered[:1] and kept[-1:] == numbered[-1:]
