"""Start `docker chap`: what Python runs first of the file docker-chap.

The packages are unpacked once into a cache, because from there they load several times faster than from the
archive. The cache holds code that will be run, so it counts only where nobody else can write. Where there is
no such place, the packages load from the archive, and nothing is written.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys

BUILD = "@BUILD@"


def main() -> int | str:
    """Run the plugin and return its exit status."""
    if sys.version_info < (3, 10):
        return "Error: docker chap needs Python 3.10 or newer; this is %d.%d." % sys.version_info[:2]
    archive = os.path.abspath(sys.path[0])
    try:
        sys.path[0] = unpacked(archive) or archive
        from compose_chap import plugin

        return plugin.main()
    except KeyboardInterrupt:
        return 130


def unpacked(archive: str) -> str | None:
    """Return the folder of the unpacked packages, filled if this is the first run; None where there can be none."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = os.path.join(base, "docker-chap", "packages")
    packages = os.path.join(cache, BUILD)
    try:
        if not os.path.isabs(base) or not makes_private(cache):
            return None
        if not holds(packages):
            unpack(archive, packages)
            sweep(cache)
        return packages
    except OSError:
        return None


def makes_private(folder: str) -> bool:
    """Make the folder if need be; return whether it is this user's own and nobody else can write to it."""
    above = folder
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    # Under `sudo`, HOME may be another user's: nothing of root's is left there, and nothing run from there.
    if os.stat(above).st_uid != os.geteuid():
        return False
    os.makedirs(folder, 0o700, exist_ok=True)
    status = os.lstat(folder)
    return stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o022


def holds(folder: str) -> bool:
    """Keep the folder from being swept away while this process lasts; return whether it is there."""
    try:
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    return os.path.exists(folder)  # it may have gone while we waited for the lock


def unpack(archive: str, packages: str) -> None:
    """Unpack beside the place and move it there in one step, so that no run ever sees half of it."""
    import shutil
    import tempfile
    import zipfile

    folder = tempfile.mkdtemp(dir=os.path.dirname(packages))
    try:
        holds(folder)
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        os.rename(folder, packages)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        if not holds(packages):  # else another first run was quicker
            raise


def sweep(cache: str) -> None:
    """Remove what no process holds: the packages of other versions, and what a killed run left half unpacked."""
    import shutil

    for name in os.listdir(cache):
        folder = os.path.join(cache, name)
        try:
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
