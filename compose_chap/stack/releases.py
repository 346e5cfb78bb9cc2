"""The available releases, from the registry; cached, because shell completion cannot wait."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from compose_chap.errors import RegistryError, StateError
from compose_chap.image import Reference, release_key
from compose_chap.model import Stack
from compose_chap.records.files import cache

if TYPE_CHECKING:
    from compose_chap.engine.engine import Engine
    from compose_chap.engine.registries.registry import Registry

AN_HOUR = timedelta(hours=1)
A_WEEK = timedelta(days=7)

_AFTER_FAILURE = timedelta(minutes=1)
# About older ones the registry is not asked: each takes six questions, and a link may be slow.
_LOOKED_AT = 8


@dataclass(frozen=True)
class Release:
    """A release: its tag, when its API image was made, the bytes of all its images, whether they are loaded here.

    The time is as the registry writes it, empty where that was not asked; the bytes are those of a pull, each layer
    once, None where that was not asked.
    """

    tag: str
    created: str = ""
    size: int | None = None
    here: bool = False


def find(
    registry: Registry, images: Mapping[str, Reference], environment: Mapping[str, str], now: datetime
) -> list[str]:
    """Return the releases that all images have, oldest first; cached for an hour.

    Raise RegistryError when the registry does not answer; then the result is empty for a minute, without asking.
    """

    repositories = {image.repository for image in images.values()}
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
    """Return the cached releases, None where they are missing or older than `oldest`."""
    record = cache.recall(_name(repositories), environment)
    with suppress(StateError):
        age = now - record.at("asked").moment() if record else A_WEEK
        releases = list(record.at("releases").texts()) if record else []
        if timedelta(0) <= age < (oldest if releases else min(oldest, _AFTER_FAILURE)):
            return releases
    return None


def remember(
    repositories: Collection[str], environment: Mapping[str, str], now: datetime, releases: Collection[str]
) -> None:
    """Cache the releases, if this user has a cache folder."""
    cache.remember(_name(repositories), {"asked": now.isoformat(), "releases": list(releases)}, environment)


def newer(version: str, releases: Collection[str]) -> str:
    """Return the newest release that is newer than a version, empty when there is none."""
    running = release_key(f"v{version.removeprefix('v')}")
    candidates = [(key, release) for release in releases if (key := release_key(release)) and running and key > running]
    return max(candidates)[1] if candidates else ""


def _name(repositories: Collection[str]) -> str:
    return "releases-" + hashlib.sha256(" ".join(sorted(repositories)).encode()).hexdigest()[:16]


def available(registry: Registry, images: Mapping[str, Reference]) -> list[str]:
    """Return the releases that every one of these images has in the registry, oldest first."""
    tags = [set(registry.tags(reference.repository)) for reference in images.values()]
    return sorted((tag for tag in set.intersection(*tags) if _is_release(tag)), key=lambda tag: release_key(tag) or ())


def described(
    registry: Registry, images: Mapping[str, Reference], tags: Sequence[str], platform: str, here: Collection[str]
) -> list[Release]:
    """Return releases with what the registry says of the newest; `tags` are oldest first, `here` are loaded ones."""
    with ThreadPoolExecutor(_LOOKED_AT) as pool:
        futures = {tag: pool.submit(_described, registry, images, tag, platform) for tag in tags[-_LOOKED_AT:]}
    made = {tag: answer.result() for tag, answer in futures.items()}
    return [Release(tag, *made.get(tag, ("", None)), tag in here) for tag in tags]


def _described(registry: Registry, images: Mapping[str, Reference], tag: str, platform: str) -> tuple[str, int | None]:
    try:
        answers = [registry.manifest(image.with_tag(tag), platform) for image in images.values()]
    except RegistryError:
        return "", None  # that there is such a release is known
    manifests = [manifest for manifest in answers if manifest]
    layers = {digest: size for manifest in manifests for digest, size in manifest.layers.items()}
    return (manifests[0].created if manifests else ""), (sum(layers.values()) if manifests else None)


def loaded(engine: Engine, images: Mapping[str, Reference]) -> list[str]:
    """Return the releases that every one of these images has on the engine, oldest first. No registry is asked."""
    known_releases = [
        {name.rpartition(":")[2] for name in engine.tags(repository)}
        for repository in {reference.repository for reference in images.values()}
    ]
    tags = set.intersection(*known_releases) if known_releases else set()
    return sorted(filter(_is_release, tags), key=lambda tag: release_key(tag) or ())


def _is_release(tag: str) -> bool:
    return tag.startswith("v") and release_key(tag) is not None


# Releases that report the version of an older release, because the number was not raised.
_REPORTED = {"1.1.2": "1.1.1", "1.1.3": "1.1.1"}


def reported_version(target: str) -> str:
    """Return the version that a release reports, without the `v`: not always its own."""
    version = target.removeprefix("v")
    return _REPORTED.get(version, version)


def repositories_of(stack: Stack) -> set[str]:
    """Return the image repositories of a stack, the key of the cache; a built image is named after the project."""
    return {service.image.repository for service in stack.writers}
