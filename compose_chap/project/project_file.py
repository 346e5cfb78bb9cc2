"""Read a project's files from disk: only regular files of bounded size, never a FIFO or a device."""

from __future__ import annotations

import re
from pathlib import Path

from compose_chap.errors import ComposeFileError
from compose_chap.reading import read_file

LARGEST = 64 << 20  # bytes: no Compose file, env file or model configuration comes near

_REMOTE = re.compile(r"(?:^|/)(oci|git|ssh|https?):/")


def read_project_file(path: Path) -> bytes:
    """Return the bytes of a file; links are followed as Compose does, /dev/null is empty.

    Raise FileNotFoundError, IsADirectoryError, and ComposeFileError for a FIFO, a device, or an address.
    """
    if remote := is_remote(path):
        raise ComposeFileError(
            f"{remote}:// names a file on another server, which nobody can edit here.",
            hint="Keep a copy of it here, and start the stack from that: docker compose -f ADDRESS config > FILE",
        )
    if path.is_dir():
        raise IsADirectoryError(path)
    return read_file(path, LARGEST, ComposeFileError, links=True)


def is_remote(path: Path) -> str:
    """Return the scheme (`oci` and the like) when it is an address instead of a path, empty for a path."""
    match = _REMOTE.search(str(path))
    return match[1] if match and not path.exists() else ""
