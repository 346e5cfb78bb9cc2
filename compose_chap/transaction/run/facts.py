"""The journal of a run as typed records. Undoing a run relies on it, so it is read strictly.

Every function raises StateError with the file and the field for an invalid journal. Journals of version 0.1.0 are
valid: newer fields are optional.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compose_chap.check import Check
from compose_chap.edit import Edit
from compose_chap.model import Project
from compose_chap.postgres.reach import STANDARD_PORT
from compose_chap.project.checkout import Head, Move
from compose_chap.reading import LARGEST, Value
from compose_chap.records.run_records import Journal
from compose_chap.transaction.run.baseline import Baseline
from compose_chap.transaction.run.change import Change


@dataclass(frozen=True)
class Answered:
    """The data when the API first answered: the rows of each table, and `since`, the number of the next transaction."""

    since: int
    tables: Mapping[str, int]


@dataclass(frozen=True)
class RunFacts:
    """The facts that a run recorded, besides its change.

    `backup` was made before it, into the folder `backups`, with `project_files`. `kept_dump` is the backup that
    holds the previous data where no database does, and `data_came_back` says that it was restored since. `new_data` is
    a backup, or a dump, of the new data where there was no room to keep them. `old_tables`
    are the rows of the previous data, `new_tables` those after the migration, `configurations` those of each writer's
    container. `had_live` says that there was a live database before a swap, None where nobody wrote that down.
    `since` is the transaction from which on the new API may write, and `answered` tells of its first answer.
    `early_checks` are of what the migration did to the values. `checks` and `downtime` (seconds) are of a run that
    is verified.
    """

    backup: Path | None
    backups: Path | None
    project_files: tuple[Path, ...]
    kept_dump: Path | None
    new_data: Path | None
    data_came_back: bool
    old_tables: Mapping[str, int]
    new_tables: Mapping[str, int]
    configurations: Mapping[str, Mapping[str, Any]]
    had_live: bool | None
    since: int
    answered: Answered | None
    early_checks: tuple[Check, ...]
    checks: tuple[Check, ...]
    downtime: float


def facts_of(journal: Journal) -> RunFacts:
    """Return the facts that a run has recorded so far."""
    return read_facts(journal.known)


def read_facts(value: Value) -> RunFacts:
    """Return the facts in the journal of a run."""
    project_files, configurations = value.get("sources"), value.get("settings")
    old, new = value.get("old_tables"), value.get("new_tables")
    had_live, came_back, downtime = value.get("had_live"), value.get("data_came_back"), value.get("downtime")
    early, checks = value.get("early_checks"), value.get("checks")
    since, answered = value.get("since"), value.get("answered")
    return RunFacts(
        backup=_path(value, "backup"),
        backups=_path(value, "backups"),
        project_files=tuple(map(Path, project_files.texts())) if project_files else (),
        kept_dump=_path(value, "kept_dump"),
        new_data=_path(value, "new_data"),
        data_came_back=came_back.flag() if came_back else False,
        old_tables=_numbers(old) if old else {},
        new_tables=_numbers(new) if new else {},
        configurations={name: _object(of) for name, of in configurations.members().items()} if configurations else {},
        had_live=had_live.flag() if had_live else None,
        since=since.integer() if since else 0,
        answered=_answered(answered) if answered else None,
        early_checks=tuple(_check(check) for check in early.items()) if early else (),
        checks=tuple(_check(check) for check in checks.items()) if checks else (),
        downtime=downtime.number() if downtime else 0.0,
    )


def read_change(value: Value) -> Change:
    """Return the change of a run."""
    by_dump, mark, move, repairs = (value.get(name) for name in ("by_dump", "mark", "move", "repairs"))
    accepted, port = value.get("accepted"), value.get("port")
    names = ("operation", "database", "admin", "owner", "live", "kept", "incoming", "expected")
    texts = {name: value.at(name).text() for name in names}
    _check_writers(value)
    return Change(
        **texts,
        project=_project(value.at("project")),
        writers=value.at("writers").texts(),
        containers={name: [*ids.texts()] for name, ids in value.at("containers").members().items()},
        images=_images(value.at("images")),
        images_after=_images(value.at("images_after")),
        edits=read_edits(value),
        recreate=value.at("recreate").flag(),
        tables=_numbers(value.at("tables")),
        baseline=_baseline(value.at("baseline")),
        by_dump=by_dump.flag() if by_dump else False,
        mark=mark.text() if mark else "",
        move=_move(move) if move else None,
        repairs=repairs.texts() if repairs else (),
        accepted=accepted.text() if accepted else "",
        port=port.integer(1, 65535) if port else STANDARD_PORT,
    )


def read_edits(value: Value) -> tuple[Edit, ...]:
    """Return the edits of files that a run makes."""
    return tuple(
        Edit(Path(edit.at("path").filled()), _content(edit, "before"), _content(edit, "after"))
        for edit in value.at("edits").items()
    )


def _path(value: Value, name: str) -> Path | None:
    path = value.get(name)
    return Path(path.text()) if path and path.text() else None


def _answered(value: Value) -> Answered:
    return Answered(value.at("since").integer(), _numbers(value.at("tables")))


def _numbers(value: Value) -> dict[str, int]:
    return {name: number.integer() for name, number in value.members().items()}


def _object(value: Value) -> dict[str, Any]:
    return {name: member.data for name, member in value.members().items()}


def _check(value: Value) -> Check:
    hint, details, duration = value.get("hint"), value.get("details"), value.get("duration_ms")
    return Check(
        value.at("name").text(),
        value.at("status").filled(),
        value.at("message").text(),
        hint.text() if hint else "",
        _object(details) if details else {},
        duration.integer() if duration else 0,
    )


def _project(value: Value) -> Project:
    directory, files = Path(value.at("directory").filled()), value.at("files").texts()
    return Project(
        value.at("name").filled(), directory, tuple(map(Path, files)), tuple(map(Path, value.at("env_files").texts()))
    )


def _check_writers(value: Value) -> None:
    """Raise the error of `value` unless each writer has its containers and images."""
    writers = value.at("writers").texts()
    if not writers:
        raise value.at("writers").wrong("is empty")
    for name in ("containers", "images", "images_after"):
        known = value.at(name).members()
        # The new images are known only once they are pulled or built.
        missing = [writer for writer in writers if writer not in known]
        if missing and (known or name != "images_after"):
            raise value.at(name).wrong(f"has nothing about {missing[0]}")


def _images(value: Value) -> dict[str, dict[str, str]]:
    return {
        name: {"reference": image.at("reference").filled(), "id": image.at("id").filled()}
        for name, image in value.members().items()
    }


def _baseline(value: Value) -> Baseline:
    untouched, schema = value.at("untouched").members(), value.get("schema")
    return Baseline(
        version=value.at("version").text(),
        worker_versions={name: member.text() for name, member in value.at("worker_versions").members().items()},
        models=value.at("models").texts(),
        route=value.at("route").text(),
        ready=value.at("ready").flag(),
        has_data=value.at("has_data").flag(),
        untouched={
            service: {name: ran.flag() for name, ran in containers.members().items()}
            for service, containers in untouched.items()
        },
        schema=schema.text() if schema else "",
    )


def _move(value: Value) -> Move:
    before, after = (
        Head(value.at(end).at("commit").filled(), value.at(end).at("branch").text()) for end in ("before", "after")
    )
    return Move(Path(value.at("folder").filled()), before, after)


def _content(edit: Value, name: str) -> bytes | None:
    content = edit.get(name)
    if content is None:
        return None
    try:
        return base64.b64decode(content.text(LARGEST), validate=True)
    except ValueError:
        raise content.wrong("is not base64") from None
