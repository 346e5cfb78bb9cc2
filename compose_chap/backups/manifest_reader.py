"""Read a manifest strictly, whoever wrote it: whatever does not fit raises an error with the file and the field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from compose_chap.backups.manifest import (
    FORMAT,
    ChapFacts,
    CheckoutFacts,
    DatabaseFacts,
    Dhis2Facts,
    DumpPart,
    EngineFacts,
    FilePart,
    ImageFacts,
    Manifest,
    Part,
    Privilege,
    ProjectFacts,
    ServerFacts,
    Setting,
    VolumePart,
)
from compose_chap.errors import DumpError
from compose_chap.reading import Value

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"\w[\w.-]{0,127}", re.ASCII)


def read(value: Value, folder: Path) -> Manifest:
    """Return the manifest of the backup in a folder. Raise DumpError with the field that does not fit."""
    made_as = value.at("format").integer()
    if made_as != FORMAT:
        raise DumpError(f"{folder} was written by another version of this tool (format {made_as}).")
    return Manifest(
        id=_identity(value.at("id")),
        created_at=value.at("created_at").moment(),
        reason=value.at("reason").text(),
        project=_project(value.at("project")),
        chap=_chap(value.at("chap")),
        server=_server(value.at("server")),
        database=_database(value.at("database")),
        dump=_dump(value.at("dump")),
        tables=_tables(value.at("tables")),
        proven_at=value.at("proven_at").moment(),
        order=when.moment() if (when := value.get("order")) else None,
        tool=_text(value, "tool"),
        engine=_engine(value.get("engine")),
        checkout=_checkout(value.get("checkout")),
        images=tuple(_image(part) for part in _list(value, "images")),
        lost_tables=_texts(value, "lost_tables"),
        absent_tables=_texts(value, "absent_tables"),
        unexpected=_texts(value, "foreign"),
        dhis2=_dhis2(value.get("dhis2")),
        volumes=tuple(_volume(part) for part in _list(value, "volumes")),
        files=tuple(FilePart(**_part(part), path=part.at("path").text()) for part in _list(value, "files")),
        instructions=Part(**_part(part)) if (part := value.get("instructions")) else None,
        seconds=_seconds(value.get("seconds")),
    )


def _identity(value: Value) -> str:
    text = value.text(128)
    if not _ID.fullmatch(text):
        raise value.wrong("is not an id such as 20261123T041500Z")
    return text


def _part(value: Value) -> dict[str, Any]:
    checksum = value.at("sha256")
    if not _SHA256.fullmatch(checksum.text(64)):
        raise checksum.wrong("is not a SHA-256")
    return {"file": value.at("file").file(), "size": value.at("size").integer(), "sha256": checksum.text()}


def _dump(value: Value) -> DumpPart:
    return DumpPart(**_part(value), compression=_text(value, "compression"))


def _volume(value: Value) -> VolumePart:
    volume, service, path = (value.at(name).text() for name in ("volume", "service", "path"))
    entries = count.integer() if (count := value.get("entries")) else 0
    return VolumePart(**_part(value), volume=volume, service=service, path=path, entries=entries)


def _project(value: Value) -> ProjectFacts:
    lists = {name: _texts(value, name) for name in ("files", "env_files", "absent")}
    return ProjectFacts(value.at("name").filled(), _text(value, "directory"), **lists)


def _engine(value: Value | None) -> EngineFacts:
    return EngineFacts(value.at("id").text(), value.at("name").text()) if value else EngineFacts()


def _checkout(value: Value | None) -> CheckoutFacts | None:
    if value is None:
        return None
    diff = value.get("diff")
    texts = {name: _text(value, name) for name in ("commit", "branch", "describe", "remote")}
    return CheckoutFacts(**texts, diff=Part(**_part(diff)) if diff else None)


def _chap(value: Value) -> ChapFacts:
    schema = value.get("schema")
    if schema:
        _ = schema.at("missing_tables").texts(), schema.members()
    return ChapFacts(value.at("version").text(), _text(value, "worker_version"), schema.data if schema else None)


def _server(value: Value) -> ServerFacts:
    return ServerFacts(value.at("version").integer(0, 10_000_000), _text(value, "compression"))


def _database(value: Value) -> DatabaseFacts:
    names = ("owner", "encoding", "collate", "ctype", "provider", "collation_version", "comment")
    return DatabaseFacts(
        value.at("name").filled(),
        value.at("size").integer(),
        **{name: _text(value, name) for name in names},
        privileges=tuple(
            Privilege(entry.at("role").text(), entry.at("privilege").text()) for entry in _list(value, "privileges")
        ),
        settings=tuple(
            Setting(
                entry.at("role").text(),
                entry.at("name").text(),
                setting.text() if (setting := entry.get("value")) else None,
            )
            for entry in _list(value, "settings")
        ),
    )


def _image(value: Value) -> ImageFacts:
    facts = {name: value.at(name).text() for name in ("service", "role", "image", "id")}
    return ImageFacts(**facts, digests=_texts(value, "digests"))


def _dhis2(value: Value | None) -> Dhis2Facts | None:
    if value is None:
        return None
    return Dhis2Facts(
        service=value.at("service").filled(),
        admin=value.at("admin").filled(),
        server=_server(value.at("server")),
        database=_database(value.at("database")),
        image=value.at("image").text(),
        dump=_dump(value.at("dump")),
        tables=_tables(value.at("tables")),
    )


def _tables(value: Value) -> dict[str, int]:
    return {name: rows.integer() for name, rows in value.members().items()}


def _seconds(value: Value | None) -> dict[str, float]:
    return {name: took.number() for name, took in value.members().items()} if value else {}


def _text(value: Value, name: str) -> str:
    member = value.get(name)
    return member.text() if member else ""


def _texts(value: Value, name: str) -> tuple[str, ...]:
    member = value.get(name)
    return member.texts() if member else ()


def _list(value: Value, name: str) -> list[Value]:
    member = value.get(name)
    return list(member.items()) if member else []
