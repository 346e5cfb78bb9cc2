"""Every server that there is a Docker context for: each is asked for its stacks, side by side.

Each context has a process of its own, the same command with that context: one that hangs can be ended at any moment,
and none can be taken for another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from compose_chap import process, screen, units
from compose_chap.errors import EngineError, UsageError
from compose_chap.process import Finished

_ASK = ("chap", "status", "--all-stacks", "--json")
_HEAD = ("SERVER", "PROJECT", "VERSION", "HEALTH", "LAST BACKUP", "UPDATE")


@dataclass(frozen=True)
class Answer:
    """What a context's engine answered: the documents of its stacks, or an `error` as a failure's document has it."""

    context: str
    address: str
    server: str = ""
    stacks: tuple[Mapping[str, Any], ...] = ()
    error: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {**vars(self), "stacks": list(self.stacks)}


def ask(docker: Sequence[str], limit: float) -> list[Answer]:
    """Ask the engine of every Docker context, each for `limit` seconds at most, and return all answers.

    Raise UsageError where `docker` names a host: contexts cannot be told from it. Raise EngineError without Docker.
    """
    if any(word.startswith(("-H", "--host")) for word in docker[1:]):
        raise UsageError("--all-contexts goes to every Docker context; -H names one engine.", hint="Leave -H away.")
    contexts = _contexts(docker)
    finished = process.run_together([[*docker, "--context", name, *_ASK] for name, _ in contexts], limit)
    return [_answer(name, address, done, limit) for (name, address), done in zip(contexts, finished)]


def _contexts(docker: Sequence[str]) -> list[tuple[str, str]]:
    listed = process.run([*docker, "context", "ls", "--format", "{{json .}}"])
    if listed.status != 0:
        raise EngineError(f"Docker does not say which contexts there are.\n{listed.said}", hint="docker context ls")
    found = [json.loads(line) for line in listed.stdout.splitlines()]
    return [(one["Name"], one["DockerEndpoint"]) for one in found]


def _answer(name: str, address: str, done: Finished | None, limit: float) -> Answer:
    if done is None:
        said = f"It did not answer within {limit:g} seconds."
        return Answer(name, address, error=_error("late", said, "Wait longer with --time-limit SECONDS."))
    try:
        document = json.loads(done.stdout)
        if document["ok"]:
            return Answer(name, address, document["server"], tuple(document["stacks"]))
        return Answer(name, address, error=document["error"])
    except (ValueError, LookupError, TypeError):
        hint = f"Try it alone: docker --context {name} chap status --all-stacks"
        return Answer(name, address, error=_error("failed", done.said or "It said nothing.", hint))


def _error(code: str, message: str, hint: str) -> dict[str, str]:
    return {"code": code, "message": message, "state": "", "hint": hint}


# For people


def text(answers: Iterable[Answer], now: datetime) -> str:
    """Return a line for each stack of each context, and below why some could not be asked."""
    answers = list(answers)
    rows = [[one.context, *row] for one in answers for row in _rows(one, now)]
    failed = [f"{one.context}: {one.error['message']}" for one in answers if one.error]
    return "\n\n".join([screen.table(rows, ["CONTEXT", *_HEAD]), *failed])


def stacks_text(server: str, stacks: Sequence[Mapping[str, Any]], now: datetime) -> str:
    """Return a line for each stack of one engine."""
    return screen.table(_rows(Answer("", "", server, tuple(stacks)), now), _HEAD)


def _rows(answer: Answer, now: datetime) -> list[list[str]]:
    if answer.error:
        return [["not reached", "", "", "", "", ""]]
    if not answer.stacks:
        return [[answer.server, "no CHAP", "", "", "", ""]]
    return [[answer.server, *_row(stack, now)] for stack in answer.stacks]


def _row(stack: Mapping[str, Any], now: datetime) -> list[str]:
    name = stack["project"]["name"]
    if "services" not in stack:
        return [name, "", stack["problems"][0], "", ""]
    version = next((one["version"] for one in stack["services"] if one["role"] == "api"), "")
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
    found = stack["update_available"]
    return "not known" if found is None else found or "none"
