"""The order in which backups and runs were made, even if a clock was ahead or behind.

Their ids are times, for operators, and the clock may be wrong. So each also has an `order`: the time at which it was
made, but always later than the order of everything before it. While the clock is right, both are the same. Records
of older versions have no `order` and use their time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from compose_chap import units
from compose_chap.errors import StateError
from compose_chap.reading import Value

# The strict reader accepts times between these.
_FIRST, _LAST = datetime(1971, 1, 1, tzinfo=timezone.utc), datetime(8999, 12, 31, tzinfo=timezone.utc)


def following(now: datetime, earlier: Iterable[datetime]) -> datetime:
    """Return the order of something made now, after the `earlier` ones."""
    return max([now, *(min(moment, _LAST) + timedelta(seconds=1) for moment in earlier)])


def of_run(record: Mapping[str, Any]) -> datetime:
    """Return the order of a run from its record."""
    return _time(record, "order") or began(record)


def began(record: Mapping[str, Any]) -> datetime:
    """Return when a run began, from its record; long ago if the record lacks it."""
    return _time(record, "started_at") or _FIRST


def _time(record: Mapping[str, Any], name: str) -> datetime | None:
    when = Value(record, "", StateError).get(name)
    return when.moment() if when else None


def warnings(kind: str, dated: Mapping[str, datetime], now: datetime) -> list[str]:
    """Return a warning for each entry of `dated` (name to time) whose time is in the future."""
    return [
        f"{kind} {name} is dated in the future ({units.moment(when)}): the clock was ahead when it was made, or it is"
        " behind now. Its age is not known."
        for name, when in dated.items()
        if units.ahead(when, now)
    ]


def effective(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return of ended runs those that succeeded and were not undone since, without `pin`."""
    done = [run for run in runs if run["result"] == "done"]
    undone = {run.get("undoes") for run in done if run["operation"] == "rollback"}
    return [run for run in done if run["operation"] not in ("rollback", "pin") and run["id"] not in undone]
