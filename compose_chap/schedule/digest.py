"""The summary of a week, for those who want to hear that all is well, too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from compose_chap import reading, units
from compose_chap.errors import StateError
from compose_chap.reading import Value
from compose_chap.records import audit
from compose_chap.records.audit import AuditEntry
from compose_chap.schedule.routine import Routine

WEEKLY = "weekly"
_WEEK = timedelta(days=7)
# A run by hand does not bring a second summary in a week.
_AT_LEAST = timedelta(days=5)


def due(last: datetime | None, now: datetime) -> bool:
    """Whether it is time for another summary, the last having been made then. One of the future does not count."""
    return last is None or units.ahead(last, now) or now - last >= _AT_LEAST


def facts(
    trail: Sequence[AuditEntry], seen: Routine, status: Mapping[str, Any], now: datetime
) -> list[tuple[str, str]]:
    """Return the summary of the week that ends `now`, as names and values. `status` is the document of `status`."""
    week = [entry for entry in trail if timedelta(0) <= now - entry.began_at <= _WEEK]
    counted = [
        ("Backups made", _count(week, "backup")),
        ("Copies made elsewhere", _count(week, "copy")),
        ("Test restores", _count(week, "verify")),
        ("Newest backup", units.dated(seen.last_backup, now)),
        ("Newest copy elsewhere", units.dated(seen.last_copy, now)),
        ("Last test restore of a copy", units.dated(seen.last_drill, now)),
    ]
    return [*counted, *_of_status(reading.Value(dict(status), "the status", StateError))]


def _count(week: Sequence[AuditEntry], operation: str) -> str:
    results = [entry.result for entry in week if entry.operation == operation]
    done = results.count(audit.DONE)
    others = len(results) - done - results.count(audit.RUNNING)
    return f"{done}, and {others} that did not end well" if others else str(done)


def _of_status(status: Value) -> Iterator[tuple[str, str]]:
    """Yield what the status knows; a fact that it does not know is left out."""
    with suppress(StateError):
        versions = {version for item in status.at("services").items() if (version := item.at("version").text())}
        if versions:
            yield "Version of CHAP", ", ".join(sorted(versions))
    if (update := status.get("update_available")) and update.data:
        yield "Newer version", str(update.data)
    for name, of, fact in (
        ("Size of the newest backup", "last_backup", "size"),
        ("Size of the database", "database", "size"),
        ("Free for the database", "disks", "database_free"),
        ("Free for backups", "disks", "backups_free"),
    ):
        with suppress(StateError):
            yield name, units.size(status.at(of).at(fact).integer())
    with suppress(StateError):
        for problem in status.at("problems").texts():
            yield "Problem", problem
