"""Where copies go: a restic repository, with its password, and a disk that may have to be mounted first."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compose_chap.errors import CopyError, UsageError

_DISK = "disk:"
_BY_LABEL = Path("/dev/disk/by-label")
_MOUNTS = Path("/proc/self/mounts")
# What restic reads the password from. A password is never an argument, which everybody on the machine could read.
_PASSWORDS = ("RESTIC_PASSWORD", "RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD_COMMAND")


@dataclass(frozen=True)
class Repository:
    """A restic repository: its location as restic writes it, or `disk:LABEL/FOLDER`.

    `password_file` is empty where the environment has the password. `environment` is what restic needs beside it,
    such as the keys of an S3 server.
    """

    location: str
    password_file: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def variables(self) -> dict[str, str]:
        """Return the environment for restic. Raise CopyError when the disk is not mounted."""
        password = {"RESTIC_PASSWORD_FILE": self.password_file} if self.password_file else {}
        without = {name: value for name, value in self.environment.items() if not password or name not in _PASSWORDS}
        return {**without, **password, "RESTIC_REPOSITORY": _resolved(self.location)}


def repository(location: str, password_file: str, environment: Mapping[str, str]) -> Repository:
    """Return the repository that options and environment name. Raise UsageError when one of the two is missing."""
    location = location or environment.get("RESTIC_REPOSITORY", "")
    if not location:
        raise UsageError(
            "No repository for copies is named.",
            hint="Name one with --to, as restic does: a folder, sftp:user@host:/path, rest:https://…, s3:https://…"
            "\nFor a USB disk, by its label: disk:LABEL/folder",
        )
    if password_file and not os.access(password_file, os.R_OK):
        raise UsageError(f"The file with the repository's password cannot be read: {password_file}.")
    if not password_file and not any(environment.get(name) for name in _PASSWORDS):
        raise UsageError(
            "The password of the repository is not given.",
            hint="Write it into a file that only you can read, and add --password-file FILE.",
        )
    return Repository(location, password_file, environment)


def _resolved(location: str) -> str:
    if not location.startswith(_DISK):
        return location
    label, _, folder = location.removeprefix(_DISK).partition("/")
    if not label or ".." in Path(folder).parts:
        raise UsageError(f"{location} is not a disk's label and a folder: disk:LABEL/folder")
    return str(_mount_point(label) / folder)


def _mount_point(label: str) -> Path:
    """Return where the disk with a label is mounted."""
    # udev writes what may not stand in a file's name as \x20.
    device = _BY_LABEL / label.replace(" ", r"\x20")
    if not device.exists():
        raise CopyError(f"The disk '{label}' is not connected.", hint="Connect it, then run the command again.")
    wanted = os.path.realpath(device)
    for line in _MOUNTS.read_text().splitlines():
        source, target = line.split(" ")[:2]
        if os.path.realpath(source) == wanted:
            # The kernel writes a space in a path as \040.
            return Path(target.encode().decode("unicode_escape"))
    raise CopyError(
        f"The disk '{label}' is connected, but not mounted.",
        hint=f"Mount it, then run the command again: mount LABEL={label} /mnt",
    )
