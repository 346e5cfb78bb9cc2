"""The stacks of one or of many engines, as one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from compose_chap import units
from compose_chap.cli.screen.layout import table
from compose_chap.operations.fleet import ContextStatus

_HEAD = ("SERVER", "PROJECT", "VERSION", "HEALTH", "LAST BACKUP", "UPDATE")


def contexts_text(answers: Iterable[ContextStatus], now: datetime) -> str:
    """Return a line for each stack of each context, and below why some could not be asked."""
    answers = list(answers)
    rows = [[answer.context, *row] for answer in answers for row in _rows(answer, now)]
    failed = [f"{answer.context}: {answer.error['message']}" for answer in answers if answer.error]
    return "\n\n".join([table(rows, ["CONTEXT", *_HEAD]), *failed])


def stacks_text(server: str, stacks: Sequence[Mapping[str, Any]], now: datetime) -> str:
    """Return a line for each stack of one engine."""
    return table(_rows(ContextStatus("", "", server, tuple(stacks)), now), _HEAD)


def _rows(answer: ContextStatus, now: datetime) -> list[list[str]]:
    if answer.error:
        return [["not reached", "", "", "", "", ""]]
    if not answer.stacks:
        return [[answer.server, "no CHAP", "", "", "", ""]]
    return [[answer.server, *_row_of_any(stack, now)] for stack in answer.stacks]


def _row_of_any(stack: Mapping[str, Any], now: datetime) -> list[str]:
    """Return the row of a stack, also where another server's answer is not what this version knows."""
    try:
        return _row(stack, now)
    except (LookupError, TypeError, ValueError, AttributeError):
        return ["?", "", "its answer cannot be used", "", ""]


def _row(stack: Mapping[str, Any], now: datetime) -> list[str]:
    name = stack["project"]["name"]
    if "services" not in stack:
        return [name, "", stack["problems"][0], "", ""]
    version = next((service["version"] for service in stack["services"] if service["role"] == "api"), "")
    return [name, version or "unknown", _health(stack), _last_backup(stack, now), _update(stack)]


def _health(stack: Mapping[str, Any]) -> str:
    health = stack["health"]["level"] if stack["health"] else "not running"
    if working := stack["working"]:
        return f"{health}; {working['operation']} at work"
    if run := stack["open_run"]:
        return f"{health}; {run['operation']} was cut off"
    return health


def _last_backup(stack: Mapping[str, Any], now: datetime) -> str:
    if last := stack["last_backup"]:
        return units.age(datetime.fromisoformat(last["created_at"]), now)
    return "none" if stack["backups_known"] else "not known"


def _update(stack: Mapping[str, Any]) -> str:
    update = stack["update_available"]
    return "not known" if update is None else update or "none"
