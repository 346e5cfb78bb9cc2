"""A Git checkout moves to a release and back, and nothing of its owner's is lost. On real repositories."""

from __future__ import annotations

import os
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest

from compose_chap.backups import other_files
from compose_chap.errors import DumpError, StackError
from compose_chap.project import checkout, checkout_move
from compose_chap.project.checkout import Checkout, Head, Move
from compose_chap.records import lock

WHO = {f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
SAME = {"same.txt": "1\n", ".gitignore": "/conf\n"}
OLD = {**SAME, "compose.yml": "services: {a: {image: x}}\r\n", "old/only.txt": "o\n"}
NEW = {**SAME, "compose.yml": "services: {a: {image: y}}\n", "new/deep/only.txt": "n\n"}


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", folder, *words], env={**os.environ, **WHO}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(folder: Path, files: dict[str, str], *tags: str) -> None:
    git(folder, "rm", "-rq", "--ignore-unmatch", ".")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "c")
    for tag in tags:
        git(folder, "tag", tag)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Give a shallow clone of one branch, on v1.0.0, whose origin has v1.1.0 and other tags."""
    source = tmp_path / "source"
    source.mkdir()
    git(source, "init", "-qb", "main")
    commit(source, OLD, "v1.0.0", "chart-9.9.9", "chap-1.1.0", "v1.2.0rc1")
    git(source, "branch", "stable")
    commit(source, NEW, "v1.10.0", "v1.9.0")
    git(
        tmp_path,
        "clone",
        "-q",
        "--depth",
        "1",
        "--single-branch",
        "--no-tags",
        "-b",
        "stable",
        f"file://{source}",
        "clone",
    )
    return tmp_path / "clone"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.parts
    }


def test_a_commit_is_called_by_its_release_whatever_other_tags_it_has(tmp_path: Path) -> None:
    git(tmp_path, "init", "-qb", "main")
    commit(tmp_path, OLD, "chap-2.0.0", "chart-9.9.9", "v2.0.1rc1", "v2.0.0", "v2.0.0.1")
    assert Checkout(tmp_path).name == "v2.0.0"
    commit(tmp_path, NEW, "chap-2.1.0", "nightly")
    assert Checkout(tmp_path).name.startswith("v2.0.0-1-g")
    git(tmp_path, "tag", "-d", "v2.0.0")
    assert Checkout(tmp_path).head.commit.startswith(Checkout(tmp_path).name)


def move_of(clone: Path, tag: str = "v1.10.0") -> Move:
    result = checkout.find(clone / "old")
    assert result == Checkout(clone)
    return Move(clone, result.head, Head(checkout.commit_of(result, tag)))


def refuse(path: str, content: bytes) -> None:
    raise AssertionError(f"{path} was taken for someone else's")


def test_only_releases_count_in_the_order_of_their_numbers(clone: Path) -> None:
    assert checkout.releases(Checkout(clone)) == (["v1.0.0", "v1.9.0", "v1.10.0"], "")
    move_of(clone, "v1.9.0")
    (clone.parent / "source").rename(clone.parent / "away")
    tags, problem = checkout.releases(Checkout(clone))
    assert tags == ["v1.9.0"] and problem
    with pytest.raises(StackError, match="could not be fetched"):
        move_of(clone)


def test_a_missing_release(clone: Path) -> None:
    with pytest.raises(StackError, match="There is no release v3.0.0"):
        move_of(clone, "v3.0.0")


def test_forth_and_back_is_the_identity(clone: Path) -> None:
    before, head = tree(clone), git(clone, "symbolic-ref", "HEAD")
    move = move_of(clone)
    assert git(clone, "rev-parse", "--is-shallow-repository") == "true"
    assert git(clone, "rev-list", "--count", "v1.10.0") == "1"
    checkout_move.refuse_what_cannot_move(move)
    checkout_move.go(move)
    assert tree(clone) == {name: text.encode() for name, text in NEW.items()}
    assert git(clone, "status", "--porcelain") == "" and git(clone, "rev-parse", "HEAD") == move.after.commit
    assert not (clone / "old").exists() and Checkout(clone).head == move.after

    assert checkout_move.go_back(move, refuse) == []
    assert tree(clone) == before and git(clone, "symbolic-ref", "HEAD") == head
    assert git(clone, "status", "--porcelain") == "" and not (clone / "new").exists()


def test_a_branch_that_moved_meanwhile_is_left_alone(clone: Path) -> None:
    move = move_of(clone)
    checkout_move.go(move)
    git(clone, "update-ref", "refs/heads/stable", move.after.commit)
    checkout_move.go_back(move, refuse)
    assert Checkout(clone).head == Head(move.before.commit)
    assert git(clone, "rev-parse", "stable") == move.after.commit and git(clone, "status", "--porcelain") == ""


def test_what_is_read_is_what_will_be(clone: Path) -> None:
    (clone / "compose.override.yml").write_text("services: {}\n")
    move = move_of(clone)
    read = checkout.reader(move)
    assert read(clone / "compose.yml") == NEW["compose.yml"].encode()
    assert read(clone / "compose.override.yml") == b"services: {}\n"
    assert checkout.reader(move.back)(clone / "compose.yml") == OLD["compose.yml"].encode()
    with pytest.raises(FileNotFoundError):
        read(clone / "old/only.txt")
    assert "+services: {a: {image: y}}" in checkout.diff(move, [clone / "compose.yml", Path("/elsewhere.yml")])


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("compose.yml", ""),
        ("compose.yml", "add"),
        ("old/only.txt", ""),
        ("new/deep/only.txt", ""),
        ("new", ""),
        ("compose.yml", "assume"),
    ],
)
def test_a_change_that_would_be_lost_is_in_the_way(clone: Path, path: str, stage: str) -> None:
    if stage == "assume":
        git(clone, "update-index", "--assume-unchanged", path)
    (clone / path).parent.mkdir(parents=True, exist_ok=True)
    (clone / path).write_text("mine\n")
    if stage == "add":
        git(clone, "add", path)
    assert checkout_move.blocking_files(move_of(clone)) == [path]
    with pytest.raises(StackError, match=path) as refused:
        checkout_move.refuse_what_cannot_move(move_of(clone))
    follow_hint(refused.value.hint, clone, path)


def follow_hint(hint: str, clone: Path, path: str) -> None:
    """Put a change aside and get it back, with the commands that are shown."""
    aside, back = (line.partition(": ")[2] for line in hint.splitlines())
    subprocess.run(aside, shell=True, env={**os.environ, **WHO}, capture_output=True, check=True)
    checkout_move.refuse_what_cannot_move(move_of(clone))
    subprocess.run(back, shell=True, env={**os.environ, **WHO}, capture_output=True, check=True)
    assert (clone / path).read_text() == "mine\n"


def test_an_ignored_file_that_the_release_has_is_in_the_way_too(clone: Path) -> None:
    (clone / "conf").mkdir()
    (clone / "conf/mine.yaml").write_text("mine\n")
    assert checkout_move.blocking_files(move_of(clone)) == []
    source = clone.parent / "source"
    (source / "conf").mkdir()
    (source / "conf/mine.yaml").write_text("theirs\n")
    git(source, "add", "-f", "conf/mine.yaml")
    git(source, "commit", "-qm", "c")
    git(source, "tag", "v1.11.0")
    assert checkout_move.blocking_files(move_of(clone, "v1.11.0")) == ["conf/mine.yaml"]
    with pytest.raises(StackError) as refused:
        checkout_move.refuse_what_cannot_move(move_of(clone, "v1.11.0"))
    follow_hint(refused.value.hint, clone, "conf/mine.yaml")


def test_changes_elsewhere_and_untracked_files_stay(clone: Path) -> None:
    (clone / "same.txt").write_text("mine\n")
    (clone / "compose.override.yml").write_text("mine\n")
    (clone / "old/mine.txt").write_text("mine\n")
    before, move = tree(clone), move_of(clone)
    assert checkout_move.blocking_files(move) == []
    checkout_move.go(move)
    assert tree(clone)["same.txt"] == tree(clone)["old/mine.txt"] == b"mine\n"
    checkout_move.go_back(move, refuse)
    assert tree(clone) == before and git(clone, "status", "--porcelain", "-uno") == "M same.txt"


def test_a_move_that_was_cut_off_goes_back_from_anywhere(clone: Path) -> None:
    before, move = tree(clone), move_of(clone)
    (clone / "compose.yml").write_text(NEW["compose.yml"][:7])
    (clone / "new/deep").mkdir(parents=True)
    (clone / "new/deep/only.txt").write_text("n\n")
    (clone / "old/only.txt").unlink()
    (clone / ".git/index.lock").write_text("")
    assert checkout_move.go_back(move, refuse) == []
    assert tree(clone) == before and git(clone, "status", "--porcelain") == ""

    git(clone, "checkout", "-q", move.after.commit, "--", "compose.yml")
    assert checkout_move.go_back(move, refuse) == [] and checkout_move.go_back(move, refuse) == []
    assert tree(clone) == before and git(clone, "status", "--porcelain") == ""
    assert git(clone, "symbolic-ref", "HEAD") == "refs/heads/stable"


def test_the_lock_of_a_git_that_works_is_waited_for_and_never_removed(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, index_lock = move_of(clone), clone / ".git/index.lock"
    checkout_move.go(move)
    # A commit holds the lock while its editor is open.
    (clone / "same.txt").write_text("mine\n")
    editor = {"GIT_EDITOR": "sh -c 'while [ ! -e done ]; do sleep 0.1; done; echo m >\"$1\"' -"}
    with subprocess.Popen(["git", "-C", clone, "commit", "-qa"], env={**os.environ, **WHO, **editor}) as commits:
        while not index_lock.exists():
            assert commits.poll() is None
        monkeypatch.setattr(checkout_move, "_PATIENCE", 1)
        with pytest.raises(StackError, match=f"Another Git works in .*: process {commits.pid}"):
            checkout_move.go_back(move, refuse)
        assert index_lock.exists() and commits.poll() is None
        (clone / "done").touch()
        assert commits.wait() == 0
    assert checkout_move.go_back(move, refuse) == []


def test_what_someone_changed_meanwhile_is_kept_aside(clone: Path) -> None:
    kept: dict[str, bytes] = {}
    before, move = tree(clone), move_of(clone)
    checkout_move.go(move)
    (clone / "compose.yml").write_text("mine\n")
    assert checkout_move.go_back(move, kept.__setitem__) == ["compose.yml"]
    assert kept == {"compose.yml": b"mine\n"} and tree(clone) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_root_leaves_the_owner_the_owner(clone: Path) -> None:
    subprocess.run(["chmod", "o+x", *map(str, clone.parents[:-2])], check=True)
    subprocess.run(["chown", "-R", "1234:1234", clone.parent], check=True)
    move = move_of(clone)
    checkout_move.refuse_what_cannot_move(move)
    checkout_move.go(move)
    assert all(path.lstat().st_uid == 1234 for path in clone.rglob("*"))
    checkout_move.go_back(move, refuse)
    os.chown(clone / "old", 0, 0)
    with pytest.raises(StackError, match="chown|belongs to its owner"):
        checkout_move.refuse_what_cannot_move(move)


SETTINGS = {
    "color.ui": "always",
    "diff.noprefix": "true",
    "diff.mnemonicPrefix": "true",
    "diff.external": "false",
    "diff.context": "0",
    "diff.renames": "copies",
    "diff.submodule": "log",
    "core.autocrlf": "input",
    "core.quotePath": "false",
    "apply.whitespace": "error",
    "apply.ignoreWhitespace": "change",
}
CHANGES = {
    "compose.yml": b"services: {a: {image: z}}\r\n\r\nx: 1\n",
    "same.txt": b"# caf\xe9, Latin-1\n",
    "binary": b"\0\1\2",
    "unended": b"services: {} \t",
    "mac": b"a\rb\r",
    "empty": b"",
}


@pytest.mark.parametrize("setting", ["", *SETTINGS])
def test_the_local_changes_are_a_patch_that_brings_them_back(clone: Path, tmp_path: Path, setting: str) -> None:
    """The user's configuration, ends of lines and encodings change nothing of it."""
    if setting:
        git(clone, "config", setting, SETTINGS[setting])
    for name, content in CHANGES.items():
        (clone / name).write_bytes(content)
    (clone / "same.txt").chmod(0o755)
    (clone / "old/only.txt").rename(clone / "moved.txt")
    git(clone, "add", "-N", ".")
    changed = tree(clone)
    (tmp_path / "patch").write_bytes(Checkout(clone).diff)

    git(tmp_path, "clone", "-qb", "stable", f"file://{tmp_path / 'source'}", "fresh")
    git(tmp_path / "fresh", "apply", str(tmp_path / "patch"))
    assert tree(tmp_path / "fresh") == changed
    assert os.access(tmp_path / "fresh" / "same.txt", os.X_OK)


def test_a_patch_is_made_where_a_file_is_no_longer_tracked_and_a_folder_is_a_link(clone: Path, tmp_path: Path) -> None:
    git(clone, "rm", "-q", "--cached", "compose.yml")
    (clone / "old").rename(tmp_path / "larger-disk")
    (clone / "old").symlink_to(tmp_path / "larger-disk")
    (tmp_path / "patch").write_bytes(Checkout(clone).diff)
    git(tmp_path, "clone", "-qb", "stable", f"file://{tmp_path / 'source'}", "fresh")
    git(tmp_path / "fresh", "apply", str(tmp_path / "patch"))
    assert not (tmp_path / "fresh/old/only.txt").exists() and not (tmp_path / "fresh/compose.yml").exists()


def test_changes_that_git_cannot_show_are_not_taken_for_none(clone: Path, tmp_path: Path) -> None:
    (clone / "compose.yml").write_text("services: {}\n")
    git(clone, "config", "filter.no.clean", "false")
    git(clone, "config", "filter.no.required", "true")
    (clone / ".git/info/attributes").write_text("*.yml filter=no\n")
    with pytest.raises(DumpError, match="The local changes in .* cannot be kept as a patch") as refused:
        other_files.copy_checkout(clone, tmp_path)
    assert "--dump-only" in refused.value.hint and not (tmp_path / "local-changes.diff").exists()


@pytest.mark.parametrize(
    "as_owner", [False, pytest.param(True, marks=pytest.mark.skipif(os.geteuid() != 0, reason="root"))]
)
def test_programs_that_a_checkout_has_git_run_get_nothing_of_ours(
    clone: Path, tmp_path: Path, as_owner: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """See it by a filter, which is a program of the checkout's owner: its environment, its descriptors, its user."""
    seen = tmp_path / "seen"
    seen.mkdir(mode=0o777)
    seen.chmod(0o777)
    script = tmp_path / "filter"
    script.write_text(f"#!/bin/sh\nenv > {seen}/env\nls -l /proc/$$/fd > {seen}/fd\nid -u > {seen}/id\nexec cat\n")
    script.chmod(0o755)
    git(clone, "config", "filter.spy.clean", str(script))
    (clone / ".git" / "info" / "attributes").write_text("*.yml filter=spy\n")
    (clone / "compose.yml").write_text("services: {a: {image: z}}\n")
    if as_owner:
        for path in (clone, *clone.rglob("*")):
            os.lchown(path, 54321, 54321)
        for path in (tmp_path, *tmp_path.parents[:2]):
            path.chmod(0o755)
    secrets = {"DHIS2_PASSWORD": "sw0rdfish", "DHIS2_TOKEN": "t0ken", "DOCKER_CONFIG": "/x", "GIT_DIR": "/nowhere"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    with lock.locked(tmp_path, "upgrade", datetime(2026, 11, 23, tzinfo=timezone.utc)):
        diff = Checkout(clone).diff
    assert b"image: z" in diff
    environment, descriptors = (seen / "env").read_text(), (seen / "fd").read_text()
    assert "PATH=" in environment and not [name for name in secrets if f"{name}=" in environment]
    assert "lock" not in descriptors and ".docker-chap" not in descriptors
    assert (seen / "id").read_text().strip() == ("54321" if as_owner else str(os.geteuid()))
