"""Tables and other pieces of the page. Numbers stand at the right, with their units; times say their zone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from xml.etree.ElementTree import Element

from compose_chap import units
from compose_chap.report.markup import Content, element

UNKNOWN = "not known"
_SHORT = 12  # rows that stay together on paper


@dataclass(frozen=True)
class Heading:
    """The head of a column, and `number` or `when` for what is set like that."""

    head: str
    kind: str = ""


def number(head: str) -> Heading:
    """Return a column of numbers."""
    return Heading(head, "number")


def when(head: str) -> Heading:
    """Return a column of times."""
    return Heading(head, "when")


def headings(*heads: Heading | str) -> list[Heading]:
    """Return the heads of columns, plain ones for mere words."""
    return [head if isinstance(head, Heading) else Heading(head) for head in heads]


def _is_empty(cell: Content) -> bool:
    # An element counts as nothing when it has no elements in it.
    return cell is None or isinstance(cell, (str, list)) and not cell


def table(caption: str, known: Sequence[Heading], rows: Iterable[Sequence[Content]], *, wide: bool = False) -> Element:
    """Return a table whose first column names the row.

    A column in which nothing is known is left out. On a telephone each row becomes a list; a `wide` table is moved to
    the side there.
    """
    cells = [list(row) for row in rows]
    filled = [at for at in range(len(known)) if at == 0 or not all(_is_empty(row[at]) for row in cells)]
    known, cells = [known[at] for at in filled], [[row[at] for at in filled] for row in cells]
    head = (
        element("th", column.head, scope="col", role="columnheader", class_=column.kind or None) for column in known
    )
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", head, role="row"), role="rowgroup"),
        element("tbody", (_row(known, row) for row in cells), role="rowgroup"),
        # A row that is shown as a list would be none for a screen reader without these roles.
        role="table",
        class_=None if wide else "stack short" if len(cells) <= _SHORT else "stack",
    )
    return element("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption) if wide else made


def _row(known: Sequence[Heading], row: Sequence[Content]) -> Element:
    first, *others = zip(known, row)
    cells = [element("td", cell, role="cell", **_of_cell(column, cell)) for column, cell in others]
    return element("tr", element("th", first[1], scope="row", role="rowheader", **_of_cell(*first)), cells, role="row")


def _of_cell(column: Heading, cell: Content) -> dict[str, str | None]:
    kinds = " ".join(filter(None, (column.kind, "none" if _is_empty(cell) else "")))
    return {"data_label": column.head, "class_": kinds or None}


def facts(pairs: Iterable[tuple[str, Content]]) -> Element:
    """Return a list of names and what is so."""
    return element("dl", ((element("dt", name), element("dd", content)) for name, content in pairs))


def folded(summary: str, *content: Content) -> Element:
    """Return what is shown only to those who open it."""
    return element("details", element("summary", summary), content)


def time(moment: datetime | None) -> Content:
    """Return a time with its zone, empty for none."""
    return element("time", units.moment(moment), datetime=moment.isoformat()) if moment else ""


def age(moment: datetime, now: datetime) -> Content:
    """Return a time, and how long ago that is."""
    return [time(moment), " ", element("span", f"({units.age(moment, now)})")]


def size(count: int | None) -> str:
    """Return bytes as a person reads them, empty for nobody knows."""
    return "" if count is None else units.size(count)


def count(value: int | None) -> str:
    """Return a number with its thousands apart, empty for nobody knows."""
    return "" if value is None else f"{value:,}".replace(",", "\u202f")


def verdict(result: str, fine: Sequence[str] = ("done", "running")) -> Content:
    """Return how something ended; what did not end well stands out."""
    return result if result in fine else element("strong", result, class_="bad")
