"""Strict parsing of CHAP's answers: an old release, a proxy or a model service may send anything in place of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compose_chap.errors import EngineError
from compose_chap.reading import parse

LARGEST = 8 << 20  # bytes of an answer


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: its status (0 for no answer) and its text."""

    status: int
    body: str

    @property
    def json(self) -> Any:
        """The body as JSON, None when it is not JSON: a login page also answers 200."""
        try:
            return parse(self.body, "The answer", EngineError, LARGEST).data
        except EngineError:
            return None


@dataclass(frozen=True)
class Job:
    """A job of CHAP's own list; its type is empty where the list lacks it."""

    status: str
    type: str


def answers_of(output: str, count: int) -> tuple[str, list[Answer]]:
    """Return CHAP's version and the answers, `count` of them, that the program in its container printed.

    Raise EngineError when it printed something else.
    """
    value = parse(output, "What the API's container answered", EngineError, count * LARGEST)
    # A body may hold anything, NULs too: it is checked later, when it is parsed.
    answers = [
        Answer(answer.at("status").integer(), str(answer.at("body").data)) for answer in value.at("answers").items()
    ]
    if len(answers) != count:
        raise value.at("answers").wrong(f"has {len(answers)} entries, not {count}")
    return value.at("version").text(100), answers


def jobs_in(answer: Answer) -> dict[str, Job]:
    """Return the jobs of CHAP's own list by id; empty where it has no such list.

    Raise EngineError when it is not a list, or a job in it has no id or status.
    """
    if answer.status != 200:
        return {}
    listed = parse(answer.body, "CHAP's list of jobs", EngineError, LARGEST)
    return {job.at("id").filled(200): Job(job.at("status").text(200), _type(job.data)) for job in listed.items()}


def models_in(answer: Answer) -> tuple[str, ...]:
    """Return the ids of the registered model services; entries without an id are ignored."""
    services = answer.json.get("services") if isinstance(answer.json, dict) else None
    listed = services if isinstance(services, list) else []
    return tuple(
        sorted({service["id"] for service in listed if isinstance(service, dict) and _is_id(service.get("id"))})
    )


def checks_in(answer: Answer) -> Mapping[str, str]:
    """Return the state of each part that CHAP reports, empty where it reports none."""
    checks = answer.json.get("checks") if isinstance(answer.json, dict) else None
    return {part: state if isinstance(state, str) else json.dumps(state) for part, state in _members(checks)}


def _type(job: Any) -> str:
    name = job.get("type")
    return name if isinstance(name, str) else ""


def _members(data: Any) -> list[tuple[str, Any]]:
    return list(data.items()) if isinstance(data, dict) else []


def _is_id(data: Any) -> bool:
    return isinstance(data, str) and bool(data) and len(data) <= 200 and _can_be_written(data)


def _can_be_written(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
