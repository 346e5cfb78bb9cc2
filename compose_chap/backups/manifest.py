"""What a backup says of itself: `manifest.json` as a typed record, written so that every version can read it.

What its fields mean stands in `backup`. It is read by `manifest_reader`.
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


@dataclass(frozen=True)
class Part:
    """A file of a backup: its name below the backup's folder, bytes and SHA-256."""

    file: str
    size: int
    sha256: str


@dataclass(frozen=True)
class DumpPart(Part):
    """A dump, and how it is packed."""

    compression: str = ""


@dataclass(frozen=True)
class KeptFile(Part):
    """A file of the stack, and where it lay."""

    path: str = ""


@dataclass(frozen=True)
class KeptVolume(Part):
    """A packed volume, or (with an empty `volume`) a file that a service kept in its container."""

    volume: str = ""
    service: str = ""
    path: str = ""
    entries: int = 0


@dataclass(frozen=True)
class ProjectFacts:
    """The Compose project; `absent` are its files that were out of reach."""

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
    """Versions of API and worker, and what was known of the schema: `verdict`, `missing_tables` and more."""

    version: str
    worker_version: str = ""
    schema: Mapping[str, Any] | None = None

    @property
    def missing_tables(self) -> tuple[str, ...]:
        """The tables that CHAP's code wanted and the database lacked."""
        return tuple(self.schema["missing_tables"]) if self.schema else ()


@dataclass(frozen=True)
class ServerFacts:
    """PostgreSQL's version, such as 170006, and how it packs a dump."""

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
    """A database: what it has to be created like, its size in bytes, and what belongs to it beside its contents."""

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
    """Everything that is known of a backup. `id` is when it was begun, in UTC; see `records.order` for `order`."""

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
    foreign: tuple[str, ...] = ()
    dhis2: Dhis2Facts | None = None
    volumes: tuple[KeptVolume, ...] = ()
    files: tuple[KeptFile, ...] = ()
    instructions: Part | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def parts(self) -> list[Part]:
        """Every file of the backup that has a checksum."""
        diff = self.checkout.diff if self.checkout else None
        others = (self.dhis2.dump if self.dhis2 else None, diff, self.instructions)
        return [self.dump, *self.files, *self.volumes, *(part for part in others if part)]

    def to_json(self) -> dict[str, Any]:
        """Return it as its file has it."""
        known = {
            "format": FORMAT,
            **asdict(self),
            "created_at": self.created_at.isoformat(),
            "proven_at": self.proven_at.isoformat(),
            "order": self.order.isoformat() if self.order else None,
        }
        if known["instructions"] is None:  # older versions take what is there for a file
            del known["instructions"]
        return known

    def document(self) -> bytes:
        """Return the bytes of its file."""
        return (json.dumps(self.to_json(), indent=1) + "\n").encode()
