"""Make a source checkout of the sample CHAP: a bare origin with its releases, and a shallow clone of one branch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.sample.images import write_releases

SOURCE = Path(__file__).resolve().parent / "stacks" / "source"
SICK, BROKEN, MOVES_DATA = "v2.1.3", "v2.1.8", "v2.4.0"
TAGS = ("v2.1.0", SICK, BROKEN, MOVES_DATA)
_WHO = {f"GIT_{who}_{what}": "sample" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(folder: Path, *words: str) -> str:
    """Run Git and return what it printed."""
    done = subprocess.run(
        ["git", "-C", folder, *words], env={**os.environ, **_WHO}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"git {' '.join(words)}: {done.stderr}")
    return done.stdout.strip()


def make(folder: Path, filled: Callable[[str], str]) -> None:
    """Make `folder` a clone as an operator has it: from the time when v2.0.0 was new, and no tag but its own.

    `filled` puts what is true of one stack into a file's text.
    """
    work, origin, releases = (folder.with_name(f"{folder.name}-{what}") for what in ("work", "origin.git", "releases"))
    write_releases(releases)
    git(folder.parent, "init", "-q", "-b", "main", str(work))
    git(folder.parent, "init", "-q", "--bare", "-b", "main", str(origin))
    git(work, "remote", "add", "origin", str(origin))
    _release(work, releases, "v2.0.0", filled)
    git(work, "tag", "chap-1.1.0")
    git(work, "push", "-q", "origin", "main", "v2.0.0", "chap-1.1.0")
    git(folder.parent, "clone", "-q", "--depth", "1", "--single-branch", "--no-tags", f"file://{origin}", str(folder))
    for tag in TAGS:
        _release(work, releases, tag, filled)
    git(work, "push", "-q", "origin", "main", *TAGS)
    for scratch in (work, releases):
        shutil.rmtree(scratch)


def _release(work: Path, releases: Path, tag: str, filled: Callable[[str], str]) -> None:
    for source in SOURCE.iterdir():
        (work / source.name.replace("gitignore", ".gitignore")).write_text(filled(source.read_text()))
    (work / "config/configured_models").mkdir(parents=True, exist_ok=True)
    (work / "config/configured_models/default.yaml").write_text(f"# of {tag}\n")
    shutil.rmtree(work / "release", ignore_errors=True)
    for image in ("chap-core", "chap-worker"):
        shutil.copytree(_content(releases, image, tag), work / "release" / image)
    compose, worker = work / "compose.yml", work / "Dockerfile.worker"
    if tag != "v2.0.0":
        line = "      CHAP_ROOT_PATH"
        compose.write_text(compose.read_text().replace(line, f"      CHAP_NEW: 1\n{line}"))
        (work / f"of-{tag}.txt").write_text("a file that only later releases have\n")
    if tag == BROKEN:
        worker.write_text(worker.read_text() + "RUN echo the model cannot be fetched >&2; exit 9\n")
    if tag == MOVES_DATA:
        compose.write_text(compose.read_text().replace("chap-db:", "chap-data:"))
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", f"Release {tag}")
    git(work, "tag", tag)


def _content(releases: Path, image: str, tag: str) -> Path:
    for version in (tag, "v2.1.0"):  # a release that is never started may hold anything
        if (folder := releases / f"{image}-{version}").is_dir():
            return folder
    raise RuntimeError(f"There is no {image} to make {tag} of.")
