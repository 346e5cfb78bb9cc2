"""Read the files that make a project from the disk: each is a file and ends somewhere, whatever stands in its place."""

from __future__ import annotations

import re
from pathlib import Path

from compose_chap.errors import ComposeFileError
from compose_chap.reading import read_file

LARGEST = 64 << 20  # bytes: no Compose file, env file or model configuration comes near

_REMOTE = re.compile(r"(?:^|/)(oci|git|ssh|https?):/")


def read_source(path: Path) -> bytes:
    """Return the bytes of a file, links followed as Compose does; nothing for /dev/null.

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
    """Return `oci` and the like for what is an address and no path, empty for a path."""
    match = _REMOTE.search(str(path))
    return match[1] if match and not path.exists() else ""
