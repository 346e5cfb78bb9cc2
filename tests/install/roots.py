"""A bare Debian or Ubuntu in a folder: made by mmdebstrap from packages, entered by chroot with own processes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

from build import recipe

SAMPLE = recipe.RECIPE.parent / "tests/sample"

# What a machine may need to reach the internet: it is handed on.
NETWORK = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

# Ubuntu's packages are signed by others: Debian's package ubuntu-keyring has their key.
UBUNTU = "noble"
UBUNTU_KEY = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")
_UBUNTU_MIRROR = os.environ.get("UBUNTU_MIRROR", "http://archive.ubuntu.com/ubuntu")

# What changes in a system when a package comes and goes, and is nobody's.
PASSING = ("/proc/", "/sys/", "/dev/", "/tmp/", "/run/", "/var/cache/", "/var/log/", "/var/lib/apt/", "/var/lib/dpkg/")


class Root:
    """A root file system of a suite of Debian or Ubuntu."""

    def __init__(self, suite: str, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["tar", "--extract", "--numeric-owner", "-f", archive(suite), "-C", folder], check=True)
        shutil.copy("/etc/resolv.conf", folder / "etc/resolv.conf")
        self.write("etc/hosts", f"127.0.0.1 localhost {socket.gethostname()}\n")
        # A package of Docker's would start an engine, beside the one of this machine.
        self.write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file there."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def trust(self) -> None:
        """Let it trust whom this machine trusts."""
        self.write(CERTIFICATES.lstrip("/"), Path(CERTIFICATES).read_text())

    def run(self, script: str, user: str = "root", expect: int = 0) -> str:
        """Run a script inside, as a login of that user would, and return what it wrote to standard output and error."""
        environment = {name: os.environ[name] for name in NETWORK if name in os.environ}
        environment |= {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "TERM": "dumb"}
        words = [f"{name}={value}" for name, value in environment.items()]
        self.write("tmp/script", script, 0o644)
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={self.folder}/proc",
             "chroot", str(self.folder), "su", "-", user, "-c", f"env {' '.join(words)} bash -eu /tmp/script"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
             text=True, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == expect, f"{script}\n{done.stdout[-4000:]}"
        return done.stdout

    def files(self) -> set[str]:
        """Return every file, folder and link, but for caches, logs and what the packages' own records are."""
        listed = self.run('find / -xdev -printf "%p\\n"').splitlines()
        return {path for path in listed if not f"{path}/".startswith(PASSING)}


def has_archive(suite: str) -> bool:
    """Whether the archive of a suite was made already."""
    return _archive_of(suite).exists()


def _archive_of(suite: str) -> Path:
    return recipe.OUT / "roots" / f"{suite}.tar"


def archive(suite: str) -> Path:
    """Return the archive of a bare root of a suite, made where it is missing."""
    path = _archive_of(suite)
    if not path.exists():
        _bootstrap(suite, path)
    return path


def _bootstrap(suite: str, archive: Path) -> None:
    """Make the archive of a root with what every installation has, and apt."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    debian = f". '{SAMPLE}/debian.sh'; suite_source {suite}"
    if suite == UBUNTU:
        source = f"deb [signed-by={UBUNTU_KEY}] {_UBUNTU_MIRROR} {suite} main universe"
    else:
        source = subprocess.run(["bash", "-c", debian], capture_output=True, text=True, check=True).stdout.strip()
    unfinished = archive.with_suffix(".part.tar")
    subprocess.run(
        ["mmdebstrap", "-q", "--variant=minbase", "--dpkgopt=force-unsafe-io", suite, str(unfinished), source],
        check=True,
    )
    unfinished.rename(archive)
