"""The manifest of a backup, `manifest.json`, as a typed record, written so that every version can read it.

`manifest_reader` reads it. It holds no secret. Its fields, with `"format": 1`:

    format, id, created_at, reason, tool     what this is, its start (UTC) and why it was made
    order           its start too, but always later than the order of every earlier backup, even if a clock was ahead
    project         name, directory, files and env_files of the Compose project; absent: those that could not be copied
    engine          id and name of the engine that it runs on
    checkout        commit, describe, remote and diff of a source checkout; null for none
    chap            running version and worker_version, schema verdict
    server          PostgreSQL's version, such as 170006
    database        name, owner, size, encoding, locale, collation_version, comment, privileges, settings
    images          service, role, image, id and digests of each service
    dump            file, size, sha256, compression
    tables          rows of each table at the moment of the dump
    lost_tables     tables that existed before and are gone: the database is damaged, or somebody dropped them
    absent_tables   missing tables that may be fine: an earlier version had them, or the running one expects them
    foreign         objects that no database of CHAP has; a restore needs --trust
    dhis2           the same facts of DHIS2's database; null unless it was included
    volumes         volume, service, path, file, size, sha256 of each
    files           path, file, size, sha256 of each
    instructions    the same of RESTORE.txt
    seconds         how long each part took
    proven_at       when the dump was read back
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

# Changes only when an older version could not read the file.
FORMAT = 1
FILE = "manifest.json"
# The fields that have another name in the file.
_KEYS = {"unexpected": "foreign"}


@dataclass(frozen=True)
class Part:
    """A file of a backup: its name below the backup's folder, bytes and SHA-256."""

    file: str
    size: int
    sha256: str


@dataclass(frozen=True)
class DumpPart(Part):
    """A dump, and how it is compressed."""

    compression: str = ""


@dataclass(frozen=True)
class FilePart(Part):
    """A file of the stack, and its original path."""

    path: str = ""


@dataclass(frozen=True)
class VolumePart(Part):
    """A packed volume, or (with an empty `volume`) a file from a service's container."""

    volume: str = ""
    service: str = ""
    path: str = ""
    entries: int = 0


@dataclass(frozen=True)
class ProjectFacts:
    """The Compose project; `absent` are its files that could not be copied."""

    name: str
    directory: str = ""
    files: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineFacts:
    """The engine that the stack ran on."""

    id: str = ""
    name: str = ""


@dataclass(frozen=True)
class CheckoutFacts:
    """The source checkout; `diff` is the file with its local changes."""

    commit: str
    branch: str
    describe: str
    remote: str
    diff: Part | None


@dataclass(frozen=True)
class ChapFacts:
    """Versions of API and worker, and the state of the schema: `verdict`, `missing_tables` and more."""

    version: str
    worker_version: str = ""
    schema: Mapping[str, Any] | None = None

    @property
    def missing_tables(self) -> tuple[str, ...]:
        """The tables that CHAP's code needed and the database lacked."""
        return tuple(self.schema["missing_tables"]) if self.schema else ()


@dataclass(frozen=True)
class ServerFacts:
    """PostgreSQL's version, such as 170006, and its compression of dumps."""

    version: int
    compression: str = ""


@dataclass(frozen=True)
class Privilege:
    """A privilege of a role on the database."""

    role: str
    privilege: str


@dataclass(frozen=True)
class Setting:
    """A setting of the database, for one role or (empty) all; None for a value that may be secret."""

    role: str
    name: str
    value: str | None


@dataclass(frozen=True)
class DatabaseFacts:
    """A database: the properties to create it with, its size in bytes, its comment, privileges and settings."""

    name: str
    size: int
    owner: str = ""
    encoding: str = ""
    collate: str = ""
    ctype: str = ""
    provider: str = ""
    collation_version: str = ""
    comment: str = ""
    privileges: tuple[Privilege, ...] = ()
    settings: tuple[Setting, ...] = ()


@dataclass(frozen=True)
class ImageFacts:
    """The image of a service."""

    service: str
    role: str
    image: str
    id: str
    digests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dhis2Facts:
    """DHIS2's database, and its dump."""

    service: str
    admin: str
    server: ServerFacts
    database: DatabaseFacts
    image: str
    dump: DumpPart
    tables: Mapping[str, int]


@dataclass(frozen=True)
class Manifest:
    """Everything known about a backup. `id` is its start, in UTC; see `records.order` for `order`."""

    id: str
    created_at: datetime
    reason: str
    project: ProjectFacts
    chap: ChapFacts
    server: ServerFacts
    database: DatabaseFacts
    dump: DumpPart
    tables: Mapping[str, int]
    proven_at: datetime
    order: datetime | None = None
    tool: str = ""
    engine: EngineFacts = EngineFacts()
    checkout: CheckoutFacts | None = None
    images: tuple[ImageFacts, ...] = ()
    lost_tables: tuple[str, ...] = ()
    absent_tables: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    dhis2: Dhis2Facts | None = None
    volumes: tuple[VolumePart, ...] = ()
    files: tuple[FilePart, ...] = ()
    instructions: Part | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def parts(self) -> list[Part]:
        """Every file of the backup that has a checksum."""
        diff = self.checkout.diff if self.checkout else None
        others = (self.dhis2.dump if self.dhis2 else None, diff, self.instructions)
        return [self.dump, *self.files, *self.volumes, *(part for part in others if part)]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        fields = {_KEYS.get(name, name): value for name, value in asdict(self).items()}
        known = {
            "format": FORMAT,
            **fields,
            "created_at": self.created_at.isoformat(),
            "proven_at": self.proven_at.isoformat(),
            "order": self.order.isoformat() if self.order else None,
        }
        if known["instructions"] is None:  # older versions take any value for a file
            del known["instructions"]
        return known

    def document(self) -> bytes:
        """Return the bytes of the file."""
        return (json.dumps(self.to_json(), indent=1) + "\n").encode()
