"""Records of a stack, written as the commands write them: nights, weeks, months, upgrades, and what went wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from compose_chap.backups import catalogue
from compose_chap.backups.catalogue import Backup
from compose_chap.backups.manifest import ChapFacts, DatabaseFacts, DumpPart, ImageFacts, Manifest, ProjectFacts
from compose_chap.backups.verdict import RESTORED
from compose_chap.model import Origin
from compose_chap.records import audit
from compose_chap.records.audit import AuditEntry
from compose_chap.records.files import own_folder
from compose_chap.records.run_records import FOLDER, run_id
from compose_chap.schedule import plan
from compose_chap.schedule.plan import CopyStore, Schedule
from tests.fakes import manifest

NOW = datetime(2026, 11, 28, 7, 30, tzinfo=timezone.utc)
HERE = Origin("chap", "ENGINE", "moh-server-1")
STORE = "sftp:chap@backup.example.org:/srv/chap"
MIB = 2**20
TABLES = {"observation": 2_400, "dataset": 0.31, "prediction": 12.5, "backtest": 0.4, "apikey": 0, "alembic_version": 0}
IMAGES = tuple(
    ImageFacts(service, role, image, "sha256:" + digit * 64, (f"{image.partition(':')[0]}@sha256:{digit * 64}",))
    for service, role, image, digit in (
        ("chap", "api", "ghcr.io/dhis2-chap/chap-core:v2.1.0", "a"),
        ("chap-worker", "worker", "ghcr.io/dhis2-chap/chap-worker:v2.1.0", "b"),
        ("chap-postgres", "database", "postgres:17", "c"),
    )
)


def write(directory: Path, nights: int) -> None:
    """Write the records and the kept backups of this many nights; the last night is that of `NOW`."""
    own_folder.make(directory / FOLDER)
    store = CopyStore(STORE, "/etc/chap.password")
    plan.write(directory, Schedule("chap", "root", "cron", 1, 30, ("docker",), (), str(directory), store))
    entries = [entry for number in range(nights) for entry in _night(directory, nights, number)]
    _write_trail(directory, entries)


def _write_trail(directory: Path, entries: list[AuditEntry]) -> None:
    """Write both lines of each entry, and begin a new file where the trail would."""
    lines = [
        json.dumps({"version": 1, **line.to_json()}) + "\n"
        for entry in entries
        for line in (replace(entry, ended_at=None, result=audit.RUNNING, facts={}), entry)
    ]
    many = 3000
    parts = [lines[at : at + many] for at in range(0, len(lines), many)] or [[]]
    for number, part in enumerate(reversed(parts)):
        name = audit.OLDER.format(number) if number else audit.FILE
        own_folder.write(directory / FOLDER / name, "".join(part).encode())


def _night(directory: Path, nights: int, number: int) -> Iterator[AuditEntry]:
    at = NOW.replace(hour=1, minute=30) - timedelta(days=nights - 1 - number)
    left = nights - 1 - number
    name, tables = run_id(at + timedelta(seconds=40)), rows(number)
    size = (300 + number // 4) * MIB
    if left == 11:  # the engine was down
        failed = "backup failed; prune left out"
        yield entry("schedule", at, 3, result="failed", summary=f"nightly: {failed}", facts={"kind": "nightly"})
        yield entry("backup", at, 2, result="failed", message="The engine does not answer: connection refused.")
        return
    kept = left < 14 or left < 60 and at.weekday() == 6 or at.day == 1
    figures = {"size": size // 4 + 9000, "dump_size": size // 4, "database_size": size, "tables": tables}
    if kept:
        backup = _backup(directory, name, at, size, tables)
        if at.weekday() == 6:
            catalogue.record_verdict(backup, at + timedelta(hours=3, minutes=2), RESTORED)
    summary = "nightly: backup done; copy done; prune done; prune copies done"
    sent = 1 if left == 5 else 0
    summary = summary.replace("copy done", "copy failed") if sent else summary
    yield entry("schedule", at, 75, result="failed" if sent else "done", summary=summary, facts={"kind": "nightly"})
    words = ("backup", "--reason", "nightly")
    about = {"backup": name, "folder": str(directory / "backups" / name), "chap_version": "2.1.0", **figures}
    yield entry("backup", at, 30, words=words, summary=name, facts=about)
    if sent:
        yield entry("copy", at, 5, result="failed", message="The repository does not answer: connection timed out.")
    else:
        copied = {"backup": name, "repository": STORE, "sent": 3 * MIB + number * 900, "sql_size": size * 2}
        yield entry("copy", at, 20, summary=name, facts=copied)
    yield entry("prune", at, 5, summary="removed 1 backup", facts={"backups": [run_id(at)]})
    gone = run_id(at - timedelta(days=30) + timedelta(seconds=40))
    yield entry("prune", at, 5, summary="removed 1 copie", facts={"repository": STORE, "copies": [gone]})
    later = at + timedelta(hours=3)
    if at.weekday() == 6:
        proven = {"backup": name, "proof": RESTORED, "tables": len(tables), "rows": sum(tables.values())}
        yield entry("schedule", later, 90, summary="weekly: verify done; check copies done", facts={"kind": "weekly"})
        yield entry("verify", later, 60, summary=f"{name}: {RESTORED}", facts=proven)
        yield entry("copies", later, 20, summary="read 5% back", facts={"repository": STORE, "checked": 5})
    if at.day == 1:
        drilled = {"copy": name, "repository": STORE, "proof": RESTORED, "tables": 6, "rows": sum(tables.values())}
        yield entry("schedule", later, 300, summary="monthly: drill done", facts={"kind": "monthly"})
        yield entry("verify", later, 280, summary=f"copy {name}: {RESTORED}", facts=drilled)
    if left % 190 == 25:
        done = {"from": "2.0.0", "to": "v2.1.0", "downtime": 6.4 + left / 300, "backup": run_id(later), **figures}
        words = ("upgrade", "v2.1.0", "--yes")
        yield entry("upgrade", later, 60, words=words, by="amina@moh-server-1", summary="2.0.0 to 2.1.0", facts=done)
        yield entry("check", later, 1, result="refused", by="amina@moh-server-1", message="A job is running.")


def rows(number: int) -> dict[str, int]:
    """Return the rows of each table in a night."""
    return {f"public.{name}": int(100 + number * growth) for name, growth in TABLES.items()}


def entry(operation: str, at: datetime, seconds: int, words: tuple[str, ...] = (), **more: Any) -> AuditEntry:
    """Return an entry of the trail."""
    known: dict[str, Any] = {"by": "root@moh-server-1", "result": audit.DONE, "exit_status": 0, **more}
    name = f"{run_id(at)}-{operation}-{seconds}"
    ended = at + timedelta(seconds=seconds)
    return AuditEntry(
        name, operation, words or (operation,), user="root", began_at=at, ended_at=ended, origin=HERE, **known
    )


def _backup(directory: Path, name: str, at: datetime, size: int, tables: dict[str, int]) -> Backup:
    folder = own_folder.make(directory / "backups") / name
    folder.mkdir(mode=0o700)
    made: Manifest = manifest(
        id=name,
        created_at=at,
        proven_at=at + timedelta(seconds=30),
        reason="nightly",
        tables=tables,
        project=ProjectFacts("chap", str(directory)),
        chap=ChapFacts("2.1.0", "2.1.0"),
        database=DatabaseFacts("chap_core", size),
        dump=DumpPart("chap_core.dump", size // 4, "0" * 64),
        images=IMAGES,
    )
    own_folder.write(folder / "manifest.json", made.document())
    return catalogue.load(folder)
