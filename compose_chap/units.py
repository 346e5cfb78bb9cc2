"""Numbers and times as a person reads them."""

from __future__ import annotations

from datetime import datetime, timedelta

# No two clocks show the very same time.
_SKEW = timedelta(minutes=5)


def size(count: float) -> str:
    """Return bytes as a person reads them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit in ("B", "KiB") or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """Return seconds as a person reads them."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02}m"


def stopwatch(seconds: float) -> str:
    """Return what a clock shows that runs before a person's eyes: tenths of a second in the first minute."""
    return f"{seconds:.1f}s" if seconds < 59.95 else duration(seconds)


def several(count: int, noun: str, plural: str = "") -> str:
    """Return a number of things: `1 check`, `2 checks`, `2 copies`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def age(then: datetime, now: datetime) -> str:
    """Return how long ago something was."""
    if ahead(then, now):
        return "in the future"
    seconds = max((now - then).total_seconds(), 0)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def ahead(when: datetime, now: datetime) -> bool:
    """Whether a time lies in the future, by more than two clocks differ."""
    return when - now > _SKEW


def short_age(then: datetime, now: datetime) -> str:
    """Return how long ago something was, as a column of a table has room for it."""
    if ahead(then, now):
        return "future"
    seconds = max((now - then).total_seconds(), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return "now"


def moment(when: datetime | str) -> str:
    """Return a time (or its ISO 8601 text) in the local time zone, with the zone's name."""
    known = datetime.fromisoformat(when) if isinstance(when, str) else when
    return known.astimezone().strftime("%Y-%m-%d %H:%M %Z")


def dated(when: datetime | None, now: datetime) -> str:
    """Return when something was, and how long ago: `2026-11-28 01:30 UTC, 2 hours ago`; `none` for never."""
    return f"{moment(when)}, {age(when, now)}" if when else "none"


def clipped(text: str, most: int) -> str:
    """Return the beginning of a text, at most `most` bytes in UTF-8, without cutting a letter."""
    return text.encode(errors="replace")[:most].decode(errors="ignore")
