"""Bring a Git checkout from one commit to another and back, all of it or none.

Only files that differ between the two are ever written: all else, local changes included, stays as it lies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from compose_chap.errors import StackError
from compose_chap.project import checkout
from compose_chap.project.checkout import Checkout, Move, Place


def in_the_way(move: Move) -> list[str]:
    """Return the local files that the move would overwrite or take away, and that Git has no copy of.

    Local changes elsewhere, untracked and ignored files that no release has, are not in the way.
    """
    differing = checkout.changed(move)
    status = ("status", "--porcelain", "-z", "--untracked-files=no", "--no-renames")
    found = checkout.said(move.folder, "Looking for changes", *status)
    dirty = {entry[3:] for entry in found.split("\0") if entry}
    listed = checkout.said(move.folder, "Looking for changes", "ls-files", "-v", "-z")
    tracked = {line[2:]: line[0] for line in listed.split("\0") if line}
    # A change that someone hid with `git update-index` is a change all the same.
    hidden = {path for path, mark in tracked.items() if mark.islower() or mark == "S"}
    lost = {path for path in differing if path in dirty | hidden}
    for path, change in differing.items():
        if change == "A" and path not in tracked:
            lost |= _obstacles(move, path)
    return sorted(lost)


def _obstacles(move: Move, path: str) -> set[str]:
    for part in reversed([Path(path), *Path(path).parents][:-1]):
        place = move.folder / part
        if not os.path.lexists(place):
            return set()
        if not place.is_dir() or place.is_symlink() or part == Path(path):
            same = part == Path(path) and place.is_file() and place.read_bytes() == checkout.content(move, path)
            return set() if same or _is_tracked(move, part) else {str(part)}
    return set()


def _is_tracked(move: Move, path: Path) -> bool:
    return bool(checkout.git(move.folder, "ls-files", "--", str(path)).stdout)


def refuse_what_cannot_move(move: Move) -> None:
    """Raise StackError when local changes would be lost, or files cannot be written by the checkout's owner."""
    lost = in_the_way(move)
    if lost:
        raise StackError(
            f"The checkout has changes of its own that the move to {move.after} would lose: {', '.join(lost[:10])}"
            + (f" and {len(lost) - 10} more." if len(lost) > 10 else "."),
            state="Nothing was changed.",
            hint=f"Keep them, then take them out: cd {move.folder} && git diff > ../changes.diff && git stash",
        )
    if owner := checkout.owner(move.folder):
        folders = {Path(move.folder, path).parent for path in checkout.changed(move)} | {move.folder / ".git"}
        foreign = sorted(str(folder) for folder in folders if folder.exists() and folder.stat().st_uid != owner)
        if foreign:
            raise StackError(
                f"Not all of the checkout belongs to its owner: {foreign[0]}.",
                state="Nothing was changed.",
                hint=f"Give it back: chown -R --reference={move.folder} {move.folder}",
            )


def go(move: Move) -> None:
    """Bring the files, the index and HEAD from one place to the other, on its branch if that is still there.

    The caller has looked that nothing is in the way, and has the move in a journal.
    """
    differing = checkout.changed(move)
    gone = [path for path, change in differing.items() if change == "D"]
    there = [path for path, change in differing.items() if change != "D"]

    if gone:
        removal = ("update-index", "-z", "--force-remove", "--stdin")
        checkout.said(move.folder, "Taking files away", *removal, given=_listed(gone))
    for path in gone:
        (move.folder / path).unlink(missing_ok=True)
        for folder in (move.folder / path).parents:
            if folder == move.folder:
                break
            with suppress(OSError):  # others live there
                folder.rmdir()
    if there:
        words = ("checkout", "-q", move.after.commit, "--pathspec-from-file=-", "--pathspec-file-nul")
        checkout.said(move.folder, f"Checking out {move.after}", *words, given=_listed(there))
    _set_head(move.folder, move.after)
    os.sync()


def go_back(move: Move, keep: Callable[[str, bytes], object]) -> list[str]:
    """Undo a move, also one that was cut off anywhere, and return the files that someone else changed meanwhile.

    `keep` is given name and bytes of each of those before it is put back.
    """
    # The lock that keeps two runs apart also waited for our own Git, so this is a dead one's.
    git = checkout.said(move.folder, "Reading the checkout", "rev-parse", "--absolute-git-dir").strip()
    Path(git, "index.lock").unlink(missing_ok=True)
    foreign = []
    for path in checkout.changed(move):
        place = move.folder / path
        if place.is_file() and not place.is_symlink() and not _is_ours(move, path):
            keep(path, place.read_bytes())
            foreign.append(path)
    if Checkout(move.folder).place != move.before or not _is_as_before(move):
        go(move.back)
    return foreign


def _is_as_before(move: Move) -> bool:
    finished = checkout.git(move.folder, "status", "--porcelain", "-z", "--untracked-files=no", "--no-renames")
    dirty = {entry[3:] for entry in finished.stdout.split("\0") if entry}
    added = (path for path, change in checkout.changed(move).items() if change == "A")
    return dirty.isdisjoint(checkout.changed(move)) and not any(os.path.lexists(move.folder / path) for path in added)


def _is_ours(move: Move, path: str) -> bool:
    found = checkout.git(move.folder, "hash-object", "--", path).stdout.strip()
    blobs = (f"{one.commit}:{path}" for one in (move.before, move.after))
    if found in [checkout.git(move.folder, "rev-parse", "-q", "--verify", blob).stdout.strip() for blob in blobs]:
        return True
    # Git was cut off while it wrote: what there is, is the beginning of the new file.
    unfinished = (move.folder / path).read_bytes()
    return checkout.changed(move)[path] != "D" and checkout.content(move, path).startswith(unfinished)


def _set_head(folder: Path, place: Place) -> None:
    reason = ("-m", "docker chap")
    tip = checkout.git(folder, "rev-parse", "-q", "--verify", f"{place.branch}^{{commit}}").stdout.strip()
    if place.branch and tip == place.commit:
        checkout.said(folder, f"Going to {place}", "symbolic-ref", *reason, "HEAD", place.branch)
    else:
        checkout.said(folder, f"Going to {place}", "update-ref", "--no-deref", *reason, "HEAD", place.commit)


def _listed(paths: Sequence[str]) -> str:
    return "".join(f"{path}\0" for path in paths)
