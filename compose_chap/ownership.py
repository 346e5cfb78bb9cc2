"""Who owns a file or folder, and so whether to trust it. Root runs this in folders that others own."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path


def not_own(status: os.stat_result) -> str:
    """Return why a file or folder cannot be trusted, empty when it can.

    It can be trusted if it belongs to the effective user or root and nobody else may write it, as ssh and sudo judge.
    """
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to another user ({user_name(status.st_uid)})"
    if status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode):
        return f"may be written by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def as_root(command: str) -> str:
    """Return a command that only root may run, as this user has to type it."""
    return command if os.geteuid() == 0 else f"sudo {command}"


def user_name(number: int) -> str:
    """Return the name of a user, or the number where there is no name."""
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def upwards(folder: Path) -> Iterator[Path]:
    """Yield a folder and its parents, up to the first where somebody else could have put a file.

    That is a folder that everybody may write, such as /tmp, or one that belongs to another user than root, this user
    and the owner of `folder`.
    """
    owners: set[int] = set()
    for parent in (folder, *folder.parents):
        try:
            status = os.stat(parent)
        except OSError:  # a folder that is gone, or that this user may not reach
            continue
        if not owners:
            owners = {0, os.geteuid(), status.st_uid}
        elif status.st_uid not in owners or status.st_mode & 0o002:
            return
        yield parent
