"""Move a Git checkout from one commit to another and back, completely or not at all.

Only files that differ between the two are ever written: everything else, local changes included, stays as it is.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from compose_chap.errors import StackError
from compose_chap.ownership import as_root
from compose_chap.project import checkout
from compose_chap.project.checkout import Checkout, Head, Move

_PATIENCE = 15  # seconds, for what somebody else does with Git

# The ways to hide a change from `git status`.
_HIDE = ("assume-unchanged", "skip-worktree")


def blocking_files(move: Move) -> list[str]:
    """Return the local files that the move would overwrite or delete, and that Git has no copy of.

    Local changes in other files, and untracked or ignored files that no release has, do not block it.
    """
    differing = checkout.changed(move)
    status = ("status", "--porcelain", "-z", "--untracked-files=no", "--no-renames")
    changes = checkout.git_output(move.folder, "Looking for changes", *status)
    dirty = {entry[3:] for entry in changes.split("\0") if entry}
    tracked = _tracked(move)
    # A change that someone hid with `git update-index` counts as well.
    lost = {path for path in differing if path in dirty | _hidden(tracked)}
    for path, change in differing.items():
        if change == "A" and path not in tracked:
            lost |= _obstacles(move, path)
    return sorted(lost)


def _tracked(move: Move) -> dict[str, str]:
    """Return every file that Git tracks, with the letter that Git marks it with."""
    listed = checkout.git_output(move.folder, "Looking for changes", "ls-files", "-v", "-z")
    return {line[2:]: line[0] for line in listed.split("\0") if line}


def _hidden(tracked: Mapping[str, str]) -> set[str]:
    return {path for path, mark in tracked.items() if mark.islower() or mark == "S"}


def _how_to_put_aside(move: Move, lost: Sequence[str]) -> str:
    """Return the shell command that stashes files: changed, hidden, untracked or ignored."""
    git = ["git", "-C", str(move.folder)]
    hidden = sorted(_hidden(_tracked(move)).intersection(lost))
    reveal = [[*git, "update-index", f"--no-{mark}", "--", *hidden] for mark in _HIDE if hidden]
    return " && ".join(map(shlex.join, [*reveal, [*git, "stash", "push", "--all", "--", *lost]]))


def _obstacles(move: Move, path: str) -> set[str]:
    for part in reversed([Path(path), *Path(path).parents][:-1]):
        location = move.folder / part
        if not os.path.lexists(location):
            return set()
        if not location.is_dir() or location.is_symlink() or part == Path(path):
            same = part == Path(path) and location.is_file() and location.read_bytes() == checkout.content(move, path)
            return set() if same or _is_tracked(move, part) else {str(part)}
    return set()


def _is_tracked(move: Move, path: Path) -> bool:
    return bool(checkout.git(move.folder, "ls-files", "--", str(path)).stdout)


def refuse_what_cannot_move(move: Move) -> None:
    """Raise StackError when local changes would be lost, or files cannot be written by the checkout's owner."""
    lost, folder = blocking_files(move), shlex.quote(str(move.folder))
    if lost:
        raise StackError(
            f"The checkout has local changes that the move to {move.after} would lose: {', '.join(lost[:10])}"
            + (f" and {len(lost) - 10} more." if len(lost) > 10 else "."),
            state="Nothing was changed.",
            hint=f"Put them aside: {_how_to_put_aside(move, lost)}\nTo get them back later: git -C {folder} stash pop",
        )
    if owner := checkout.owner(move.folder):
        folders = {Path(move.folder, path).parent for path in checkout.changed(move)} | {move.folder / ".git"}
        others = sorted(str(folder) for folder in folders if folder.exists() and folder.stat().st_uid != owner)
        if others:
            raise StackError(
                f"Not all of the checkout belongs to its owner: {others[0]}.",
                state="Nothing was changed.",
                hint=f"Give it back: {as_root(f'chown -R --reference={folder} {folder}')}",
            )


def go(move: Move) -> None:
    """Bring the files, the index and HEAD to the new commit, on its branch if that still points there.

    The caller has checked that nothing blocks the move, and has written it to the journal.
    """
    differing = checkout.changed(move)
    removed = [path for path, change in differing.items() if change == "D"]
    present = [path for path, change in differing.items() if change != "D"]

    if removed:
        removal = ("update-index", "-z", "--force-remove", "--stdin")
        checkout.git_output(move.folder, "Removing files", *removal, stdin=_listed(removed))
    for path in removed:
        (move.folder / path).unlink(missing_ok=True)
        for folder in (move.folder / path).parents:
            if folder == move.folder:
                break
            with suppress(OSError):  # not empty
                folder.rmdir()
    if present:
        words = ("checkout", "-q", move.after.commit, "--pathspec-from-file=-", "--pathspec-file-nul")
        checkout.git_output(move.folder, f"Checking out {move.after}", *words, stdin=_listed(present))
    _set_head(move.folder, move.after)
    os.sync()


def go_back(move: Move, save: Callable[[str, bytes], object]) -> list[str]:
    """Undo a move, even one that was interrupted, and return the files that someone else changed meanwhile.

    `save` gets the name and bytes of each such file before it is overwritten.
    """
    _free_index(move.folder)
    changed_by_others: list[str] = []
    for path in checkout.changed(move):
        location = move.folder / path
        if location.is_file() and not location.is_symlink() and not _is_ours(move, path):
            save(path, location.read_bytes())
            changed_by_others.append(path)
    if Checkout(move.folder).head != move.before or not _is_as_before(move):
        go(move.back)
    return changed_by_others


def _free_index(folder: Path) -> None:
    """Remove the lock of the index that a killed Git left; wait for a Git that works there. Raise StackError.

    Our own lock excludes a second run and waits for our Git, so what works there is somebody else's.
    """
    git = checkout.git_output(folder, "Reading the checkout", "rev-parse", "--absolute-git-dir").strip()
    index_lock = Path(git, "index.lock")
    for _ in range(_PATIENCE):
        if not (os.path.lexists(index_lock) and _works_in(folder)):
            break
        time.sleep(1)
    else:
        raise StackError(
            f"Another Git works in {folder}: process {_works_in(folder)}. It holds {index_lock}.",
            hint="Let it end, or end it. Then run the command again.",
        )
    index_lock.unlink(missing_ok=True)


def _works_in(folder: Path) -> int:
    """Return the id of a Git process that works in a folder or below it, 0 for none."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's, who may not write here
            if (process / "comm").read_text().startswith("git"):
                where = Path(os.readlink(process / "cwd"))
                if where.is_relative_to(os.path.realpath(folder)):
                    return int(process.name)
    return 0


def _is_as_before(move: Move) -> bool:
    finished = checkout.git(move.folder, "status", "--porcelain", "-z", "--untracked-files=no", "--no-renames")
    dirty = {entry[3:] for entry in finished.stdout.split("\0") if entry}
    added = (path for path, change in checkout.changed(move).items() if change == "A")
    return dirty.isdisjoint(checkout.changed(move)) and not any(os.path.lexists(move.folder / path) for path in added)


def _is_ours(move: Move, path: str) -> bool:
    current = checkout.git(move.folder, "hash-object", "--", path).stdout.strip()
    ours = (f"{head.commit}:{path}" for head in (move.before, move.after))
    if current in [checkout.git(move.folder, "rev-parse", "-q", "--verify", blob).stdout.strip() for blob in ours]:
        return True
    # Git was interrupted while it wrote: the file holds the beginning of the new content.
    unfinished = (move.folder / path).read_bytes()
    return checkout.changed(move)[path] != "D" and checkout.content(move, path).startswith(unfinished)


def _set_head(folder: Path, head: Head) -> None:
    reason = ("-m", "docker chap")
    tip = checkout.git(folder, "rev-parse", "-q", "--verify", f"{head.branch}^{{commit}}").stdout.strip()
    if head.branch and tip == head.commit:
        checkout.git_output(folder, f"Going to {head}", "symbolic-ref", *reason, "HEAD", head.branch)
    else:
        checkout.git_output(folder, f"Going to {head}", "update-ref", "--no-deref", *reason, "HEAD", head.commit)


def _listed(paths: Sequence[str]) -> str:
    return "".join(f"{path}\0" for path in paths)
