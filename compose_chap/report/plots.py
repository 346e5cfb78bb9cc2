"""Plots as SVG that stands in the page itself, drawn by leather. Colours and letters are the page's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from xml.etree.ElementTree import Element

from leather import Chart, Scale, theme
from leather.ticks.score import ScoreTicker

from compose_chap.report.markup import clean, element

Points = Sequence[tuple[datetime, float]]

# What the page's style gives a colour: light, dark, printed.
_COLOURS = ("var(--plot-1)", "var(--plot-2)")
_DOT = 2.5
_ROOM = 16.0  # around the chart, for labels that stand out at its ends
_DAY = timedelta(days=1)
# From these lengths on, an axis names months, or years.
_MONTHS, _YEARS = timedelta(days=200), timedelta(days=1100)

theme.margin = 0.0
theme.background_color = "none"
theme.tick_color = theme.zero_color = "var(--rule)"
theme.label_color = theme.legend_color = "var(--muted)"
theme.tick_font_family = theme.legend_font_family = "inherit"
theme.tick_font_size = theme.legend_font_size = 10
theme.tick_font_char_height = theme.legend_font_char_height = 10
theme.tick_font_char_width = 6
theme.legend_font_char_width = 6
theme.legend_gap = 8
theme.legend_bubble_size = 7
theme.legend_bubble_offset = 2
theme.default_line_width = 1.5


@dataclass(frozen=True)
class Plot:
    """What is drawn: each series by its name, with the unit that its values are in, and how the axis shows a value.

    `title` and `description` are for those who cannot see it. `lines` joins the points.
    """

    name: str
    title: str
    description: str
    series: Mapping[str, Points]
    show: Callable[[float], str]
    lines: bool = True
    width: int = 360
    height: int = 180
    dates: int = 4  # on the axis, at most


class _Span(Scale):  # type: ignore[misc]
    """A scale from exactly one number to another, with these ticks."""

    def __init__(self, least: float, most: float, ticks: Sequence[float]) -> None:
        self._least, self._most, self._ticks = least, most, list(ticks)

    def contains(self, v: float) -> bool:
        return self._least <= v <= self._most

    def project(self, value: float, range_min: float, range_max: float) -> float:
        part = (float(value) - self._least) / (self._most - self._least)
        return round(range_min + (range_max - range_min) * part, 1)

    def ticks(self) -> list[float]:
        return self._ticks


def draw(plot: Plot) -> Element:
    """Return a plot; its series hold at least one point."""
    chart = Chart()
    times = [when for points in plot.series.values() for when, _ in points]
    first, last = _span(min(times), max(times))
    days = _dates(first, last, plot.dates)
    chart.set_x_scale(_Span(first.timestamp(), last.timestamp(), [day.timestamp() for day in days]))
    chart.add_x_axis(tick_formatter=_date_format(last - first))
    chart.set_y_scale(_upwards([value for points in plot.series.values() for _, value in points]))
    chart.add_y_axis(tick_formatter=lambda value, *_: plot.show(value))
    for (name, points), colour in zip(plot.series.items(), _COLOURS):
        numbers = [(when.timestamp(), float(value)) for when, value in points]
        if plot.lines and len(numbers) > 1:
            chart.add_line(numbers, name=clean(name), stroke_color=colour)
        else:
            chart.add_dots(numbers, name=clean(name), fill_color=colour, radius=_DOT)
    return _picture(plot, chart)


def thinned(points: Sequence[Any], most: int) -> list[Any]:
    """Return at most `most` of the points, evenly spaced, with the first and the last."""
    if len(points) <= most:
        return list(points)
    return [points[round(number * (len(points) - 1) / (most - 1))] for number in range(most)]


def _picture(plot: Plot, chart: Chart) -> Element:
    drawn = chart.to_svg_group(plot.width - 2 * _ROOM, plot.height - 2 * _ROOM)
    picture = element(
        "svg",
        element("title", plot.title, id=f"{plot.name}-title"),
        element("desc", plot.description, id=f"{plot.name}-desc"),
        drawn,
        role="img",
        aria_labelledby=f"{plot.name}-title {plot.name}-desc",
    )
    picture.set("viewBox", f"{-_ROOM / 2:g} {-_ROOM:g} {plot.width} {plot.height}")
    return picture


def _span(first: datetime, last: datetime) -> tuple[datetime, datetime]:
    """Return what an axis of time shows: some room at both ends, for a single moment a day."""
    room = (last - first) / 50 if last - first > 2 * _DAY else _DAY
    return first - room, last + room


def _upwards(values: Iterable[float]) -> _Span:
    most = max([*values, 0.0])
    ticks = [float(tick) for tick in ScoreTicker(Decimal(0), Decimal(most or 1)).ticks]
    # Half as many are enough, where that leaves the last.
    ticks = ticks[::2] if len(ticks) > 5 and len(ticks) % 2 else ticks
    return _Span(0.0, ticks[-1], ticks)


def _date_format(length: timedelta) -> Callable[..., str]:
    form = "%m-%d" if length < _MONTHS else "%Y-%m" if length < _YEARS else "%Y"
    return lambda value, *_: datetime.fromtimestamp(value).strftime(form)


def _dates(first: datetime, last: datetime, most: int) -> list[datetime]:
    """Return at most `most` days, firsts of a month or firsts of a year between two times, evenly spaced."""
    length = last - first
    morning = first.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    days = [morning + _DAY * number for number in range(1, length.days + 1)]
    if length >= _MONTHS:
        days = [day for day in days if day.day == 1]
    if length >= _YEARS:
        days = [day for day in days if day.month == 1]
    return days[:: -(-len(days) // most) or 1]
