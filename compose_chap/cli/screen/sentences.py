"""What the commands say: questions, verdicts, results, notes and warnings, to be read or translated in one place.

Each function takes values that are ready for people, and returns sentences without a layout. What a step is called is
in `steps`, what a check is called in `checks`. The three parts of a failure are where it is raised: they describe the
condition beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# Questions: what they are about stands above them.


def ask_upgrade(before: str, after: str) -> str:
    return f"Upgrade CHAP from {before} to {after}?"


def ask_restore(what: str) -> str:
    return f"Restore {what}?"


def ask_start_database(service: str) -> str:
    return f"The database service {service} is not running. Start it and go on?"


def ask_go_back(before: str, after: str, moment: str, age: str) -> str:
    """Ask for a rollback; without the versions where they stay the same."""
    data = f"the data of {moment} ({age})"
    return f"Go back from {before} to {after}, with {data}?" if before and after else f"Go back to {data}?"


def ask_password(user: str) -> str:
    return f"Password of {user} in DHIS2"


ASK_REMOVE = "Remove these for good?"
DECLINED = "Cancelled. Nothing was changed."

# The plan of an upgrade

CHANGES, NO_CHANGES = "Changes to the files", "none"
COPY_KEPT = "a copy of the database {} inside the server"
DUMP_KEPT = "a second dump of {}, because there is no room for a copy: going back takes as long as a restore"
BACKUP_KEPT = "the backup alone, if nothing is written to {} after it begins; else a copy of the database"
VERIFIED_PARTS = "versions, schema, rows, readiness, models, route, other containers"
CANNOT_BE_UNDONE = (
    "This cannot be undone: a job that is running when CHAP stops is lost. After a rollback, rows that were written"
    " since the upgrade are kept in a separate database. They are not merged into the previous data."
)


def upgrade_title(before: str, after: str) -> str:
    return f"Upgrade from {before} to {after}"


def expected_downtime(duration: str) -> str:
    return f"CHAP will be down for about {duration}. DHIS2 and all other services keep running."


def price_of_copy(copy: str, without: str, back: str) -> str:
    price = f"down for about {without}, and about {back} longer if it has to go back: the backup is restored then."
    return f"For about {copy} of that the database is copied: going back takes seconds. With --no-copy CHAP is {price}"


def price_without_copy(with_copy: str, back: str) -> str:
    price = f"If it has to go back, it is down about {back} longer: the backup is restored then."
    more = f"a copy of the database is made: down for about {with_copy}."
    return f"{price} If anything is written after the backup begins, {more}"


def only_recreated(services: str) -> str:
    return f"{services}, and nothing else"


# What was done


def already_running(version: str) -> str:
    return f"CHAP {version} is already running. Nothing to do."


def upgraded(before: str, after: str, downtime: str) -> str:
    return f"CHAP was upgraded from {before} to {after}, and verified. It was down for {downtime}."


def restored(what: str, rows: str, downtime: str) -> str:
    return f"Restored {what}: {rows}. CHAP was down for {downtime}."


def rolled_back(version: str) -> str:
    return f"CHAP is back at {version or 'the previous data'}, and verified."


def previous_data_kept(kept: str) -> str:
    """Say where the previous data are; the command that goes back to them stands below."""
    return f"The previous data are kept in {kept}. To go back to them:"


def newer_data_kept(database: str) -> str:
    return (
        f"The newer data are kept in database {database}. After a week `docker chap prune` offers to remove it;"
        " the nightly work leaves it."
    )


def report_at(path: object) -> str:
    return f"Report: {path}"


TO_PUT_VALUES_BACK = "To put back the values that the migration lost:"


def rows_since(operation: str, changes: Sequence[str]) -> str:
    """Say which tables gained or lost rows since a run."""
    not_seen = "(Edited rows are not counted.)"
    if not changes:
        return f"No rows were added or removed since the {operation}. {not_seen}"
    return f"Rows added or removed since the {operation}: {', '.join(changes)}. {not_seen}"


def started_database(service: str) -> str:
    return f"The database service {service} was not running. It has been started."


# What a restore puts back, and over what

RESTORE_PRICE = (
    "The data are restored beside the live database and proven there; CHAP stops only while the two are swapped. The"
    " current data are kept in a separate database: docker chap restore --undo brings them back."
)
UNKNOWN_VERSION = "of an unknown version"
NO_ROWS_KNOWN = "no rows that can be counted"


def dump_of(size: str) -> str:
    return f"a dump of {size}"


def becomes(version: str) -> str:
    return f", which becomes {version}"


# Backups


def backup_made(identity: str, rows: str, size: str, duration: str, *, complete: bool) -> str:
    state = "is complete and was read back" if complete else "was read back"
    return f"Backup {identity} {state}: {rows}, {size}, in {duration}."


def dump_made(rows: str, size: str) -> str:
    return f"The dump was read back: {rows}, {size}."


def tables_lost(tables: Sequence[str], missing_from: str) -> str:
    return (
        f"The database has lost {', '.join(tables)}, so they are missing from {missing_from}."
        " Keep the earlier backups: docker chap backups --pin ID"
    )


THIS_BACKUP, THIS_DUMP = "this backup too, and `latest` skips it", "this dump too"


def files_not_included(files: Sequence[str]) -> str:
    return (
        f"The Compose files are not in it: they are not on this machine ({', '.join(files)})."
        " Back up on the server itself to keep them too."
    )


def tables_not_included(tables: Sequence[str]) -> str:
    return f"Not in this backup, although an earlier one or CHAP has them: {', '.join(tables)}."


def no_backups(folders: Iterable[object]) -> str:
    return f"No backups in {' or '.join(map(str, folders))}."


def unreliable(identity: str, fault: str) -> str:
    return f"Do not rely on {identity}. {fault}"


def backup_intact(identity: str, result: str) -> str:
    return f"Backup {identity} is intact: every checksum matches, {result}"


def dump_intact(path: object, result: str) -> str:
    return f"The dump {path} is intact: {result}"


def same_rows(rows: str) -> str:
    return f"and a test restore gave {rows}, exactly what was backed up."


NOT_COUNTED = "Not counted:"
READ_TO_END = "and PostgreSQL read the dump from beginning to end."
NOT_READ = "but the dump was not read: there is no PostgreSQL here to do it."


def dump_read(tables: str) -> str:
    return f"PostgreSQL read it from beginning to end, {tables}."


def dump_restored(rows: str) -> str:
    return f"a test restore gave {rows}. Compare them with what you expect: a dump alone does not say."


def still_unreliable(fault: str) -> str:
    return f"Even so, do not rely on it. {fault}"


# Prune

NOTHING_TO_REMOVE = "Nothing to remove."
WOULD_BE_REMOVED, REMOVED = "Would be removed", "Removed"
IMAGES_FREE_TOO = ", plus the space of the images"
STAYS, DATA_GONE = "Kept", "its data are gone"


def older_than_days(days: int) -> str:
    return f"older than {days} days"


def older_than_last(count: int) -> str:
    return f"older than the last {count}"


# Checks, versions, status, history


def verdict(target: str, summary: str, *, failed: bool) -> str:
    """Say whether a stack is ready for an upgrade, or in order where there is no target."""
    if target:
        return f"{'Not ready' if failed else 'Ready'} to upgrade to {target}: {summary}."
    return f"{'This stack needs attention' if failed else 'This stack is in order'}: {summary}."


NO_RELEASE = "There is no release."
ONLY_TAGS_HERE = "Only the tags of this clone are listed."
ONLY_IMAGES_HERE = "Only the images on this engine are listed."


def newer_version(version: str) -> str:
    """Say that there is a newer release; the command that checks it stands below."""
    return f"There is a newer version, {version}. See if it fits:"


SAME_DISK = (
    "All backups are on the same disk as the database. If that disk fails, both are lost. Write backups to another disk"
    " as well:"
)
NOTHING_RECORDED = "Nothing has been recorded yet."
REPORTS = "The report of a run, with its steps, digests and checks:"

# Rehearsals

REHEARSED = {
    "good": "{target} works on a copy of these data.",
    "migrates": "{target} migrates a copy of these data and loses nothing. Whether it starts could not be checked.",
    "bad": "{target} does not work on a copy of these data. Do not upgrade to it.",
}
NEW_COLUMNS, REMOVED_COLUMNS = "New columns", "Columns that are removed"
LAST_LOG_LINES = "The last lines of the API's log:"
COPY_GONE = "Your stack was not touched, and the copy is gone."


def columns(title: str, names: Sequence[str]) -> str:
    return f"{title}: {', '.join(names)}."


def downtime_of_upgrade(duration: str) -> str:
    return f"An upgrade would stop CHAP for about {duration}."


# Recovery

RECOVERED = {
    "finished": "was complete. It is now verified and closed.",
    "undone": "was undone: everything is as it was before.",
    "nothing changed": "had changed nothing.",
}
WOULD_RECOVER = {
    "finished": "It was complete and verified, and would be closed.",
    "finished or undone": "It would be verified: closed if all is well, otherwise undone.",
    "undone": "It would be undone: files, images and data as they were before, verified.",
    "nothing changed": "It had changed nothing, and would be closed.",
}
NOTHING_CUT_OFF = "No run was cut off. Nothing to do."
TO_DO_IT = "To do it:"


def recovered(operation: str, run: str, outcome: str) -> str:
    return f"The {operation} of {run} {RECOVERED[outcome]}"


def would_recover(operation: str, run: str, where: str, outcome: str) -> str:
    return f"The {operation} of {run} was cut off {where}. {WOULD_RECOVER[outcome]}"


def files_name_it(tag: str, services: Sequence[str]) -> str:
    return f"The files already name {tag}: {', '.join(services)}."


# Notes and warnings


def note(text: str) -> str:
    return f"Note: {text}"


def warning(text: str) -> str:
    return f"Warning: {text}"
