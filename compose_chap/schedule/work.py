"""What the work of a night, a week and a month is: commands of this tool, each in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from compose_chap.errors import EngineError
from compose_chap.processes import process
from compose_chap.processes.process import Finished
from compose_chap.schedule.plan import MONTHLY, NIGHTLY, Schedule

# Seconds to wait for another run on the stack, or in the repository: a first copy over a slow link takes hours.
_PATIENCE = 4 * 3600
# How much of the repository is read back each week, in percent: all of it in five months.
_SUBSET = 5
# What a run record keeps of the document of a command.
_TELLING = ("backup", "copy", "sent", "existed", "proven_by", "tables", "removed", "backups", "copies", "checked")


@dataclass(frozen=True)
class WorkPart:
    """A part of the work: its name, the words of its command, and the part without which it is left out."""

    name: str
    words: tuple[str, ...]
    needs: str = ""


@dataclass(frozen=True)
class WorkOutcome:
    """How a part ended. `exit_status` is None for a part that was left out.

    `message` says why it failed or was left out, and of one that is done what a person should know; `hint` says what
    to do about a failure, empty for nothing that is known.
    """

    name: str
    exit_status: int | None
    seconds: float = 0
    message: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    hint: str = ""

    @property
    def failed(self) -> bool:
        """Whether it did not do what it should."""
        return self.exit_status not in (0, None)

    def to_json(self) -> dict[str, Any]:
        """Return it for records and scripts."""
        return asdict(self)


def parts(schedule: Schedule, kind: str) -> list[WorkPart]:
    """Return the parts of the work of a kind, in their order."""
    output = ["-o", schedule.output] if schedule.output else []
    wait = ["--wait-lock", str(_PATIENCE)]
    store = schedule.store
    limit = ["--limit-upload", str(store.limit_upload)] if store and store.limit_upload else []
    if kind == NIGHTLY:
        besides = [
            *(["--with-dhis2"] if schedule.with_dhis2 else []),
            *(["--with-volumes"] if schedule.with_volumes else []),
        ]
        work = [
            _part("backup", "backup", "--reason", "nightly", *besides, *output, *wait),
            *([_part("copy", "copy", "latest", *store.words("--to"), *limit, *output, *wait)] if store else []),
            _part("prune", "prune", "--yes", *output, *wait, needs="backup"),
            *(
                [_part("prune copies", "prune", "--yes", *store.words("--from"), *limit, *output, *wait, needs="copy")]
                if store
                else []
            ),
        ]
    elif kind == MONTHLY and store:
        work = [_part("drill", "verify", "latest", *store.words("--from"), *output, *wait)]
    else:
        work = [_part("drill" if kind == MONTHLY else "verify", "verify", "latest", "--deep", *output)]
        if store:
            work.append(_part("check copies", "copies", "--check", str(_SUBSET), *store.words("--from"), *wait))
    if schedule.metrics_file:
        work.append(_part("metrics", "status", "--metrics-file", schedule.metrics_file))
    return work


def run(
    schedule: Schedule, kind: str, clock: Callable[[], datetime], begins: Callable[[str], None]
) -> list[WorkOutcome]:
    """Do the work of a kind and return how each part ended. A part that fails does not keep the others from being done.

    `begins` gets the name of each part when it begins.
    """
    outcomes: dict[str, WorkOutcome] = {}
    for part in parts(schedule, kind):
        needed = outcomes.get(part.needs)
        if needed and needed.exit_status != 0:
            outcomes[part.name] = WorkOutcome(part.name, None, message=f"left out, because {part.needs} failed")
            continue
        begins(part.name)
        began = clock()
        outcome = _outcome(schedule, part)
        seconds = round((clock() - began).total_seconds(), 1)
        outcomes[part.name] = replace(outcome, seconds=seconds)
    return list(outcomes.values())


def _part(name: str, *words: str, needs: str = "") -> WorkPart:
    return WorkPart(name, words, needs)


def _outcome(schedule: Schedule, part: WorkPart) -> WorkOutcome:
    try:
        finished, document = _call(schedule, *part.words)
    except EngineError as error:
        return WorkOutcome(part.name, 1, message=error.message)
    facts = {name: _short(document[name]) for name in _TELLING if name in document}
    if finished.status == 0:
        fault = _fault(document)
        return WorkOutcome(
            part.name, 1 if fault else 0, message=fault or "\n".join(document.get("notes", ())), facts=facts
        )
    failure = document.get("error", {})
    message = str(failure.get("message") or finished.last_lines)
    return WorkOutcome(part.name, finished.status, 0, message, facts, str(failure.get("hint") or ""))


def ask_status(schedule: Schedule) -> dict[str, Any]:
    """Return the document of `status`, empty where the stack cannot be looked at."""
    try:
        return _call(schedule, "status")[1]
    except EngineError:
        return {}


def _call(schedule: Schedule, *words: str) -> tuple[Finished, dict[str, Any]]:
    """Run a command of this tool; return how it ended and its document, empty where it wrote none."""
    finished = process.run([*schedule.docker, "chap", *schedule.options, "--json", *words])
    with suppress(ValueError):
        document = json.loads(finished.stdout)
        return finished, document if isinstance(document, dict) else {}
    return finished, {}


def _fault(document: Mapping[str, Any]) -> str:
    """Return why the backup that a command made cannot be relied on, empty when it can."""
    made = document.get("backup")
    fault = made.get("fault") if isinstance(made, dict) else ""
    return f"Backup {_short(made)} cannot be relied on. {fault}" if fault else ""


def _short(value: Any) -> Any:
    """Return of a backup, or of another thing with an id, that id alone."""
    return value["id"] if isinstance(value, dict) and "id" in value else value
