"""The sections that draw: how the database and its dumps grew, how long CHAP was down, and the rows of each table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from compose_chap import units
from compose_chap.report.facts.known import BackupLine, ReportFacts
from compose_chap.report.facts.lines import measured
from compose_chap.report.markup import Content, element
from compose_chap.report.plots import Plot, Points, draw, thinned
from compose_chap.report.tables import count, folded, headings, number, size, table, time, when

_DRAWN = 120  # points of a plot
_LISTED = 40  # lines of the table below it
_TABLES = 12  # that are drawn
_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("bytes", 1))


def sizes(known: ReportFacts) -> Content:
    """Return the plots of the sizes and of the downtimes, each with its numbers."""
    parts: list[Content] = []
    if lines := measured(known.backups):
        parts.append(_sizes(lines))
    if downtimes := [(line.at, line.downtime) for line in known.changes if line.downtime is not None]:
        parts.append(_downtimes([(at, down) for at, down in downtimes if down is not None]))
    if not parts:
        return element("p", "Nothing is known yet: sizes are written down with each backup.")
    return element("div", parts, class_="plots")


def _sizes(lines: Sequence[BackupLine]) -> Content:
    drawn = thinned(lines, _DRAWN)
    databases = [(line.made_at, line.database_size or 0) for line in drawn]
    dumps = [(line.made_at, line.dump_size or 0) for line in drawn]
    unit, bytes_ = _unit(max(value for _, value in (*databases, *dumps)))
    series: dict[str, Points] = {
        "Database": [(at, value / bytes_) for at, value in databases],
        "Dump": [(at, value / bytes_) for at, value in dumps],
    }
    first, last = lines[0], lines[-1]
    about = (
        f"The database had {size(first.database_size)} and its dump {size(first.dump_size)} at"
        f" {units.moment(first.made_at)}; {size(last.database_size)} and {size(last.dump_size)} at"
        f" {units.moment(last.made_at)}."
    )
    plot = Plot("size-plot", "Size of the database and of its dumps", about, series, lambda value: f"{value:g} {unit}")
    rows = [[time(line.made_at), size(line.database_size), size(line.dump_size)] for line in thinned(lines, _LISTED)]
    heads = headings(when("Backup made"), number("Database"), number("Dump"))
    numbers = folded(_numbers(len(rows), len(lines)), table("Size of the database and of its dumps", heads, rows))
    return element("figure", element("figcaption", plot.title), draw(plot), numbers)


def _downtimes(lines: Sequence[tuple[datetime, float]]) -> Content:
    longest, last = max(down for _, down in lines), lines[-1][1]
    about = f"{len(lines)} changes. CHAP was down {units.stopwatch(longest)} at most, and {units.stopwatch(last)} last."
    drawn: Points = thinned(lines, _DRAWN)
    plot = Plot(
        "downtime-plot", "How long each change took CHAP down", about, {"Downtime": drawn}, _duration, lines=False
    )
    rows = [[time(at), units.stopwatch(down)] for at, down in thinned(lines, _LISTED)]
    numbers = table("How long each change took CHAP down", headings(when("Change"), number("CHAP down")), rows)
    return element(
        "figure", element("figcaption", plot.title), draw(plot), folded(_numbers(len(rows), len(lines)), numbers)
    )


def rows(known: ReportFacts) -> Content:
    """Return a small plot for each table that changed most, and the numbers of all."""
    lines = [line for line in known.backups if line.tables]
    if not lines:
        return element("p", "Nothing is known yet: the rows of each table are written down with each backup.")
    names = sorted({name for line in lines for name in line.tables}, key=lambda name: (-_change(lines, name), name))
    changed = [name for name in names if _change(lines, name)]
    drawn = changed[:_TABLES]
    pictures = [_table(number_, name, lines) for number_, name in enumerate(drawn)]
    about = f"{len(changed)} of {len(names)} tables changed between {units.moment(lines[0].made_at)} and"
    about += f" {units.moment(lines[-1].made_at)}."
    about += f" Drawn are the {len(drawn)} that changed most." if len(changed) > len(drawn) else ""
    return [
        element("p", about),
        element("div", pictures, class_="plots small") if pictures else None,
        _latest(names, lines),
        _all_numbers(drawn, lines) if drawn else None,
    ]


def _change(lines: Sequence[BackupLine], name: str) -> int:
    values = [line.tables[name] for line in lines if name in line.tables]
    # A table that came or went changed too.
    return max(values) - min(values) + (len(values) < len(lines))


def _table(number_: int, name: str, lines: Sequence[BackupLine]) -> Content:
    points: Points = thinned([(line.made_at, line.tables[name]) for line in lines if name in line.tables], _DRAWN)
    first, last = int(points[0][1]), int(points[-1][1])
    about = f"{count(first)} rows at {units.moment(points[0][0])}, {count(last)} at {units.moment(points[-1][0])}."
    title = f"Rows of {name}"
    plot = Plot(f"rows-plot-{number_}", title, about, {"Rows": points}, _short, width=190, height=112, dates=2)
    return element("figure", element("figcaption", element("code", _plain(name))), draw(plot))


def _latest(names: Sequence[str], lines: Sequence[BackupLine]) -> Content:
    first, last = lines[0], lines[-1]
    numbers = [
        [
            _plain(name),
            count(first.tables.get(name)),
            count(last.tables.get(name)),
            _signed(last.tables.get(name, 0) - first.tables.get(name, 0)),
        ]
        for name in names
    ]
    heads = headings("Table", number("First backup"), number("Newest backup"), number("Change"))
    caption = f"Rows of each table, {units.moment(first.made_at)} and {units.moment(last.made_at)}"
    return folded(f"All {len(names)} tables as numbers", table(caption, heads, numbers))


def _all_numbers(names: Sequence[str], lines: Sequence[BackupLine]) -> Content:
    listed = thinned(lines, _LISTED)
    numbers = [[time(line.made_at), *(count(line.tables.get(name)) for name in names)] for line in listed]
    heads = headings(when("Backup made"), *(number(_plain(name)) for name in names))
    made = table("Rows of the tables that are drawn", heads, numbers, wide=True)
    return folded(_numbers(len(listed), len(lines)), made)


def _numbers(listed: int, known: int) -> str:
    return "The same as numbers" + (f" ({listed} of {known}, evenly)" if listed < known else "")


def _unit(most: float) -> tuple[str, int]:
    return next((unit for unit in _UNITS if most >= unit[1]), _UNITS[-1])


def _plain(name: str) -> str:
    return name.removeprefix("public.")


def _signed(value: int) -> str:
    return "0" if not value else ("+" if value > 0 else "\u2212") + count(abs(value))


def _duration(seconds: float) -> str:
    return f"{seconds:g}s" if seconds < 60 else units.duration(seconds)


def _short(value: float) -> str:
    for unit, many in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= many:
            return f"{value / many:g}{unit}"
    return f"{value:g}"
