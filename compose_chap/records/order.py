"""In which order things were made, also where a clock was ahead or behind.

The ids of backups and runs are times, as operators read them, and the clock that they are taken from can be wrong.
So each one has an `order` beside its id: the time at which it was made, and always later than the order of
everything before it. While the clock is right the two are the same. What was made before there was an `order` goes
by its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from compose_chap import units
from compose_chap.errors import StateError
from compose_chap.reading import Value

# Between these a reader of records takes a time for one.
_FIRST, _LAST = datetime(1971, 1, 1, tzinfo=timezone.utc), datetime(8999, 12, 31, tzinfo=timezone.utc)


def following(now: datetime, earlier: Iterable[datetime]) -> datetime:
    """Return the order of what is made now, after others."""
    return max([now, *(min(one, _LAST) + timedelta(seconds=1) for one in earlier)])


def of_run(record: Mapping[str, Any]) -> datetime:
    """Return the order of a run, by its record."""
    return _time(record, "order") or began(record)


def began(record: Mapping[str, Any]) -> datetime:
    """Return when a run began, by its record; long ago for one that does not say."""
    return _time(record, "started_at") or _FIRST


def _time(record: Mapping[str, Any], name: str) -> datetime | None:
    when = Value(record, "", StateError).get(name)
    return when.moment() if when else None


def warnings(kind: str, dated: Mapping[str, datetime], now: datetime) -> list[str]:
    """Return a warning for each thing, `dated` by its name, whose time lies in the future."""
    return [
        f"{kind} {name} is dated in the future ({units.moment(when)}): the clock was ahead when it was made, or it is"
        " behind now. Its age is not known."
        for name, when in dated.items()
        if units.ahead(when, now)
    ]
