"""`docker chap pin`: files only, no engine, all of them or none, also when it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.sample.stack import environment, run_in

COMPOSE = """\
# CHAP v2.0.0   (image tags below)
include:
  - worker.yml
services:
  chap:
    image: "harbor.moh.example:5000/ghcr/dhis2-chap/chap-core:v2.0.0"   # was :v1.4.0
    environment: {CHAP_DATABASE_URL: postgresql://chap:secret@chap-postgres/chap_core}
  chap-postgres:
    image: postgres:17
"""
WORKER = "services:\r\n  runner:\r\n    image: 'ghcr.io/dhis2-chap/chap-worker:${CHAP_TAG}'\r\n"
ENV = "# versions\nexport CHAP_TAG='v2.0.0' # both\nPASSWORD=v2.0.0\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a project of three files."""
    for name, content in (("compose.yml", COMPOSE), ("worker.yml", WORKER), (".env", ENV)):
        (tmp_path / name).write_bytes(content.encode())
    return tmp_path


def pin(folder: Path, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command with an engine that is not there."""
    done = run_in(folder, "docker", "-H", "unix:///nowhere/docker.sock", "chap", *words)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("compose.yml", "worker.yml", ".env")}


def test_forth_and_back_is_the_identity(folder: Path) -> None:
    before = content(folder)
    shown = pin(folder, "pin", "2.1.0", "--dry-run").stdout
    assert content(folder) == before
    assert sorted(line for line in shown.splitlines() if line.startswith("+") and not line.startswith("+++")) == [
        '+    image: "harbor.moh.example:5000/ghcr/dhis2-chap/chap-core:v2.1.0"   # was :v1.4.0',
        "+export CHAP_TAG='v2.1.0' # both",
    ]
    assert pin(folder, "pin", "v2.1.0").stdout == shown
    after = content(folder)
    assert after["worker.yml"] == before["worker.yml"]
    assert "already name v2.1.0" in pin(folder, "pin", "v2.1.0").stdout and content(folder) == after
    pin(folder, "pin", "v2.0.0")
    assert content(folder) == before


def test_mode_and_symlink_stay(folder: Path) -> None:
    (folder / "real.env").write_bytes((folder / ".env").read_bytes())
    (folder / "real.env").chmod(0o640)
    (folder / ".env").unlink()
    (folder / ".env").symlink_to("real.env")
    pin(folder, "pin", "v2.1.0")
    assert (folder / ".env").is_symlink() and (folder / "real.env").stat().st_mode & 0o777 == 0o640
    assert b"v2.1.0" in (folder / "real.env").read_bytes()


def test_the_process_environment_wins_and_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(folder)
    done = run_in(folder, "docker", "chap", "pin", "v2.1.0", env=environment() | {"CHAP_TAG": "v1.4.0"})
    assert done.returncode == 1 and "CHAP_TAG" in done.stderr and content(folder) == before


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write in a folder, not even root, for whom its mode means nothing."""
    if os.geteuid():
        folder.chmod(0o500)
        yield
        return
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_read_only_file_is_refused_before_the_first_write(folder: Path) -> None:
    before = content(folder)
    with read_only(folder):
        failed = pin(folder, "pin", "v2.1.0", status=1)
    assert f"Cannot make the folder {folder}" in failed.stderr and content(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == sorted(before)


def test_killed_anywhere_it_is_all_or_nothing(folder: Path) -> None:
    old = content(folder)
    pin(folder, "pin", "v2.1.0")
    new = content(folder)
    pin(folder, "pin", "v2.0.0")
    seen = set()

    for delay in range(0, 240, 24):
        child = subprocess.Popen(
            [sys.executable, "-m", "compose_chap", "pin", "v2.1.0"],
            cwd=folder,
            env=environment() | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.DEVNULL,
        )
        journal = folder / ".docker-chap" / "journal.json"
        while child.poll() is None and not journal.exists():
            time.sleep(0.0005)
        time.sleep(delay / 10_000)
        child.kill()
        child.wait()
        if journal.exists():
            pin(folder, "recover")
        now = content(folder)
        assert now in (old, new) and not list(folder.glob(".*.docker-chap"))
        seen.add("new" if now == new else "old")
        pin(folder, "pin", "v2.0.0")
        assert content(folder) == old
    assert "old" in seen
