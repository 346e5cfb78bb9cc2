"""The history of a stack: its audit trail combined with the records of its runs. Needs no engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from compose_chap import units
from compose_chap.engine.world import World
from compose_chap.errors import EngineError
from compose_chap.model import Origin
from compose_chap.records import audit, engine_lock, order, run_records
from compose_chap.records.audit import AuditEntry


def trail(directory: Path, origin: Origin, runs: Sequence[Mapping[str, Any]]) -> list[AuditEntry]:
    """Return every attempt on a stack, oldest first, each with the run of `runs` that it began.

    A run that is missing in the trail, for example of an older version, gets its own entry before all others.
    """
    entries, earlier = audit.entries(directory, origin, complete=True), []
    for run in runs:
        began = order.began(run)
        at = _began_by(entries, str(run["operation"]), began)
        if at is None:
            earlier.append(_of_run(run, began))
        else:
            entries[at] = _with_run(entries[at], run)
    return [*earlier, *entries]


def cut_off(world: World, directory: Path, origin: Origin) -> list[dict[str, Any]]:
    """Return the record of a stack's open run, none for one that goes on. Raise StateError."""
    journal = run_records.open_run(directory, world.clock)
    if journal is None:
        return []
    whose = Origin.of(journal.record)
    with suppress(EngineError):  # without an engine nobody elsewhere can be at work either
        if not origin.owns(whose) or engine_lock.holder(world.engine, whose.project):
            return []
    return [{**journal.report, "result": audit.CUT_OFF}]


def _began_by(entries: Sequence[AuditEntry], operation: str, moment: datetime) -> int | None:
    """Return the entry that began a run. The lock ensures that no two runs of a kind overlap."""
    for at in reversed(range(len(entries))):
        entry = entries[at]
        fits = entry.operation == operation and not entry.run and entry.began_at <= moment
        if fits and not (entry.ended_at and entry.ended_at < moment):
            return at
    return None


def _with_run(entry: AuditEntry, run: Mapping[str, Any]) -> AuditEntry:
    summary = ", ".join(filter(None, (entry.summary or _versions(run), _downtime(run))))
    if entry.result == audit.CUT_OFF and run["result"] != audit.CUT_OFF:
        summary = ", ".join(filter(None, (summary, f"later {run['result']}")))
    return replace(entry, run=str(run["id"]), summary=summary)


def _of_run(run: Mapping[str, Any], began: datetime) -> AuditEntry:
    return AuditEntry(
        id=str(run["id"]),
        operation=str(run["operation"]),
        words=(),
        by=str(run.get("by", "")),
        user="",
        began_at=began,
        origin=Origin.of(run),
        ended_at=datetime.fromisoformat(run["ended_at"]) if run.get("ended_at") else None,
        result=str(run["result"]),
        message=str(run.get("failure") or ""),
        summary=_summary(run),
        run=str(run["id"]),
    )


def _summary(run: Mapping[str, Any]) -> str:
    return ", ".join(filter(None, (_versions(run), _downtime(run))))


def _downtime(run: Mapping[str, Any]) -> str:
    """Return for how long CHAP was down, beside what its plan had foretold."""
    actual, expected = run.get("downtime"), run.get("expected_downtime")
    if not isinstance(actual, float):
        return ""
    beside = f", {units.duration(expected)} expected" if isinstance(expected, float) else ""
    return f"down {units.duration(actual)}{beside}"


def _versions(run: Mapping[str, Any]) -> str:
    if undone := run.get("undoes"):
        return f"of {undone}"
    return " to ".join(dict.fromkeys(_release(run[end]) for end in ("from", "to") if run.get(end)))


def _release(version: str) -> str:
    return version.removeprefix("v") if version[1:2].isdigit() else version
