"""Check docker-chap as it lies there: what docker asks, what is inside, and that it starts on every Python here."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from build.recipe import PLUGIN
from compose_chap import __version__, plugin

PYTHONS = ("python3.10", "python3.11", "python3.12", "python3.13", "python3.14")

_NATIVE = (".so", ".pyd", ".dylib", ".pyc")
_LOAD_ALL = """\
import click, docker, httpx, leather, ruamel.yaml, compose_chap.cli, compose_chap.report.page
from compose_chap.alarms import services
with services.loaded() as known:
    assert not known.fault("mailtos://user:password@example.org")
"""


def main() -> None:
    """Stop at the first thing that is wrong; otherwise say what was seen."""
    found = [python for python in sys.argv[1:] or PYTHONS if is_there(python)] or [sys.executable]
    try:
        check_metadata(PLUGIN)
        check_archive(PLUGIN)
        for python in found:
            check_start(PLUGIN, python)
    except (AssertionError, subprocess.CalledProcessError) as error:
        sys.exit(f"Error: build/out/docker-chap is not good: {error}")
    print(f"build/out/docker-chap: metadata and archive are good, starts with {', '.join(found)}")


def check_metadata(file: Path) -> None:
    """See that the file answers docker's question with no program in reach but the shell."""
    answer = subprocess.run([file, "docker-cli-plugin-metadata"], env={"PATH": ""}, stdout=subprocess.PIPE, check=True)
    assert json.loads(answer.stdout) == plugin.METADATA, f"docker would read {answer.stdout!r}"


def check_archive(file: Path) -> None:
    """Read the archive whole, and see that nothing in it is made for one kind of machine."""
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
        apart = [name for name in archive.namelist() if name.endswith(".zip")]
        inner = [name for inside in apart for name in zipfile.ZipFile(io.BytesIO(archive.read(inside))).namelist()]
        native = [name for name in (*archive.namelist(), *inner) if name.endswith(_NATIVE)]
    assert not damaged, f"damaged: {damaged}"
    assert not native, f"not pure Python: {native}"


def check_start(file: Path, python: str) -> None:
    """See that the Python loads every package from the archive, and answers as a user would see it."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "CHAP_PYTHON": python, "XDG_CACHE_HOME": cache}
        load_all = f"import sys; sys.path.insert(0, {str(file / 'site-packages')!r})\n{_LOAD_ALL}"
        subprocess.run([python, "-I", "-S", "-W", "ignore", "-c", load_all], check=True)
        answer = subprocess.run([file, "version"], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert __version__ in answer.stdout, f"{python} printed {answer.stdout!r} as the version"


def is_there(python: str) -> bool:
    """Return whether this machine has that Python; a name in PATH may be a shim for nothing."""
    try:
        return subprocess.run([python, "-c", ""], stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    main()
