"""Image references and release versions: how they are written, compared and ordered. Pure."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass

from compose_chap.errors import UsageError


@dataclass(frozen=True)
class Reference:
    """An image reference in its parts; `tag` and `digest` are empty where it has none."""

    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Split `registry:port/name:tag@digest`."""
        rest, _, digest = text.partition("@")
        head, colon, last = rest.rpartition(":")

        # A colon before the last slash belongs to the registry's port.
        if colon and "/" not in last:
            return cls(head, last, digest)
        return cls(rest, "", digest)

    @property
    def name(self) -> str:
        """The last part of the repository: `chap-core` of `ghcr.io/dhis2-chap/chap-core`."""
        return self.repository.rpartition("/")[2]

    def with_tag(self, tag: str) -> Reference:
        """Return the same image at another tag, without a digest."""
        return Reference(self.repository, tag)

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


_RELEASE = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


def release_tag(version: str) -> str:
    """Return the tag of a release (`v2.1.0`) for `v2.1.0` or `2.1.0`. Raise UsageError for anything else."""
    if not _RELEASE.fullmatch(version):
        short = re.fullmatch(r"v?(\d+)(?:\.(\d+))?", version)
        meant = f"Did you mean v{short[1]}.{short[2] or 0}.0? " if short else "Write it like v2.1.0 or 2.1.0. "
        raise UsageError(
            f"'{version}' is not a CHAP version.",
            state="Nothing was changed.",
            hint=f"{meant}List them all: docker chap versions",
        )
    return "v" + version.removeprefix("v")


def release_key(version: str) -> tuple[int, int, int] | None:
    """Return what orders releases, (2, 1, 0) for `v2.1.0`; None for `latest`, branches and other words."""
    match = _RELEASE.fullmatch(version)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def nearest_releases(version: str, releases: Sequence[str]) -> list[str]:
    """Return up to three releases that come next before and after one that does not exist, the nearest first.

    All are releases such as `v2.1.0`, and `releases` are in order, the oldest first.
    """
    keys = [release_key(release) or () for release in releases]
    between = bisect.bisect(keys, release_key(version) or ()) - 0.5
    return [releases[at] for at in sorted(range(len(releases)), key=lambda at: abs(at - between))[:3]]
