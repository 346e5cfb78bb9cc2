"""What `schedule on` changes: an option replaces its own setting, `--without` takes one away, everything else stays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from compose_chap.errors import UsageError
from compose_chap.schedule.plan import CopyStore, Schedule

# What `--without` takes away. Without `copy-to` its password file, keys and limit go too.
REMOVABLE = ("copy-to", "keys", "limit-upload", "output", "dhis2", "volumes", "metrics-file", "ping", "alarm", "digest")


@dataclass(frozen=True)
class Given:
    """The settings that `schedule on` was given: None, or empty, for those that stay as they are.

    `repository` is empty where the file of keys names it. `alarm_file` is the file of our own where addresses were
    given. `without` are the names, of REMOVABLE, of the settings that are taken away.
    """

    at: tuple[int, int] | None = None
    repository: str | None = None
    password_file: str = ""
    keys_file: str = ""
    limit_upload: int | None = None
    output: str = ""
    with_dhis2: bool = False
    with_volumes: bool = False
    metrics_file: str = ""
    ping: str = ""
    alarm_file: str = ""
    digest: str = ""
    without: frozenset[str] = frozenset()

    @property
    def names_store(self) -> bool:
        """Whether anything says where copies go, and how they are read."""
        return self.repository is not None or bool(self.password_file or self.keys_file)

    def names(self) -> set[str]:
        """Return the names of the settings that can be taken away, and were given."""
        given = {
            "copy-to": self.names_store,
            "keys": self.keys_file,
            "limit-upload": self.limit_upload is not None,
            "output": self.output,
            "dhis2": self.with_dhis2,
            "volumes": self.with_volumes,
            "metrics-file": self.metrics_file,
            "ping": self.ping,
            "alarm": self.alarm_file,
            "digest": self.digest,
        }
        return {name for name, value in given.items() if value}


@dataclass(frozen=True)
class Difference:
    """The names of the settings that were changed, taken away, and kept as they were."""

    changed: tuple[str, ...]
    removed: tuple[str, ...]
    kept: tuple[str, ...]


def merged(schedule: Schedule, given: Given) -> Schedule:
    """Return a schedule with what was given, and without what was taken away.

    Raise UsageError where that contradicts itself. The store has no password file where none was given so far.
    """
    if both := sorted(given.names() & given.without):
        raise UsageError(f"--without {both[0]} takes away what another option gives.", state="Nothing was changed.")

    def setting(name: str, new: str, old: str) -> str:
        return new or ("" if name in given.without else old)

    hour, minute = given.at or (schedule.hour, schedule.minute)
    alarm_file = setting("alarm", given.alarm_file, schedule.alarm_file)
    # Without alarms nobody gets a summary.
    kept_digest = schedule.digest if alarm_file else ""
    after = replace(
        schedule,
        hour=hour,
        minute=minute,
        store=_store(schedule.store, given),
        output=setting("output", given.output, schedule.output),
        with_dhis2=given.with_dhis2 or (schedule.with_dhis2 and "dhis2" not in given.without),
        with_volumes=given.with_volumes or (schedule.with_volumes and "volumes" not in given.without),
        metrics_file=setting("metrics-file", given.metrics_file, schedule.metrics_file),
        ping=setting("ping", given.ping, schedule.ping),
        alarm_file=alarm_file,
        digest=setting("digest", given.digest, kept_digest),
    )
    if after.digest and not after.alarm_file:
        raise UsageError("--digest is about alarms.", hint="Name where they go: --alarm URL")
    return after


def _store(before: CopyStore | None, given: Given) -> CopyStore | None:
    if not (before or given.names_store) or "copy-to" in given.without:
        if given.limit_upload:
            raise UsageError("--limit-upload is about copies.", hint="Name where they go: --copy-to REPOSITORY")
        return None
    store = before or CopyStore("", "")
    if given.repository not in (None, "", store.repository):
        # The keys of one server are not for another.
        store = replace(store, keys_file="")
    limit = store.limit_upload if given.limit_upload is None else given.limit_upload
    return CopyStore(
        store.repository if given.repository is None else given.repository,
        given.password_file or store.password_file,
        given.keys_file or ("" if "keys" in given.without else store.keys_file),
        0 if "limit-upload" in given.without else limit,
    )


def same_store(before: CopyStore | None, after: CopyStore) -> bool:
    """Whether copies go to the same repository, which is opened in the same way."""
    return before is not None and replace(before, limit_upload=after.limit_upload) == after


def difference(
    before: Schedule | None, after: Schedule, addresses_before: tuple[str, ...], addresses: tuple[str, ...]
) -> Difference:
    """Return what makes two schedules differ; the addresses are those of their alarms.

    Without a schedule before, all is new.
    """
    old, new = _named(before, addresses_before) if before else {}, _named(after, addresses)
    return Difference(
        tuple(name for name in new if old.get(name) != new[name]),
        tuple(name for name in old if name not in new),
        tuple(name for name in new if old.get(name) == new[name]),
    )


def _named(schedule: Schedule, addresses: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings that are not empty, by the names that people know them by."""
    store = schedule.store
    values = {
        "at": (schedule.hour, schedule.minute),
        "by": schedule.by,
        "copy-to": store and store.location,
        "password-file": store and store.password_file,
        "keys": store and store.keys_file,
        "limit-upload": store and store.limit_upload,
        "output": schedule.output,
        "dhis2": schedule.with_dhis2,
        "volumes": schedule.with_volumes,
        "metrics-file": schedule.metrics_file,
        "ping": schedule.ping,
        "alarm": addresses or schedule.alarm_file,
        "digest": schedule.digest,
    }
    return {name: value for name, value in values.items() if value}
