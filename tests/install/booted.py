"""A bare Debian that is booted: systemd is its first process, with names, mounts and processes of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from build import recipe
from tests.e2e.calls import until
from tests.install.roots import Root

# This package's source is mounted there.
SOURCE = "/source"
BOOT = """
set -e
mount --make-rprivate /
mount --bind {root} {root}
mount -t proc proc {root}/proc
mount --rbind /sys {root}/sys
groups={root}/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs $groups
mkdir $groups/systemd
mount -t cgroup -o none,name=systemd cgroup $groups/systemd || mount -t cgroup2 cgroup2 $groups
mount -t tmpfs tmpfs {root}/run
mount --rbind /dev {root}/dev
mkdir -p {root}{source}
mount --bind {repository} {root}{source}
exec chroot {root} env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system
"""


class Booted:
    """A machine that is booted; commands run in it as a login of root would run them."""

    def __init__(self, root: Path, process: int) -> None:
        self.root = root
        self._process = process

    def run(self, *words: str) -> str:
        """Run a command inside and return what it writes; it has to succeed."""
        done = self._run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def running(self) -> bool:
        """Return whether systemd is up."""
        return self._run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        inside = ["nsenter", "-t", str(self._process), "-m", "-p", "-u", "-i", "chroot", str(self.root)]
        login = ["env", "-i", "HOME=/root", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        return subprocess.run([*inside, *login, *words], capture_output=True, text=True, check=False)


@contextmanager
def booted(root: Root, *packages: str) -> Iterator[Booted]:
    """Boot a root with these packages, and give it while the block runs."""
    root.run(f"apt-get -qq update; apt-get -qq install -y --no-install-recommends systemd dbus {' '.join(packages)}")
    script = BOOT.format(root=root.folder, source=SOURCE, repository=recipe.RECIPE.parent)
    unshare = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "bash", "-c", script]
    with subprocess.Popen(unshare, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as child:
        try:
            until(lambda: bool(_first_of(child.pid)), 10)
            machine = Booted(root.folder, _first_of(child.pid))
            until(machine.running, 90)
            yield machine
        finally:
            child.kill()


def _first_of(process: int) -> int:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(children[0]) if children else 0
