"""The services of a project before and after an upgrade, side by side: what its new files add, take away and move.

Pure: two models and the names of the services that count. A mount that moves is the worst of it: the data stay where
they were, and the new service looks at an empty folder.
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
    """Where data are kept: `source` is a named volume, with its whole name, or a folder of the server."""

    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.source} at {self.target}"


def added(before: Model, after: Model) -> list[str]:
    """Return the services that only the new files have, without those of a profile."""
    return [name for name, service in after.services.items() if name not in before.services and not service.profiles]


def removed(before: Model, after: Model) -> list[str]:
    """Return the services that the new files no longer have."""
    return [name for name in before.services if name not in after.services]


def mounts(model: Model, name: str) -> dict[str, Mount]:
    """Return the mounts of a service by their place in the container; caches and tmpfs are left out."""
    found = {}
    for entry in items(tree(tree(model.data.get("services")).get(name)).get("volumes")):
        mount = _mount(model, entry)
        if mount and not is_cache(mount.source, mount.target):
            found[mount.target] = mount
    return found


def _mount(model: Model, entry: Data) -> Mount | None:
    if isinstance(entry, dict):
        kind, source, target = (str(entry.get(key) or "") for key in ("type", "source", "target"))
        if kind == "tmpfs":
            return None
    else:
        parts = str(entry).split(":")
        source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
        kind = "bind" if source.startswith((".", "/", "~")) else "volume"
    if kind == "bind":
        place = os.path.normpath(model.layout.project_directory / Path(source).expanduser())
        return Mount(place, target.rstrip("/"))
    definition = tree(tree(model.data.get("volumes")).get(source))
    return Mount(str(definition.get("name") or source or "a volume without a name"), target.rstrip("/"))


def moved(before: Model, after: Model, name: str) -> list[str]:
    """Return, in words, each mount of a service that is no longer what it was; new ones beside the old do not count."""
    old, new = mounts(before, name), mounts(after, name)
    return [
        f"{name}: {mount} becomes {new.get(target) or _elsewhere(mount, new) or 'nothing'}"
        for target, mount in old.items()
        if new.get(target) != mount
    ]


def folders(model: Model, names: Sequence[str]) -> list[str]:
    """Return the folders of the server that these services mount."""
    sources = dict.fromkeys(mount.source for name in names for mount in mounts(model, name).values())
    return [source for source in sources if source.startswith("/")]


def copies(before: Model, after: Model, name: str) -> Iterator[tuple[str, str]]:
    """Yield each folder of the server that a service no longer has, and the place in it that takes its part."""
    old, new = mounts(before, name), mounts(after, name)
    for target, mount in old.items():
        place = new.get(target) or _elsewhere(mount, new)
        if mount.source.startswith("/") and place and place != mount:
            yield mount.source, place.target


def lost_networks(model: Model) -> Iterator[str]:
    """Yield, in words, each network that a service uses and no file defines: Compose refuses such files."""
    known = {"default", *tree(model.data.get("networks"))}
    for name, service in model.services.items():
        used = tree(tree(model.data.get("services")).get(name)).get("networks")
        for network in used if isinstance(used, dict) else map(str, items(used)):
            if network not in known and not service.profiles:
                yield f"network {network} of {name}"


def _elsewhere(mount: Mount, new: dict[str, Mount]) -> Mount | None:
    last = mount.target.rpartition("/")[2]
    return next((one for one in new.values() if one.source == mount.source or one.target.endswith(f"/{last}")), None)


def ports(before: Model, after: Model, names: Sequence[str]) -> Iterator[str]:
    """Yield, in words, each of these services whose published ports change."""
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
