"""Whether the disk that a folder is meant for is mounted: without it, everything would go to the system's own disk."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from shlex import quote

from compose_chap.errors import StateError
from compose_chap.ownership import as_root

# Where people and desktops mount disks. On a disk of its own each folder below is one.
_FOR_DISKS = (Path("/mnt"), Path("/media"), Path("/run/media"))
_FSTAB = Path("/etc/fstab")


def refuse_unmounted(folder: Path) -> None:
    """Raise StateError when a folder belongs to a disk that is not mounted."""
    fstab = ""
    with suppress(OSError):
        fstab = _FSTAB.read_text(errors="replace")
    disk = unmounted(folder, mount_points(fstab), os.path.ismount)
    if disk is None:
        return
    raise StateError(
        f"No disk is mounted at {disk}: {folder} would be on the system's own disk.",
        state="Nothing was written.",
        hint=f"Mount it first: {as_root(f'mount {quote(str(disk))}')}\n"
        "If this is the right place, say so with --allow-unmounted, or set DOCKER_CHAP_ALLOW_UNMOUNTED=1.",
    )


def mount_points(fstab: str) -> list[Path]:
    """Return the folders that a text such as /etc/fstab says a disk is mounted at."""
    entries = (line.split() for line in fstab.splitlines() if not line.lstrip().startswith("#"))
    points = (_unescaped(fields[1]) for fields in entries if len(fields) > 2 and fields[1].startswith("/"))
    return [Path(point) for point in points if point != "/"]


def unmounted(folder: Path, known: Iterable[Path], is_mounted: Callable[[Path], bool]) -> Path | None:
    """Return where the disk of a folder should be mounted and is not; None where nothing speaks for such a disk.

    That is a place of `known`, or a folder for disks in which nothing lies: what somebody put there by hand is meant.
    """
    folder = Path(os.path.realpath(folder))
    within = [folder, *folder.parents]
    for point in known:
        if Path(os.path.realpath(point)) in within and not is_mounted(point):
            return point
    for base in _FOR_DISKS:
        below = [point for point in within if base in point.parents]
        if below and not any(map(is_mounted, (base, *below))) and not any(map(_holds_something, below)):
            return below[-1]
    return None


def _holds_something(folder: Path) -> bool:
    """Whether anything lies in a folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        return any(True for _ in entries)
    return False


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
