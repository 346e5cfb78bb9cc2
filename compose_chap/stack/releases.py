"""Which releases there are: asked of the registry, and remembered, because a shell that completes cannot wait."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from compose_chap.errors import RegistryError
from compose_chap.image import Reference, release_key
from compose_chap.model import Stack
from compose_chap.reading import read_document

if TYPE_CHECKING:
    from compose_chap.engine.registry import Registry

AN_HOUR = timedelta(hours=1)
A_WEEK = timedelta(days=7)

_LARGEST = 1 << 20  # bytes of a memory
_AFTER_FAILURE = timedelta(minutes=1)


def find(
    registry: Registry, images: Mapping[str, Reference], environment: Mapping[str, str], now: datetime
) -> list[str]:
    """Return the releases that all images have, oldest first, from memory where it is not older than an hour.

    A registry that does not answer is left alone for a minute. Raise RegistryError then too.
    """

    repositories = {one.repository for one in images.values()}
    known = remembered(repositories, environment, now, AN_HOUR)
    if known is not None:
        return known
    releases: list[str] = []
    try:
        releases = available(registry, images)
    finally:
        remember(repositories, environment, now, releases)
    return releases


def remembered(
    repositories: Collection[str], environment: Mapping[str, str], now: datetime, oldest: timedelta
) -> list[str] | None:
    """Return the releases that were found last, None where that was too long ago or never."""
    with suppress(OSError, RegistryError):
        record = read_document(_memory(repositories, environment), RegistryError, limit=_LARGEST, own=True)
        age = now - record.at("asked").moment()
        releases = list(record.at("releases").texts())
        if timedelta(0) <= age < (oldest if releases else min(oldest, _AFTER_FAILURE)):
            return releases
    return None


def remember(
    repositories: Collection[str], environment: Mapping[str, str], now: datetime, releases: Collection[str]
) -> None:
    """Keep what was found, where there is a cache of this user's own."""
    memory = _memory(repositories, environment)
    unfinished = memory.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if memory.parent.stat().st_uid == os.geteuid():
            unfinished.write_text(json.dumps({"asked": now.isoformat(), "releases": list(releases)}))
            unfinished.replace(memory)


def newer(version: str, releases: Collection[str]) -> str:
    """Return the newest release that is newer than a version, empty when there is none."""
    running = release_key(f"v{version.removeprefix('v')}")
    found = [(key, release) for release in releases if (key := release_key(release)) and running and key > running]
    return max(found)[1] if found else ""


def _memory(repositories: Collection[str], environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME") or "/nonexistent", ".cache")
    name = hashlib.sha256(" ".join(sorted(repositories)).encode()).hexdigest()[:16]
    return Path(base, "docker-chap", f"releases-{name}.json")


def available(registry: Registry, images: Mapping[str, Reference]) -> list[str]:
    """Return the releases that every one of these images has in the registry, oldest first."""
    tags = [set(registry.tags(reference.repository)) for reference in images.values()]
    return sorted((tag for tag in set.intersection(*tags) if _is_release(tag)), key=lambda tag: release_key(tag) or ())


def _is_release(tag: str) -> bool:
    return tag.startswith("v") and release_key(tag) is not None


# Releases that report the version of another: its number was not raised when they were made.
_REPORTED = {"1.1.2": "1.1.1", "1.1.3": "1.1.1"}


def reported_version(target: str) -> str:
    """Return the version that a release says it is, without the `v`: not always its own."""
    version = target.removeprefix("v")
    return _REPORTED.get(version, version)


def repositories_of(stack: Stack) -> set[str]:
    """Return by what the releases of a stack are remembered; what Compose builds is called after the project."""
    return {service.image.repository for service in stack.writers}
