"""CHAP's answers, read strictly: an old release, a proxy or a model service may put anything where JSON is due."""

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
    """An HTTP answer: its status (0 when nothing answered) and its text."""

    status: int
    body: str

    @property
    def json(self) -> Any:
        """The body as JSON, None when it is none: a login page also answers 200."""
        try:
            return parse(self.body, "The answer", EngineError, LARGEST).data
        except EngineError:
            return None


@dataclass(frozen=True)
class Job:
    """A job of CHAP's own list; its type is empty where the list does not say."""

    status: str
    type: str


def answers_of(output: str, count: int) -> tuple[str, list[Answer]]:
    """Return CHAP's version and the answers, `count` of them, that the program in its container printed.

    Raise EngineError when it printed something else.
    """
    value = parse(output, "What the API's container answered", EngineError, count * LARGEST)
    # A body may hold anything, NULs too: it is looked at when it is read as something.
    answers = [Answer(one.at("status").integer(), str(one.at("body").data)) for one in value.at("answers").items()]
    if len(answers) != count:
        raise value.at("answers").wrong(f"has {len(answers)} entries, not {count}")
    return value.at("version").text(100), answers


def jobs_in(answer: Answer) -> dict[str, Job]:
    """Return the jobs of CHAP's own list by id; none where it has no such list.

    Raise EngineError when the list is none, or a job in it has no id or status.
    """
    if answer.status != 200:
        return {}
    listed = parse(answer.body, "CHAP's list of jobs", EngineError, LARGEST)
    return {job.at("id").filled(200): Job(job.at("status").text(200), _type(job.data)) for job in listed.items()}


def models_in(answer: Answer) -> tuple[str, ...]:
    """Return the ids of the model services that are registered; what has no id is none."""
    services = answer.json.get("services") if isinstance(answer.json, dict) else None
    listed = services if isinstance(services, list) else []
    return tuple(sorted({one["id"] for one in listed if isinstance(one, dict) and _is_id(one.get("id"))}))


def checks_in(answer: Answer) -> Mapping[str, str]:
    """Return what CHAP says of each of its parts, empty where it says nothing of parts."""
    checks = answer.json.get("checks") if isinstance(answer.json, dict) else None
    return {part: said if isinstance(said, str) else json.dumps(said) for part, said in _members(checks)}


def _type(job: Any) -> str:
    said = job.get("type")
    return said if isinstance(said, str) else ""


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
