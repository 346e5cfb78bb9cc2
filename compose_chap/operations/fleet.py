"""The stacks of every Docker context, asked in parallel.

Each context gets its own process, the same command with that context: a process that hangs can be ended at any
moment, and no context can be mistaken for another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compose_chap.errors import EngineError, UsageError
from compose_chap.processes import process
from compose_chap.processes.process import Finished

_ASK = ("chap", "status", "--all-stacks", "--json")


@dataclass(frozen=True)
class ContextStatus:
    """The answer of a context's engine: the documents of its stacks, or an `error` as in the document of a failure."""

    context: str
    address: str
    server: str = ""
    stacks: tuple[Mapping[str, Any], ...] = ()
    error: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {**vars(self), "stacks": list(self.stacks)}


def ask(docker: Sequence[str], limit: float) -> list[ContextStatus]:
    """Ask the engine of every Docker context, each for at most `limit` seconds, and return all answers.

    Raise UsageError when `docker` has a --host, which excludes contexts. Raise EngineError without Docker.
    """
    if any(word.startswith(("-H", "--host")) for word in docker[1:]):
        raise UsageError("--all-contexts goes to every Docker context; -H names one engine.", hint="Leave out -H.")
    contexts = _contexts(docker)
    finished = process.run_together([[*docker, "--context", name, *_ASK] for name, _ in contexts], limit)
    return [_answer(name, address, done, limit) for (name, address), done in zip(contexts, finished)]


def _contexts(docker: Sequence[str]) -> list[tuple[str, str]]:
    listed = process.run([*docker, "context", "ls", "--format", "{{json .}}"])
    if listed.status != 0:
        raise EngineError(
            f"Docker does not say which contexts there are.\n{listed.last_lines}", hint="docker context ls"
        )
    contexts = [json.loads(line) for line in listed.stdout.splitlines()]
    return [(context["Name"], context["DockerEndpoint"]) for context in contexts]


def _answer(name: str, address: str, done: Finished | None, limit: float) -> ContextStatus:
    if done is None:
        message = f"It did not answer within {limit:g} seconds."
        return ContextStatus(name, address, error=_error("late", message, "Wait longer with --time-limit SECONDS."))
    try:
        document = json.loads(done.stdout)
        if document["ok"]:
            return ContextStatus(name, address, document["server"], tuple(document["stacks"]))
        return ContextStatus(name, address, error=document["error"])
    except (ValueError, LookupError, TypeError):
        hint = f"Try it alone: docker --context {name} chap status --all-stacks"
        return ContextStatus(name, address, error=_error("failed", done.last_lines or "It gave no output.", hint))


def _error(code: str, message: str, hint: str) -> dict[str, str]:
    return {"code": code, "message": message, "state": "", "hint": hint}
