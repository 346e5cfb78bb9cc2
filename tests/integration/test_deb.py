"""The Debian package: what is in it, that it comes out the same again, and that dpkg reads it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from build import deb, recipe

MOMENT = 1700000000
needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is not here to read the package")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a package of the built file."""
    path = tmp_path_factory.mktemp("deb") / "docker-chap.deb"
    path.write_bytes(deb.package(deb.files(), MOMENT))
    return path


def test_the_same_files_give_the_same_bytes(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    turned = dict(reversed(deb.files().items()))
    assert deb.package(turned, MOMENT) == package.read_bytes()
    assert deb.package(turned, MOMENT + 1) != package.read_bytes()


@needs_dpkg
def test_dpkg_reads_the_package(package: Path, tmp_path: Path) -> None:
    fields = {"Package": "docker-chap", "Architecture": "all", "Depends": "python3 (>= 3.10)"}
    for name, value in fields.items():
        assert dpkg("--field", package, name) == f"{value}\n"
    dpkg("--extract", package, tmp_path)
    plugin = tmp_path / deb.PLUGINS / "docker-chap"
    assert plugin.read_bytes() == recipe.PLUGIN.read_bytes()
    assert plugin.stat().st_mode & 0o777 == 0o755 and plugin.stat().st_mtime == MOMENT
    files = [line.split() for line in dpkg("--contents", package).splitlines()]
    assert {line[1] for line in files} == {"root/root"}
    assert all(line[0] in ("drwxr-xr-x", "-rw-r--r--") or line[-1].endswith("/docker-chap") for line in files)


@needs_dpkg
@pytest.mark.parametrize(
    ("earlier", "later"), [("0.1.0", "0.2.0"), ("0.2.0rc1", "0.2.0"), ("0.2.0.dev3", "0.2.0"), ("0.2.0b1", "0.2.0rc1")]
)
def test_dpkg_sorts_versions_as_python_does(earlier: str, later: str) -> None:
    words = ["dpkg", "--compare-versions", deb.debian_version(earlier), "lt", deb.debian_version(later)]
    subprocess.run(words, check=True)


def dpkg(*words: str | Path) -> str:
    """Run dpkg-deb and return what it writes."""
    return subprocess.run(["dpkg-deb", *words], capture_output=True, text=True, check=True).stdout
