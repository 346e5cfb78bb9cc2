"""What a report says, as typed records. Sizes are bytes, durations seconds; None is what nobody knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from compose_chap.records.audit import AuditEntry


@dataclass(frozen=True)
class ServiceLine:
    """A service: its image, how it is, and since when its container runs."""

    name: str
    role: str
    image: str
    digest: str
    version: str = ""
    state: str = ""
    since: datetime | None = None


@dataclass(frozen=True)
class BackupLine:
    """A backup, with the best proof that it passed. `folder` is empty for one that is gone, `tables` are its rows."""

    id: str
    made_at: datetime
    reason: str
    chap_version: str
    proven_by: str
    proven_at: datetime | None
    size: int | None
    dump_size: int | None
    database_size: int | None
    tables: Mapping[str, int]
    folder: str = ""
    pinned: bool = False
    fault: str = ""


@dataclass(frozen=True)
class CopyLine:
    """A copy in another place: `sent` is what it added there, `drilled_at` when it was last brought back."""

    backup: str
    made_at: datetime | None
    copied_at: datetime
    repository: str
    sent: int | None
    sql_size: int | None
    drilled_at: datetime | None = None
    removed_at: datetime | None = None


@dataclass(frozen=True)
class ProofLine:
    """A proof of what was kept: `kind` is copy, backup, dump or repository, `name` says which.

    `tables` and `rows` are how many were compared.
    """

    at: datetime
    kind: str
    name: str
    proof: str
    result: str
    tables: int | None
    rows: int | None
    message: str


@dataclass(frozen=True)
class ChangeLine:
    """A change of the stack, also one that failed: how long CHAP was down, and how long that was expected to take."""

    at: datetime
    operation: str
    about: str
    result: str
    by: str
    before: str = ""
    after: str = ""
    downtime: float | None = None
    expected: float | None = None
    message: str = ""


@dataclass(frozen=True)
class Reached:
    """What was reached in the last `days`: how many `nights` they had, how many with a proven backup, how many copied.

    `tests` are the test-restores of backups that went well, `drills` those of copies.
    """

    days: int
    nights: int
    proven: int
    copied: int
    tests: int
    drills: int


@dataclass(frozen=True)
class Promise:
    """The schedule: what starts it, when the nightly work begins (HH:MM), where copies go, and what comes next."""

    by: str
    at: str
    repository: str
    upcoming: Mapping[str, datetime | None]


@dataclass(frozen=True)
class ReportFacts:
    """All that a report says. `live` says that CHAP itself was asked; else all is what the records say.

    `services_at` is when the services were as they are shown. The lists are in the order of time.
    """

    project: str
    server: str
    directory: str
    made_at: datetime
    tool: str
    live: bool
    services: tuple[ServiceLine, ...] = ()
    services_at: datetime | None = None
    chap_version: str = ""
    health: str = ""
    schema: str = ""
    database_size: int | None = None
    database_free: int | None = None
    backups_free: int | None = None
    backups: tuple[BackupLine, ...] = ()
    copies: tuple[CopyLine, ...] = ()
    proofs: tuple[ProofLine, ...] = ()
    changes: tuple[ChangeLine, ...] = ()
    promise: Promise | None = None
    reached: tuple[Reached, ...] = ()
    problems: tuple[str, ...] = ()
    trail: tuple[AuditEntry, ...] = field(default=(), repr=False)

    @property
    def began(self) -> datetime | None:
        """When the first thing was done that is known."""
        times = [*(entry.began_at for entry in self.trail), *(backup.made_at for backup in self.backups)]
        return min(times, default=None)

    @property
    def sound(self) -> BackupLine | None:
        """The newest backup that is kept and has no fault."""
        return next((backup for backup in reversed(self.backups) if backup.folder and not backup.fault), None)

    @property
    def copy(self) -> CopyLine | None:
        """The copy of the newest backup, None where there is no copy."""
        return next((copy for copy in reversed(self.copies) if copy.removed_at is None), None)

    @property
    def drill(self) -> ProofLine | None:
        """The last drill that went well."""
        return next((proof for proof in reversed(self.proofs) if proof.kind == "copy" and proof.result == "done"), None)

    @property
    def test(self) -> ProofLine | None:
        """The last test-restore of a backup on this machine that went well."""
        return next(
            (proof for proof in reversed(self.proofs) if proof.kind == "backup" and proof.result == "done"), None
        )

    def to_json(self) -> dict[str, Any]:
        """Return it for scripts, without the trail: `docker chap history --json` has that."""
        known = {name: value for name, value in vars(self).items() if name != "trail"}
        return {name: _plain(value) for name, value in known.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return _plain(asdict(value)) if hasattr(value, "__dataclass_fields__") else value
