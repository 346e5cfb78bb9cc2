"""The Git checkout that CHAP is built from: where it stands, and what its releases hold. Nothing here changes a file.

Git runs as the owner of the checkout, so root leaves nothing there that the owner cannot change later. It asks
nothing and runs no hook.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from compose_chap import ownership
from compose_chap.engine import process
from compose_chap.errors import CommandFailed, StackError
from compose_chap.image import release_key
from compose_chap.project.sources import read_source

_GIT = (
    "git",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "gc.auto=0",
    "-c",
    "http.lowSpeedLimit=1000",
    "-c",
    "http.lowSpeedTime=30",
)
_QUIET = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_LITERAL_PATHSPECS": "1", "LC_ALL": "C"}
_RELEASE = re.compile(r"refs/tags/(v\d+\.\d+\.\d+)")


@dataclass(frozen=True)
class Place:
    """Where a checkout stands: at a commit, on a branch (`refs/heads/main`) or, when that is empty, on none."""

    commit: str
    branch: str = ""

    def __str__(self) -> str:
        branch = self.branch.removeprefix("refs/heads/")
        return f"commit {self.commit[:12]}" + (f" on branch {branch}" if branch else "")


@dataclass(frozen=True)
class Move:
    """The way of a checkout from one place to another."""

    folder: Path
    before: Place
    after: Place

    @property
    def back(self) -> Move:
        """The same way, backwards."""
        return Move(self.folder, self.after, self.before)

    def to_json(self) -> dict[str, Any]:
        """Return it as a journal can hold it."""
        return {"folder": str(self.folder), "before": asdict(self.before), "after": asdict(self.after)}


@dataclass(frozen=True)
class Checkout:
    """The top folder of a checkout."""

    folder: Path

    @cached_property
    def place(self) -> Place:
        """Where it stands. Raise StackError when it has no commit."""
        finished = git(self.folder, "symbolic-ref", "-q", "HEAD")
        commit = said(self.folder, "Reading the checkout", "rev-parse", "--verify", "HEAD^{commit}").strip()
        return Place(commit, finished.stdout.strip())

    @property
    def name(self) -> str:
        """What Git calls the commit: its release tag, or the nearest one before it, or its number."""
        # A commit may have the tag of a chart too.
        words = ("--match=v[0-9]*.[0-9]*.[0-9]*", "--exclude=*[!v0-9.]*", "--exclude=*.*.*.*")
        return git(self.folder, "describe", "--tags", "--always", "--dirty", *words).stdout.strip()

    @property
    def release(self) -> str:
        """The release tag of the very commit, empty when it has none here."""
        words = ("for-each-ref", "--format=%(refname)", "--points-at", "HEAD", "refs/tags")
        found = _only_releases(git(self.folder, *words).stdout.split())
        return found[-1] if found else ""

    def holds(self, files: Iterable[Path]) -> bool:
        """Whether Git tracks one of these files."""
        return bool(git(self.folder, "ls-files", "--", *map(str, files)).stdout)

    @property
    def remote(self) -> str:
        """The name of the remote that releases come from, empty when there is none."""
        names = git(self.folder, "remote").stdout.split()
        return "origin" if "origin" in names else names[0] if names else ""

    @property
    def address(self) -> str:
        """Where releases come from, without a token or password that may be in it."""
        return re.sub(r"//[^/@]*@", "//", git(self.folder, "remote", "get-url", self.remote).stdout.strip())

    @property
    def diff(self) -> str:
        """Return the local changes of tracked files, so that `git apply` can make them again."""
        return git(self.folder, "diff", "--binary", "HEAD").stdout


def find(path: Path) -> Checkout | None:
    """Return the checkout that a folder lies in, None when it lies in none. Git is not asked.

    One that another user put into the folder does not count: Git would run what its settings say.
    """
    for folder in ownership.upwards(path):
        with suppress(FileNotFoundError):
            if os.lstat(folder / ".git").st_uid in (0, os.stat(folder).st_uid):
                return Checkout(folder)
    return None


def releases(checkout: Checkout) -> tuple[list[str], str]:
    """Return the release tags, oldest first, and why they are only those of this clone, empty when they are not.

    Tags of charts and other names are no releases: a release is `v` and three numbers.
    """
    asked = git(checkout.folder, "ls-remote", "--tags", "--refs", checkout.remote) if checkout.remote else None
    if asked is None or asked.status:
        return local_releases(checkout), asked.last_lines if asked else "This checkout has no remote."
    return _only_releases(line.partition("\t")[2] for line in asked.stdout.splitlines()), ""


def local_releases(checkout: Checkout) -> list[str]:
    """Return the release tags that the clone has, oldest first."""
    tags = said(checkout.folder, "Reading the tags", "for-each-ref", "--format=%(refname)", "refs/tags")
    return _only_releases(tags.split())


def _only_releases(names: Iterable[str]) -> list[str]:
    found = {match[1] for name in names if (match := _RELEASE.fullmatch(name))}
    return sorted(found, key=lambda tag: release_key(tag) or ())


def commit_of(checkout: Checkout, tag: str) -> str:
    """Return the commit of a release. Fetch the one tag where the clone does not have it; nothing else changes.

    Raise StackError when there is no such tag, or the remote does not answer.
    """
    wanted = ("rev-parse", "-q", "--verify", f"refs/tags/{tag}^{{commit}}")
    found = git(checkout.folder, *wanted)
    if found.status == 0:
        return found.stdout.strip()
    if not checkout.remote:
        raise StackError(f"The checkout {checkout.folder} has no tag {tag} and no remote to fetch it from.")
    shallow = said(checkout.folder, "Reading the checkout", "rev-parse", "--is-shallow-repository").strip() == "true"
    depth = ("--depth", "1") if shallow else ()
    fetched = git(checkout.folder, "fetch", "--no-tags", *depth, checkout.remote, f"refs/tags/{tag}:refs/tags/{tag}")
    if fetched.status:
        unknown = "couldn't find remote ref" in fetched.stderr
        raise StackError(
            f"There is no release {tag} at {checkout.address}."
            if unknown
            else f"The release {tag} could not be fetched from {checkout.address}.\n{fetched.last_lines}",
            hint="See what there is: docker chap versions"
            if unknown
            else f"Try: git -C {checkout.folder} fetch {checkout.remote} tag {tag}",
        )
    return said(checkout.folder, f"Reading {tag}", *wanted).strip()


def changed(move: Move) -> dict[str, str]:
    """Return each path that differs between both places, with A (added), M (modified) or D (deleted)."""
    words = ("diff-tree", "-r", "-z", "--no-renames", "--name-status", move.before.commit, move.after.commit)
    parts = said(move.folder, "Comparing the releases", *words).split("\0")
    return {path: status[:1] for status, path in zip(parts[::2], parts[1::2])}


def diff(move: Move, paths: Iterable[Path]) -> str:
    """Return what the move changes in these files, as a unified diff."""
    inside = [str(path.relative_to(move.folder)) for path in paths if path.is_relative_to(move.folder)]
    if not inside:
        return ""
    return said(
        move.folder,
        "Comparing the releases",
        "diff",
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        move.before.commit,
        move.after.commit,
        "--",
        *inside,
    )


def reader(move: Move) -> Callable[[Path], bytes]:
    """Return how to read a file as it will be after the move: from Git where it differs, from disk elsewhere.

    The function raises FileNotFoundError for a file that the move takes away.
    """
    differing = changed(move)

    def read(path: Path) -> bytes:
        name = str(path.relative_to(move.folder)) if path.is_relative_to(move.folder) else ""
        if name not in differing:
            return read_source(path)
        if differing[name] == "D":
            raise FileNotFoundError(path)
        return content(move, name)

    return read


def content(move: Move, name: str) -> bytes:
    """Return a file as it is at the end of the move."""
    with tempfile.TemporaryFile() as file:
        runs_as, blob = owner(move.folder), f"{move.after.commit}:{name}"
        command = (*_GIT, "-C", str(move.folder), "cat-file", "blob", blob)
        process.run_into(command, cast(BinaryIO, file), environment=_clean(runs_as), owner=runs_as)
        file.seek(0)
        return file.read()


def owner(folder: Path) -> int | None:
    """Return who Git has to run as, None for the user that this process is."""
    owner = folder.stat().st_uid
    return owner if os.geteuid() == 0 and owner != 0 else None


def git(folder: Path, *words: str, given: str | None = None) -> process.Finished:
    """Run Git in a checkout and return what it did."""
    runs_as = owner(folder)
    return process.run(
        [*_GIT, "-C", str(folder), *words], environment=_clean(runs_as), stdin=given, owner=runs_as, alone=True
    )


# What Git needs to reach a remote. All else stays here: a checkout's filters and helpers are programs of its owner.
_NEEDED = re.compile(r"PATH|LANG|LC_\w+|TZ|TMPDIR|(?:https?|all|no)_proxy|SSL_CERT_(?:FILE|DIR)", re.IGNORECASE)
_OF_THE_USER = re.compile(r"HOME|USER|LOGNAME|XDG_CONFIG_HOME|SSH_AUTH_SOCK|GIT_SSH(?:_COMMAND)?|GIT_SSL_CAINFO")


def _clean(runs_as: int | None) -> dict[str, str]:
    """Return all the environment that Git gets: nothing of ours, and what is this user's only for this user."""
    known = {
        name: value
        for name, value in os.environ.items()
        if _NEEDED.fullmatch(name) or (runs_as is None and _OF_THE_USER.fullmatch(name))
    }
    return {"GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=15", **known, **_QUIET}


def said(folder: Path, doing: str, *words: str, given: str | None = None) -> str:
    """Run Git in a checkout and return what it said. Raise CommandFailed, or StackError for a checkout of another."""
    finished = git(folder, *words, given=given)
    if "dubious ownership" in finished.stderr:
        raise StackError(
            f"Git does not read {folder}: it belongs to another user.",
            hint=f"Run this as its owner or as root, or allow it: git config --global --add safe.directory {folder}",
        )
    if finished.status:
        raise CommandFailed(
            f"{doing} failed: git {words[0]} ended with {finished.status}.\n{finished.last_lines}".rstrip(),
            status=finished.status,
            output=finished.last_lines,
        )
    return finished.stdout
