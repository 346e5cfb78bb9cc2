"""Where copies go: a restic repository, with its password and keys, and a disk that may have to be mounted first."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compose_chap import reading
from compose_chap.errors import CopyError, UsageError
from compose_chap.ownership import as_root
from compose_chap.redact import redact

_DISK = "disk:"
_BY_LABEL = Path("/dev/disk/by-label")
_MOUNTS = Path("/proc/self/mountinfo")
# What restic reads the password from. A password is never an argument, which everybody on the machine could read.
PASSWORDS = ("RESTIC_PASSWORD", "RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD_COMMAND")
_WITH_PASSWORD = re.compile(r"://[^/@]*:[^/]*@")
_LONGEST = 1 << 16  # bytes
_KEY = re.compile(r"(?:export +)?([A-Za-z_]\w*) *= *(.*?) *", re.ASCII)

# Returns the options that name a repository in a command, after the option for its location.
Named = Callable[[str], str]


@dataclass(frozen=True)
class Repository:
    """A restic repository: its location as restic writes it, or `disk:LABEL/FOLDER`.

    `password_file` is empty where `environment` has the password. `environment` is all that restic gets beside it, such
    as the keys of an S3 server. `keys_file` is the file that some of it is from, empty for none.
    """

    location: str
    password_file: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    keys_file: str = ""

    def named(self, option: str) -> str:
        """Return the options that name this repository in a command, without any password: `--from REPOSITORY …`."""
        files = {"--password-file": self.password_file, "--keys": self.keys_file}
        words = [word for name, file in files.items() if file for word in (name, file)]
        # What holds a password is not repeated.
        location = self.location if redact(self.location) == self.location else "REPOSITORY"
        return shlex.join([option, location, *words])

    def variables(self) -> dict[str, str]:
        """Return the whole environment for restic. Raise CopyError when the disk is not mounted."""
        # What is named here comes from nowhere else.
        others = {"RESTIC_REPOSITORY_FILE", *(PASSWORDS if self.password_file else ())}
        variables = {name: value for name, value in self.environment.items() if name not in others}
        if self.password_file:
            variables["RESTIC_PASSWORD_FILE"] = self.password_file
        return {**variables, "RESTIC_REPOSITORY": _resolved(self.location)}


def unnamed(option: str) -> str:
    """Return the options for a repository that is not known."""
    return f"{option} REPOSITORY"


def repository(location: str, password_file: str, keys_file: str, environment: Mapping[str, str]) -> Repository:
    """Return the repository that options and environment name; what a file of keys says comes before the environment.

    Raise UsageError when location or password are missing, or one of the files cannot be used.
    """
    if _WITH_PASSWORD.search(location) or ("://" not in location and redact(location) != location):
        raise UsageError(
            f"A password does not belong on a command line, where everybody on this machine can read it:"
            f" {redact(location)}",
            hint="Write RESTIC_REPOSITORY=… into a file that only you can read, and add --keys FILE instead.",
        )
    environment = {**environment, **(read_keys(Path(keys_file)) if keys_file else {})}
    location = absolute_location(location or environment.get("RESTIC_REPOSITORY", ""))
    if not location:
        raise UsageError(
            "No repository for copies is named.",
            hint="Name one as restic does: a folder, sftp:user@host:/path, rest:https://…, s3:https://…"
            "\nA USB disk goes by its label: disk:LABEL/folder",
        )
    if password_file and not os.access(password_file, os.R_OK):
        raise UsageError(f"The file with the repository's password cannot be read: {password_file}.")
    if not password_file and not any(environment.get(name) for name in PASSWORDS):
        raise UsageError(
            "The password of the repository is not given.",
            hint="Write it into a file that only you can read, and add --password-file FILE.",
        )
    password_file, keys_file = (os.path.abspath(path) if path else "" for path in (password_file, keys_file))
    return Repository(location, password_file, environment, keys_file)


def shares_disk(location: str, folder: Path) -> bool:
    """Return whether a location is a folder on the disk that holds another folder, so that both are lost at once."""
    try:
        return os.path.isabs(location) and os.stat(location).st_dev == os.stat(folder).st_dev
    except OSError:
        return False


def absolute_location(location: str) -> str:
    """Return a location that means the same in every folder."""
    return os.path.abspath(location) if location and ":" not in location else location


def read_password(path: Path) -> str:
    """Return the password in a file as restic reads it: all of it, but for the space around it. Raise UsageError."""
    try:
        content = reading.read_file(path, _LONGEST, UsageError, links=True)
    except OSError as error:
        raise UsageError(f"The file with the repository's password cannot be read: {path}: {error.strerror}.") from None
    return content.decode("utf-8-sig", "backslashreplace").strip()


def read_keys(path: Path) -> dict[str, str]:
    """Return the variables in a file of NAME=VALUE lines. Raise UsageError when others can read it."""
    text = reading.read_private(path, _LONGEST, "the repository's keys", "--keys", "keys")
    keys = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _KEY.fullmatch(line.strip())
        if not match:
            raise UsageError(f"Line {number} of {path} is not NAME=VALUE.")
        value = match[2]
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        keys[match[1]] = value[1:-1] if quoted else value
    return keys


def _resolved(location: str) -> str:
    if not location.startswith(_DISK):
        return location
    label, _, folder = location.removeprefix(_DISK).partition("/")
    if not label or ".." in Path(folder).parts:
        raise UsageError(f"{location} is not a disk's label and a folder: disk:LABEL/folder")
    return str(mount_point(label) / folder)


def mount_point(label: str, by_label: Path = _BY_LABEL, mounts: Path = _MOUNTS) -> Path:
    """Return where the disk with a label is mounted. Raise CopyError when it is not."""
    # udev writes what may not stand in a file's name as \x20.
    device = by_label / label.replace(" ", r"\x20")
    if not device.exists():
        raise CopyError(f"The disk '{label}' is not connected.", hint="Connect it, then run the command again.")
    wanted, mounted = os.path.realpath(device), []
    for line in mounts.read_text().splitlines():
        where, _, what = line.partition(" - ")
        if os.path.realpath(what.split(" ")[1]) == wanted:
            mounted.append(where.split(" ")[3:5])
    if mounted:
        # A folder of the disk may be mounted elsewhere too, as the root of that. The last mount hides those before it.
        _, target = min(reversed(mounted), key=lambda root_and_target: len(root_and_target[0]))
        # The kernel writes a space in a path as \040.
        return Path(re.sub(r"\\([0-7]{3})", lambda digits: chr(int(digits[1], 8)), target))
    mount = as_root(shlex.join(["mount", f"LABEL={label}", "/mnt"]))
    raise CopyError(
        f"The disk '{label}' is connected, but not mounted.", hint=f"Mount it, then run the command again: {mount}"
    )
