"""The lines of a report, from the trail and from what is kept. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from compose_chap.backups.catalogue import Backup
from compose_chap.backups.verdict import BAD, READ_BACK, RESTORED
from compose_chap.records import audit
from compose_chap.records.audit import AuditEntry
from compose_chap.report.facts import fields
from compose_chap.report.facts.known import BackupLine, ChangeLine, CopyLine, ProofLine

# What changes the stack; of these also what went wrong is listed.
_CHANGES = ("upgrade", "rollback", "restore", "recover", "pin")
_MADE_BY = {"backup": "by hand", "upgrade": "before an upgrade"}


def backup_lines(kept: Sequence[Backup], trail: Sequence[AuditEntry]) -> tuple[BackupLine, ...]:
    """Return every backup that is kept or was made, oldest first."""
    known = {line.id: line for line in _made(trail)}
    for entry in trail:
        name = fields.text(entry.facts, "backup")
        restored = _went_well(entry, "verify") and fields.text(entry.facts, "proof") == RESTORED
        if restored and name in known:
            known[name] = replace(known[name], proven_by=RESTORED, proven_at=entry.ended_at)
    for backup in kept:
        known[backup.id] = _kept(backup)
    return tuple(sorted(known.values(), key=lambda line: (line.made_at, line.id)))


def _made(trail: Sequence[AuditEntry]) -> Iterator[BackupLine]:
    for entry in trail:
        name = fields.text(entry.facts, "backup")
        if not (name and entry.operation in _MADE_BY and entry.result == audit.DONE):
            continue
        yield BackupLine(
            id=name,
            made_at=fields.moment_of(name) or entry.began_at,
            reason=_reason(entry),
            chap_version=fields.text(entry.facts, "chap_version"),
            proven_by=READ_BACK,
            proven_at=entry.ended_at,
            size=fields.whole(entry.facts, "size"),
            dump_size=fields.whole(entry.facts, "dump_size"),
            database_size=fields.whole(entry.facts, "database_size"),
            tables=fields.rows(entry.facts, "tables"),
            fault=fields.text(entry.facts, "fault"),
        )


def _reason(entry: AuditEntry) -> str:
    words = entry.words
    given = [after for word, after in zip(words, words[1:]) if word == "--reason"]
    given += [word.partition("=")[2] for word in words if word.startswith("--reason=")]
    return given[0] if given else _MADE_BY[entry.operation]


def _kept(backup: Backup) -> BackupLine:
    manifest, proof = backup.manifest, backup.proof
    return BackupLine(
        id=backup.id,
        made_at=backup.created_at,
        reason=manifest.reason,
        chap_version=manifest.chap.version,
        proven_by=proof.best,
        proven_at=None if proof.how == BAD else proof.best_at,
        size=backup.size,
        dump_size=manifest.dump.size,
        database_size=manifest.database.size,
        tables=manifest.tables,
        folder=str(backup.folder),
        pinned=backup.pinned,
        fault=backup.fault,
    )


def copy_lines(trail: Sequence[AuditEntry]) -> tuple[CopyLine, ...]:
    """Return every copy that was made, in the order of the backups."""
    known: dict[tuple[str, str], CopyLine] = {}
    for entry in trail:
        where = fields.text(entry.facts, "repository")
        if _went_well(entry, "copy") and (name := fields.text(entry.facts, "backup")):
            # Copied again is copied once, unless it was removed in between.
            earlier = known.get((name, where))
            if earlier is None or earlier.removed_at:
                known[name, where] = _copied(entry, name, where)
        elif _went_well(entry, "verify") and (name := fields.text(entry.facts, "copy")):
            if copy := known.get((name, where)):
                known[name, where] = replace(copy, drilled_at=entry.ended_at)
        elif _went_well(entry, "prune"):
            for name in _names(entry.facts.get("copies")):
                if copy := known.get((name, where)):
                    known[name, where] = replace(copy, removed_at=entry.ended_at)
    return tuple(sorted(known.values(), key=lambda copy: (copy.made_at or copy.copied_at, copy.copied_at)))


def _copied(entry: AuditEntry, name: str, where: str) -> CopyLine:
    sent, content = fields.whole(entry.facts, "sent"), fields.whole(entry.facts, "sql_size")
    return CopyLine(name, fields.moment_of(name), entry.ended_at or entry.began_at, where, sent, content)


def proof_lines(trail: Sequence[AuditEntry]) -> tuple[ProofLine, ...]:
    """Return every drill, test-restore and check of a repository, oldest first, also those that failed."""
    return tuple(line for entry in trail if (line := _proof(entry)))


def _proof(entry: AuditEntry) -> ProofLine | None:
    kind = next((name for name in ("copy", "backup", "dump") if fields.text(entry.facts, name)), "")
    name, proof = fields.text(entry.facts, kind), fields.text(entry.facts, "proof")
    if entry.operation == "copies":
        part = fields.whole(entry.facts, "checked")
        kind, name, proof = "repository", fields.text(entry.facts, "repository"), f"{part} % read back"
    elif entry.operation != "verify" or proof != RESTORED:
        return None
    tables, counted = fields.whole(entry.facts, "tables"), fields.whole(entry.facts, "rows")
    return ProofLine(entry.began_at, kind, name, proof, entry.result, tables, counted, entry.message)


def change_lines(trail: Sequence[AuditEntry], runs: Sequence[Mapping[str, Any]]) -> tuple[ChangeLine, ...]:
    """Return every change of the stack, oldest first; one that was refused changed nothing and is left out."""
    records = {fields.text(run, "id"): run for run in runs}
    return tuple(
        _change(entry, records.get(entry.run, {}))
        for entry in trail
        if entry.operation in _CHANGES and entry.result not in (audit.REFUSED, audit.CANCELLED) and _is_change(entry)
    )


def _is_change(entry: AuditEntry) -> bool:
    if entry.operation == "recover":
        return bool(fields.text(entry.facts, "recovered"))
    # What failed before a run began changed nothing.
    return entry.result == audit.DONE and bool(entry.facts or entry.run) or bool(entry.run)


def _change(entry: AuditEntry, run: Mapping[str, Any]) -> ChangeLine:
    before, after = (fields.text(run, end) or fields.text(entry.facts, end) for end in ("from", "to"))
    downtime = fields.seconds(run, "downtime")
    return ChangeLine(
        at=entry.began_at,
        operation=entry.operation,
        about=entry.summary.partition(", down ")[0],
        result=entry.result,
        by=entry.by,
        before=before.removeprefix("v"),
        after=after.removeprefix("v"),
        downtime=fields.seconds(entry.facts, "downtime") if downtime is None else downtime,
        expected=fields.seconds(run, "expected_downtime"),
        message=entry.message,
    )


def measured(backups: Sequence[BackupLine]) -> list[BackupLine]:
    """Return the backups whose numbers are known, for what is drawn over time."""
    return [line for line in backups if line.database_size is not None and line.dump_size is not None]


def _went_well(entry: AuditEntry, operation: str) -> bool:
    return entry.operation == operation and entry.result == audit.DONE


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def last_change(changes: Sequence[ChangeLine]) -> ChangeLine | None:
    """Return the last change that gave CHAP another version and stayed, None where none is known."""
    done = (line for line in reversed(changes) if line.result == audit.DONE)
    return next((line for line in done if line.operation in ("upgrade", "rollback")), None)


def of_window(times: Sequence[datetime | None], first: datetime, last: datetime) -> int:
    """Return how many of the times lie in a window, its end left out."""
    return sum(1 for when in times if when and first <= when < last)
