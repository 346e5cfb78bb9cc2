"""Folders of records, which count only when they are our own: files in them are opened relative to a checked handle.

Root runs this in folders that others own. Whoever may write a folder can put a link, a FIFO or another file in place
of ours. So a folder is opened without following links, its owner is checked, and files are reached by its handle.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote

from compose_chap.errors import StateError
from compose_chap.ownership import as_root, not_own
from compose_chap.reading import Failure, kind, open_file, read_file

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened(path: Path, failure: Failure = StateError) -> Iterator[int]:
    """Yield the descriptor of a folder that is our own and not a link.

    Raise FileNotFoundError when it is missing, else `failure`.
    """
    handle = _open(path, failure)
    try:
        if fault := not_own(os.fstat(handle)):
            raise failure(f"{path} {fault}.")
        yield handle
    finally:
        os.close(handle)


def make(path: Path) -> Path:
    """Make a folder 0700 that Git ignores, if it is missing, and return it. Raise StateError for another user's."""
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700, parents=True)
        with opened(path) as handle:
            _ignore_itself(handle)
    except OSError as error:
        raise cannot("make the folder", path, error) from None
    except StateError as error:
        raise untrusted(path, error) from None
    return path


def untrusted(path: Path, error: StateError) -> StateError:
    """Return the error for a folder of records that is not our own."""
    return StateError(
        f"{error.message} Only records that belong to you or to root are used.",
        state=error.state or "Nothing was changed.",
        hint=error.hint
        or "Run this as the user who made them. Or, if you trust what is in them, make them your own:"
        f" {how_to_own(path)}",
    )


def how_to_own(path: Path) -> str:
    """Return the shell command that makes a folder this user's own, with all that is in it."""
    return as_root(f"chown -R $(id -u) {quote(str(path))}") + " && " + as_root(f"chmod -R go-w {quote(str(path))}")


def hide_from_git(folder: Path) -> None:
    """Add a .gitignore that hides a folder from Git, whoever owns it. Existing files are not touched."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _ignore_itself(handle)
    finally:
        os.close(handle)


def _ignore_itself(handle: int) -> None:
    with suppress(FileExistsError, PermissionError):
        descriptor = os.open(".gitignore", NEW, 0o600, dir_fd=handle)
        os.write(descriptor, b"*\n")
        os.close(descriptor)


def read(path: Path, limit: int, failure: Failure = StateError) -> bytes:
    """Return the bytes of a file of our own. Raise FileNotFoundError when it is missing, else `failure`."""
    with opened(path.parent, failure) as handle:
        named = lambda message: failure(f"{path.parent}/{message}")  # noqa: E731
        return read_file(path.name, limit, named, within=handle, own=True)


def write(path: Path, content: bytes) -> None:
    """Replace a file in a folder of our own atomically and durably, with mode 0600.

    Raise StateError when it cannot be written; then the old content is unchanged.
    """
    draft = f".{path.name}.docker-chap"
    try:
        with opened(path.parent) as handle:
            try:
                with suppress(FileNotFoundError):
                    os.unlink(draft, dir_fd=handle)
                with open(os.open(draft, NEW, 0o600, dir_fd=handle), "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(draft, path.name, src_dir_fd=handle, dst_dir_fd=handle)
            except BaseException:
                with suppress(OSError):
                    os.unlink(draft, dir_fd=handle)
                raise
            os.fsync(handle)
    except OSError as error:
        raise cannot("write", path, error) from None


def remove(path: Path) -> None:
    """Remove a file from a folder of our own, durably; a missing file is fine. Raise StateError."""
    try:
        with opened(path.parent) as handle:
            with suppress(FileNotFoundError):
                os.unlink(path.name, dir_fd=handle)
            os.fsync(handle)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise cannot("remove", path, error) from None


def new_file(path: Path) -> int:
    """Make a new file, 0600, in a folder of our own and return its descriptor. Raise OSError, also when it exists."""
    with opened(path.parent) as handle:
        return os.open(path.name, NEW, 0o600, dir_fd=handle)


def open_to_read(path: Path) -> int:
    """Open a file of our own in a folder of our own and return its descriptor. Raise FileNotFoundError, StateError."""
    with opened(path.parent) as handle:
        descriptor = open_file(path.name, lambda message: StateError(f"{path.parent}/{message}"), within=handle)
    if fault := not_own(os.fstat(descriptor)):
        os.close(descriptor)
        raise StateError(f"{path} {fault}.")
    return descriptor


def names(path: Path) -> list[str]:
    """Return the sorted names in a folder of our own, empty when it is missing. Raise StateError."""
    try:
        with opened(path) as handle:
            return sorted(os.listdir(handle))
    except FileNotFoundError:
        return []


def cannot(do: str, path: Path, error: OSError) -> StateError:
    """Return the error for a file or folder when the system refuses an operation."""
    hint = "Run it as root, or with sudo." if isinstance(error, PermissionError) else "Check owner and free space."
    return StateError(f"Cannot {do} {path}: {error.strerror}.", hint=hint)


def _open(path: Path, failure: Failure) -> int:
    try:
        return os.open(path, _FOLDER)
    except FileNotFoundError:
        raise
    except PermissionError:
        error = failure(f"{path} cannot be read by this user.")
        error.hint = "Run it as root, or with sudo."
        raise error from None
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode):
                raise failure(f"{path} is {kind(status)}, not a folder.") from None
        why = error.strerror if isinstance(error, OSError) else "it has a name that no folder can have"
        raise failure(f"{path} cannot be opened: {why}.") from None
