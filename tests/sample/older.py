"""Make a source checkout from the time of chap-core's first releases, with the traps of those that follow.

    v1.0.6   runs: the database in a folder of the server, PostgreSQL without a number, credentials in the file
    v1.0.7   the database in a named volume, which is empty
    v1.1.2   says that it is 1.1.1
    v1.1.3   says so too; PostgreSQL 17, a network of its own
    v1.1.5   credentials from .env; run folders in ./runs
    v1.1.6   the same, and its migration fails silently (no such release of CHAP)
    v1.2.0   run folders in a named volume
    v1.4.9   PostgreSQL 18 (no such release of CHAP)

To keep the traps apart, later releases leave the database where v1.0.6 has it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.sample.source import git

SOURCE = Path(__file__).resolve().parent / "stacks" / "older"
FOLDER, VOLUME = "/var/lib/postgresql/chap_data:", "chap-db:"
SECRET = "thisisnotgoingtobeexposed"
UNNAMED, NUMBERED = "sample/postgres", "docker-chap-test/postgres:17"

_HARD_CODED = {
    f"root:{SECRET}@postgres:5432/chap_core": "${POSTGRES_USER}:${POSTGRES_PASSWORD}@postgres:5432/${POSTGRES_DB}",
    "POSTGRES_USER: root": "POSTGRES_USER: ${POSTGRES_USER}",
    f"POSTGRES_PASSWORD: {SECRET}": "POSTGRES_PASSWORD: ${POSTGRES_PASSWORD}",
    "POSTGRES_DB: chap_core": "POSTGRES_DB: ${POSTGRES_DB}",
    "-U root": "-U ${POSTGRES_USER} -d chap_core",
}
_WORKER = "    command: celery"
_NUMBERED = {UNNAMED: NUMBERED}
_FROM_ENV = {
    **_NUMBERED,
    **_HARD_CODED,
    _WORKER: "    volumes: [{type: bind, source: runs, target: /app/runs}]\n" + _WORKER,
}
_NAMED_VOLUME = "\nvolumes: {chap-db: {}, runs: {}}\n"

# What each release has in the place of what v1.0.6 has.
RELEASES: Mapping[str, Mapping[str, str]] = {
    "v1.0.6": {},
    "v1.0.7": {FOLDER: VOLUME},
    "v1.1.2": _NUMBERED,
    "v1.1.3": {**_NUMBERED, "services:\n": "networks: {chap-network: {}}\nservices:\n"},
    "v1.1.5": _FROM_ENV,
    "v1.1.6": _FROM_ENV,
    "v1.2.0": {**_NUMBERED, **_HARD_CODED, _WORKER: "    volumes: [runs:/data/runs]\n" + _WORKER},
    "v1.4.9": {UNNAMED: "postgres:18"},
}
_REPORTS = {"v1.1.2": "1.1.1", "v1.1.3": "1.1.1"}
_VICES = {"v1.1.6": "silent-migration"}


def make(folder: Path, filled: Callable[[str], str]) -> None:
    """Make `folder` a clone that stands at v1.0.6; `filled` puts what is true of one stack into a file's text."""
    work, origin = (folder.with_name(f"{folder.name}-{what}") for what in ("work", "origin.git"))
    git(folder.parent, "init", "-q", "-b", "main", str(work))
    git(folder.parent, "init", "-q", "--bare", "-b", "main", str(origin))
    git(work, "remote", "add", "origin", str(origin))
    for tag in RELEASES:
        _release(work, tag, filled)
        git(work, "push", "-q", "origin", "main", tag)
        if tag == "v1.0.6":
            git(folder.parent, "clone", "-q", "--depth", "1", f"file://{origin}", str(folder))
    shutil.rmtree(work)


def _release(work: Path, tag: str, filled: Callable[[str], str]) -> None:
    for source in SOURCE.iterdir():
        text = source.read_text()
        for old, new in RELEASES[tag].items() if source.name == "compose.yml" else ():
            text = text.replace(old, new)
        if source.name == "compose.yml" and (VOLUME in text or "runs:/" in text):
            text += _NAMED_VOLUME
        (work / source.name.replace("gitignore", ".gitignore")).write_text(filled(text))
    shutil.rmtree(work / "release", ignore_errors=True)
    for image in ("chap-core", "chap-worker"):
        _code(work / "release" / image / "usr/lib/python3/dist-packages", tag, image)
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", f"Release {tag}")
    git(work, "tag", tag)


def _code(packages: Path, tag: str, image: str) -> None:
    version, reported = tag.removeprefix("v"), _REPORTS.get(tag, tag.removeprefix("v"))
    content = {"version": version, "vice": _VICES.get(tag, ""), "image": image}
    (packages / "chap_core").mkdir(parents=True)
    (packages / "chap_core/release.json").write_text(json.dumps(content))
    metadata = packages / f"chap_core-{reported}.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: chap_core\nVersion: {reported}\n")
