"""Files that survive a crash: atomic replacement, and edits that can be reverted."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from compose_chap.edit import Edit
from compose_chap.errors import StateError
from compose_chap.ownership import not_own, user_name
from compose_chap.reading import read_file
from compose_chap.records.files import own_folder

_LARGEST = 64 << 20  # bytes of a file that is edited


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes) -> None:
    """Replace a file atomically and durably. An existing file keeps its mode and owner, a symlink stays a symlink.

    A new file gets mode 0600. Raise StateError when it cannot be written; then the old content is unchanged.
    """
    write_draft(path, content)
    replace_by_draft(path)


def write_draft(path: Path, content: bytes) -> Path:
    """Write beside a file, durably, what `replace_by_draft` puts in its place, and return where. Raise StateError."""
    _refuse_link_of_others(path)
    target, draft = Path(os.path.realpath(path)), _draft(path)
    try:
        try:
            draft.unlink(missing_ok=True)
            with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(content)
                with suppress(FileNotFoundError):
                    old = target.stat()
                    os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
                    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                        os.fchown(file.fileno(), old.st_uid, old.st_gid)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _cannot_write(path, error) from None
    return draft


def replace_by_draft(path: Path) -> None:
    """Let the draft of a file take its place. Raise StateError; then the old content is unchanged."""
    target, draft = Path(os.path.realpath(path)), _draft(path)
    try:
        try:
            os.replace(draft, target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
    except OSError as error:
        raise _cannot_write(path, error) from None


def _cannot_write(path: Path, error: OSError) -> StateError:
    return StateError(f"Cannot write {path}: {error.strerror}.", hint="Check owner and free space.")


def _refuse_link_of_others(path: Path) -> None:
    """Raise StateError for another user's link to a file that is not theirs: they chose what we would overwrite."""
    if path.is_symlink():
        link, target = os.lstat(path), Path(os.path.realpath(path))
        existing = target if target.exists() else target.parent
        if link.st_uid not in (0, os.geteuid()) and existing.exists() and existing.stat().st_uid != link.st_uid:
            raise StateError(
                f"{path} is a link of another user ({user_name(link.st_uid)}) to a file that is not theirs: {target}.",
                hint="Put the file itself in its place, or name it with -f.",
            )


def _draft(path: Path) -> Path:
    # Always the same name, so that the draft of a killed run gets removed. The lock excludes other runs.
    target = Path(os.path.realpath(path))
    return target.with_name(f".{target.name}.docker-chap")


def check_readable(path: Path) -> None:
    """Raise StateError when this user may not read a file or list a folder. A missing path is fine."""
    try:
        os.scandir(path).close()
    except PermissionError:
        raise StateError(f"{path} cannot be read by this user.", hint="Run it as root, or with sudo.") from None
    except OSError:
        pass


def check_writable(path: Path) -> None:
    """Raise StateError when `write_file` could not replace this file and keep its owner."""
    target = Path(os.path.realpath(path))
    for path_to_check in (path, target.parent):
        if os.path.exists(path_to_check) and not os.access(path_to_check, os.W_OK):
            raise StateError(
                f"{path_to_check} cannot be written by this user.", hint=f"Check its owner: ls -ld {path_to_check}"
            )
    if os.path.exists(target) and os.geteuid() != 0:
        old, groups = target.stat(), (os.getegid(), *os.getgroups())
        if old.st_uid != os.geteuid() or old.st_gid not in groups:
            raise StateError(
                f"{path} belongs to another user or group, and only they or root can change it and leave it so.",
                hint=f"Run this as its owner, or with sudo. Its owner: ls -l {path}",
            )


def private_folder(folder: Path) -> Path:
    """Make a folder 0700 that Git ignores, with missing parents, and return it.

    An existing folder may belong to another user, but must not be another user's link. Raise StateError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.lstat(folder)
        if stat.S_ISLNK(status.st_mode) and (fault := not_own(status)):
            raise StateError(f"{folder} is a link that {fault}.", hint=f"Name where it leads: {os.readlink(folder)}")
        own_folder.hide_from_git(folder)
    except OSError as error:
        raise own_folder.cannot("make the folder", folder, error) from None
    return folder


def pack_edits(edits: Iterable[Edit]) -> list[dict[str, str | None]]:
    """Return edits as the journal stores them."""
    return [{"path": str(edit.path), "before": _packed(edit.before), "after": _packed(edit.after)} for edit in edits]


def _packed(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def content_of(path: Path) -> bytes | None:
    """Return the bytes of a file, None where there is none."""
    try:
        return read_file(path, _LARGEST, StateError, links=True)
    except FileNotFoundError:
        return None


def _set_content(path: Path, content: bytes | None) -> None:
    """Give a file this content, or remove it for None. A new file gets the owner of its folder."""
    new = not os.path.exists(path)
    if content is not None:
        write_file(path, content)
    try:
        if content is None:
            path.unlink(missing_ok=True)
            sync_folder(path.parent)
        elif new and os.geteuid() == 0:
            os.chown(path, path.parent.stat().st_uid, path.parent.stat().st_gid)
    except OSError as error:
        raise StateError(f"Cannot remove or give away {path}: {error.strerror}.") from None


def apply_edits(edits: Iterable[Edit]) -> None:
    """Write all edits if every file still has its `before`. Raise StateError, with nothing written, otherwise.

    The caller has the edits in an open journal, so that `revert_edits` can undo a crash between two files.
    """
    edits = tuple(edits)
    _refuse_changed(edits)
    for edit in edits:
        _set_content(edit.path, edit.after)


def draft_edits(edits: Iterable[Edit]) -> dict[Path, Path]:
    """Write drafts of edited files; return where, by file. `replace_by_drafts` has hardly anything left to do then.

    Raise StateError, with no draft left, when a file is not as it was, or cannot be written.
    """
    edits = tuple(edits)
    _refuse_changed(edits)
    try:
        return {edit.path: write_draft(edit.path, edit.after or b"") for edit in edits}
    except BaseException:
        remove_drafts(edits)
        raise


def replace_by_drafts(edits: Iterable[Edit]) -> None:
    """Let the drafts of `draft_edits` take the place of their files, as `apply_edits` does."""
    edits = tuple(edits)
    _refuse_changed(edits)
    for edit in edits:
        # Only what was planned: a draft lies beside its file, where others may write too.
        if content_of(_draft(edit.path)) == edit.after:
            replace_by_draft(edit.path)
        else:
            _set_content(edit.path, edit.after)


def remove_drafts(edits: Iterable[Edit]) -> None:
    """Remove what a killed run has written beside the files."""
    for edit in edits:
        _draft(edit.path).unlink(missing_ok=True)


def _refuse_changed(edits: Iterable[Edit]) -> None:
    """Raise StateError when a file is no longer what its edit begins with, or cannot be written."""
    for edit in edits:
        check_writable(edit.path)
        if content_of(edit.path) != edit.before:
            raise StateError(f"{edit.path} was changed by someone else in the meantime.", hint="Run the command again.")


def revert_edits(edits: Iterable[Edit]) -> list[Path]:
    """Restore the old bytes in every file that has the new ones; return the files with neither, left as they are."""
    edits, changed_by_others = tuple(edits), []
    remove_drafts(edits)
    for edit in edits:
        content = content_of(edit.path)
        if content == edit.after:
            _set_content(edit.path, edit.before)
        elif content != edit.before:
            changed_by_others.append(edit.path)
    return changed_by_others
