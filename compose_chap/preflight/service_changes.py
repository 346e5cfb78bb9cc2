"""The services of a project before and after an upgrade: what the new files add, remove and move.

Pure: it compares two models. A mount that moves is the worst case: the data stay where they were, and the new service
sees an empty folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from compose_chap.backups.volumes import is_cache
from compose_chap.project.compose_files import Model
from compose_chap.project.document import Data, items, tree


@dataclass(frozen=True)
class Mount:
    """A mount: `mounted` is the full name of a volume or a folder of the server, `target` the path inside."""

    mounted: str
    target: str

    def __str__(self) -> str:
        return f"{self.mounted} at {self.target}"


def added(before: Model, after: Model) -> list[str]:
    """Return the services that only the new files have, except those with a profile."""
    return [name for name, service in after.services.items() if name not in before.services and not service.profiles]


def removed(before: Model, after: Model) -> list[str]:
    """Return the services that the new files no longer have."""
    return [name for name in before.services if name not in after.services]


def mounts(model: Model, name: str) -> dict[str, Mount]:
    """Return the mounts of a service by their path in the container, without caches and tmpfs."""
    result = {}
    for entry in items(tree(tree(model.data.get("services")).get(name)).get("volumes")):
        mount = _mount(model, entry)
        if mount and not is_cache(mount.mounted, mount.target):
            result[mount.target] = mount
    return result


def _mount(model: Model, entry: Data) -> Mount | None:
    if isinstance(entry, dict):
        kind, mounted, target = (str(entry.get(key) or "") for key in ("type", "source", "target"))
        if kind == "tmpfs":
            return None
    else:
        parts = str(entry).split(":")
        mounted, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
        kind = "bind" if mounted.startswith((".", "/", "~")) else "volume"
    if kind == "bind":
        folder = os.path.normpath(model.layout.project_directory / Path(mounted).expanduser())
        return Mount(folder, target.rstrip("/"))
    definition = tree(tree(model.data.get("volumes")).get(mounted))
    return Mount(str(definition.get("name") or mounted or "a volume without a name"), target.rstrip("/"))


def moved(before: Model, after: Model, name: str) -> list[str]:
    """Return, for people, each mount of a service that changes or goes; additional mounts do not count."""
    old, new = mounts(before, name), mounts(after, name)
    return [
        f"{name}: {mount} becomes {new.get(target) or _replacement(mount, new) or 'nothing'}"
        for target, mount in old.items()
        if new.get(target) != mount
    ]


def folders(model: Model, names: Sequence[str]) -> list[str]:
    """Return the folders of the server that these services mount."""
    all_mounted = dict.fromkeys(mount.mounted for name in names for mount in mounts(model, name).values())
    return [mounted for mounted in all_mounted if mounted.startswith("/")]


def copies(before: Model, after: Model, name: str) -> Iterator[tuple[str, str]]:
    """Yield each folder of the server that a service no longer mounts, and the path in it that replaces it."""
    old, new = mounts(before, name), mounts(after, name)
    for target, mount in old.items():
        replacement = new.get(target) or _replacement(mount, new)
        if mount.mounted.startswith("/") and replacement and replacement != mount:
            yield mount.mounted, replacement.target


def lost_networks(model: Model) -> Iterator[str]:
    """Yield, for people, each network that a service uses and no file defines: Compose refuses such files."""
    known = {"default", *tree(model.data.get("networks"))}
    for name, service in model.services.items():
        used = tree(tree(model.data.get("services")).get(name)).get("networks")
        for network in used if isinstance(used, dict) else map(str, items(used)):
            if network not in known and not service.profiles:
                yield f"network {network} of {name}"


def _replacement(mount: Mount, new: dict[str, Mount]) -> Mount | None:
    last = mount.target.rpartition("/")[2]
    return next(
        (
            candidate
            for candidate in new.values()
            if candidate.mounted == mount.mounted or candidate.target.endswith(f"/{last}")
        ),
        None,
    )


def ports(before: Model, after: Model, names: Sequence[str]) -> Iterator[str]:
    """Yield, for people, each of these services whose published ports change."""
    for name in names:
        old, new = (_ports(model, name) for model in (before, after))
        if old != new:
            yield f"{name}: {', '.join(old) or 'none'} becomes {', '.join(new) or 'none'}"


def _ports(model: Model, name: str) -> list[str]:
    entries = items(tree(tree(model.data.get("services")).get(name)).get("ports"))
    return [
        ":".join(str(entry[key]) for key in ("host_ip", "published", "target") if key in entry)
        if isinstance(entry, dict)
        else str(entry)
        for entry in entries
    ]
