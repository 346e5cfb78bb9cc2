"""For how long an upgrade will take CHAP down: what earlier upgrades here took, scaled to the size of the database.

Pure, but for the one measurement that the caller brings. The last three upgrades count, by their median: one that ran
while the server was busy, or had much to migrate, then spoils no forecast, and a faster disk is known after two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from compose_chap.records.steps import Step

# Bytes of a database from which on its copy matters, and says how fast the disk is.
LARGE = 500_000_000
_LAST = 3

# What is reckoned with where nobody knows better: the API stops, the new one starts, and a slow disk copies.
_STOP_SECONDS, _START_SECONDS = 1.5, 6.0
_COPIED_PER_SECOND = 200e6
# What is measured is a short copy of what is in memory. A long one has to read from the same disk, and many disks are
# quick for the first seconds only. Measured: 0.35 to 0.65.
_LONG_TO_SHORT = 0.5
_DUMPED_PER_SECOND = 40e6
_RESTORED_PER_SECOND = 45e6
# A copy takes that long whatever the size: PostgreSQL writes down what was changed, before it and after it.
_COPY_AT_LEAST = 0.2


@dataclass(frozen=True)
class Forecast:
    """What is expected of an upgrade, in seconds: `preserving` the old data, and the `rest` of the downtime.

    `restoring` is how long it would take to bring the old data back from a dump.
    """

    preserving: float
    rest: float
    restoring: float

    @property
    def downtime(self) -> float:
        """For how long CHAP will not answer."""
        return self.preserving + self.rest


@dataclass(frozen=True)
class _Earlier:
    """What an upgrade took: downtime apart from keeping the old data; bytes copied a second, 0 for unknown."""

    rest: float
    rate: float


def forecast(
    size: int,
    runs: Sequence[Mapping[str, Any]],
    start: float = 0.0,
    measure: Callable[[], float] = float,
    *,
    by_dump: bool = False,
    rehearsed: bool = False,
) -> Forecast:
    """Return what to expect of an upgrade of a database of `size` bytes, from the records of a stack's `runs`.

    Before the first one it comes from how many seconds the new API takes to `start` (0 for unknown), and how many bytes
    the disk copies a second. That is asked of `measure` only where it matters, and 0 is for unknown there too. A start
    that was `rehearsed` says more than those of other versions.
    """
    earlier = [known for run in runs if (known := _of_run(run))][-_LAST:]
    rest = _STOP_SECONDS + (start or _START_SECONDS)
    if earlier and not rehearsed:
        rest = median(run.rest for run in earlier)
    restoring = size / _RESTORED_PER_SECOND
    if by_dump:
        return Forecast(size / _DUMPED_PER_SECOND, rest, restoring)
    rates = [run.rate for run in earlier if run.rate]
    if rates:
        rate = median(rates)
    else:
        rate = (size >= LARGE and measure() * _LONG_TO_SHORT) or _COPIED_PER_SECOND
    return Forecast(_COPY_AT_LEAST + size / rate, rest, restoring)


def _of_run(run: Mapping[str, Any]) -> _Earlier | None:
    """Return what the record of a run tells, None where it is no upgrade that succeeded."""
    down, size = run.get("downtime"), run.get("database_bytes")
    if run["operation"] != "upgrade" or not isinstance(down, float):
        return None
    begun = [(step["step"], datetime.fromisoformat(step["at"])) for step in run["steps"]]
    # The next step begins when the data are kept. Of an upgrade that had nothing to keep, all is the rest.
    kept = [(after - at).total_seconds() for (step, at), (_, after) in zip(begun, begun[1:]) if step == Step.KEEP]
    keeping = kept[-1] if kept else 0.0
    # Older records do not have the size, and a dump says nothing of a copy.
    rate = 0.0
    if isinstance(size, int) and size >= LARGE and keeping and not run["facts"].get("kept_dump"):
        rate = size / max(keeping - _COPY_AT_LEAST, 0.1)
    return _Earlier(max(down - keeping, 0.0), rate)
