"""The Git checkout that CHAP is built from: its HEAD, and the files of its releases. Nothing here changes a file.

Git runs as the owner of the checkout, so that root leaves no file there that the owner cannot change later. It never
prompts and runs no hook.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from compose_chap import ownership
from compose_chap.errors import CommandFailed, StackError
from compose_chap.image import release_key
from compose_chap.processes import process
from compose_chap.project.project_file import read_project_file

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
# What the user's configuration may change in a diff, so that `git apply` does not take it, is said here.
_EXACT = ("--no-ext-diff", "--no-textconv", "--no-color")
_COMPLETE = ("--binary", "--submodule=short", "--ignore-submodules=dirty", "--ita-visible-in-index")
_FORM = ("--src-prefix=a/", "--dst-prefix=b/", "--unified=3", "--no-renames", "--no-relative")
_CHECK = (*("-c", "apply.ignoreWhitespace=no", "apply", "--cached", "--check"), "--binary", "--whitespace=nowarn", "-")
_RELEASE = re.compile(r"refs/tags/(v\d+\.\d+\.\d+)")


@dataclass(frozen=True)
class Head:
    """The HEAD of a checkout: a commit, and the branch it is on (`refs/heads/main`), empty when detached."""

    commit: str
    branch: str = ""

    def __str__(self) -> str:
        branch = self.branch.removeprefix("refs/heads/")
        return f"commit {self.commit[:12]}" + (f" on branch {branch}" if branch else "")


@dataclass(frozen=True)
class Move:
    """The move of a checkout from one HEAD to another."""

    folder: Path
    before: Head
    after: Head

    @property
    def back(self) -> Move:
        """The same move backwards."""
        return Move(self.folder, self.after, self.before)

    def to_json(self) -> dict[str, Any]:
        """Return the move as the journal stores it."""
        return {"folder": str(self.folder), "before": asdict(self.before), "after": asdict(self.after)}


@dataclass(frozen=True)
class Checkout:
    """The top folder of a checkout."""

    folder: Path

    @cached_property
    def head(self) -> Head:
        """Its HEAD. Raise StackError when it has no commit."""
        finished = git(self.folder, "symbolic-ref", "-q", "HEAD")
        commit = git_output(self.folder, "Reading the checkout", "rev-parse", "--verify", "HEAD^{commit}").strip()
        return Head(commit, finished.stdout.strip())

    @property
    def name(self) -> str:
        """The name that `git describe` gives the commit: by its release tag, the nearest tag before it, or its hash."""
        # A commit may also have the tag of a chart.
        words = ("--match=v[0-9]*.[0-9]*.[0-9]*", "--exclude=*[!v0-9.]*", "--exclude=*.*.*.*")
        return git(self.folder, "describe", "--tags", "--always", "--dirty", *words).stdout.strip()

    @property
    def release(self) -> str:
        """The release tag of this commit, empty when it has none."""
        words = ("for-each-ref", "--format=%(refname)", "--points-at", "HEAD", "refs/tags")
        tags = _only_releases(git(self.folder, *words).stdout.split())
        return tags[-1] if tags else ""

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
        """The URL of the remote, without a token or password in it."""
        return re.sub(r"//[^/@]*@", "//", git(self.folder, "remote", "get-url", self.remote).stdout.strip())

    @property
    def diff(self) -> bytes:
        """Return the local changes of tracked files, as a patch that Git says can be applied to HEAD.

        Raise EngineError when Git cannot make such a patch.
        """
        patch = _output_of(self.folder, "diff", *_EXACT, *_COMPLETE, *_FORM, "HEAD")
        if patch:
            # Not tried on the files, where a folder may be a link by now, but on an index of our own.
            with tempfile.TemporaryDirectory() as scratch:
                if (runs_as := owner(self.folder)) is not None:
                    os.chown(scratch, runs_as, -1)
                index = {"GIT_INDEX_FILE": f"{scratch}/index"}
                _output_of(self.folder, "read-tree", "HEAD", more=index)
                _output_of(self.folder, *_CHECK, stdin=patch, more=index)
        return patch


def find(path: Path) -> Checkout | None:
    """Return the checkout that contains a folder, None when there is none. Git does not run.

    A checkout that another user put there does not count: Git would run commands from its configuration.
    """
    for folder in ownership.upwards(path):
        with suppress(FileNotFoundError):
            if os.lstat(folder / ".git").st_uid in (0, os.stat(folder).st_uid):
                return Checkout(folder)
    return None


def releases(checkout: Checkout) -> tuple[list[str], str]:
    """Return the release tags, oldest first, and why the remote could not be asked, empty when it was.

    Without the remote, they are those of the local clone. A release is `v` and three numbers, not a chart's tag.
    """
    answer = git(checkout.folder, "ls-remote", "--tags", "--refs", checkout.remote) if checkout.remote else None
    if answer is None or answer.status:
        return local_releases(checkout), answer.last_lines if answer else "This checkout has no remote."
    return _only_releases(line.partition("\t")[2] for line in answer.stdout.splitlines()), ""


def local_releases(checkout: Checkout) -> list[str]:
    """Return the release tags that the clone has, oldest first."""
    tags = git_output(checkout.folder, "Reading the tags", "for-each-ref", "--format=%(refname)", "refs/tags")
    return _only_releases(tags.split())


def _only_releases(names: Iterable[str]) -> list[str]:
    tags = {match[1] for name in names if (match := _RELEASE.fullmatch(name))}
    return sorted(tags, key=lambda tag: release_key(tag) or ())


def commit_of(checkout: Checkout, tag: str) -> str:
    """Return the commit of a release. Fetch its tag when the clone does not have it; nothing else changes.

    Raise StackError when there is no such tag, or the remote does not answer.
    """
    wanted = ("rev-parse", "-q", "--verify", f"refs/tags/{tag}^{{commit}}")
    local = git(checkout.folder, *wanted)
    if local.status == 0:
        return local.stdout.strip()
    if not checkout.remote:
        raise StackError(f"The checkout {checkout.folder} has no tag {tag} and no remote to fetch it from.")
    shallow = (
        git_output(checkout.folder, "Reading the checkout", "rev-parse", "--is-shallow-repository").strip() == "true"
    )
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
    return git_output(checkout.folder, f"Reading {tag}", *wanted).strip()


def changed(move: Move) -> dict[str, str]:
    """Return each path that differs between both commits, with A (added), M (modified) or D (deleted)."""
    words = ("diff-tree", "-r", "-z", "--no-renames", "--name-status", move.before.commit, move.after.commit)
    parts = git_output(move.folder, "Comparing the releases", *words).split("\0")
    return {path: status[:1] for status, path in zip(parts[::2], parts[1::2])}


def diff(move: Move, paths: Iterable[Path]) -> str:
    """Return what the move changes in these files, as a unified diff."""
    inside = [str(path.relative_to(move.folder)) for path in paths if path.is_relative_to(move.folder)]
    if not inside:
        return ""
    return git_output(
        move.folder,
        "Comparing the releases",
        "diff",
        *_EXACT,
        move.before.commit,
        move.after.commit,
        "--",
        *inside,
    )


def reader(move: Move) -> Callable[[Path], bytes]:
    """Return a function that reads a file as it will be after the move: from Git where it differs, else from disk.

    It raises FileNotFoundError for a file that the move deletes.
    """
    differing = changed(move)

    def read(path: Path) -> bytes:
        name = str(path.relative_to(move.folder)) if path.is_relative_to(move.folder) else ""
        if name not in differing:
            return read_project_file(path)
        if differing[name] == "D":
            raise FileNotFoundError(path)
        return content(move, name)

    return read


def content(move: Move, name: str) -> bytes:
    """Return the content of a file after the move."""
    return _output_of(move.folder, "cat-file", "blob", f"{move.after.commit}:{name}")


def _output_of(folder: Path, *words: str, stdin: bytes = b"", more: Mapping[str, str] | None = None) -> bytes:
    """Run Git, with `more` in its environment, and return its output, byte for byte. Raise EngineError if it fails."""
    with tempfile.TemporaryFile() as target, tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        runs_as = owner(folder)
        command, files = (*_GIT, "-C", str(folder), *words), (cast(BinaryIO, target), cast(BinaryIO, given))
        process.run_into(command, *files, environment={**_clean(runs_as), **(more or {})}, owner=runs_as)
        target.seek(0)
        return target.read()


def owner(folder: Path) -> int | None:
    """Return the user that Git has to run as, None for the user of this process."""
    owner = folder.stat().st_uid
    return owner if os.geteuid() == 0 and owner != 0 else None


def git(folder: Path, *words: str, stdin: str | None = None) -> process.Finished:
    """Run Git in a checkout and return its status and output."""
    runs_as = owner(folder)
    return process.run(
        [*_GIT, "-C", str(folder), *words], environment=_clean(runs_as), stdin=stdin, owner=runs_as, alone=True
    )


# What Git needs to reach a remote. It gets nothing else: a checkout's filters and helpers run programs of its owner.
_NEEDED = re.compile(r"PATH|LANG|LC_\w+|TZ|TMPDIR|(?:https?|all|no)_proxy|SSL_CERT_(?:FILE|DIR)", re.IGNORECASE)
_OF_THE_USER = re.compile(r"HOME|USER|LOGNAME|XDG_CONFIG_HOME|SSH_AUTH_SOCK|GIT_SSH(?:_COMMAND)?|GIT_SSL_CAINFO")


def _clean(runs_as: int | None) -> dict[str, str]:
    """Return the environment for Git: none of our variables, and those of this user only when it runs as this user."""
    known = {
        name: value
        for name, value in os.environ.items()
        if _NEEDED.fullmatch(name) or (runs_as is None and _OF_THE_USER.fullmatch(name))
    }
    return {"GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=15", **known, **_QUIET}


def git_output(folder: Path, doing: str, *words: str, stdin: str | None = None) -> str:
    """Run Git in a checkout and return its output. Raise CommandFailed, or StackError when another user owns it."""
    finished = git(folder, *words, stdin=stdin)
    if "dubious ownership" in finished.stderr:
        raise StackError(
            f"Git does not read {folder}: it belongs to another user.",
            hint=f"Run this as its owner or as root, or allow it: git config --global --add safe.directory {folder}",
        )
    if finished.status:
        raise CommandFailed(
            f"{doing} failed: git {words[0]} ended with {finished.status}.\n{finished.last_lines}".rstrip()
        )
    return finished.stdout
