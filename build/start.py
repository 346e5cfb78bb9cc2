"""Start `docker chap`: what Python runs first of the file docker-chap.

Shiv unpacks the packages once into a cache, because from there they load several times faster than from the
archive. The cache holds code that will be run, so it counts only where nobody else can write. Where there is
no such place, the packages load from the archive, and nothing is written.

Shiv's own start would do it too, but it takes as long as all the rest, leaves old caches for ever, and does
what the environment says: SHIV_ENTRY_POINT=os:abort would run that. So only its unpacking is used.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys

BUILD = "@BUILD@"
PACKAGES = "site-packages"  # where shiv puts them, in the archive and unpacked


def main() -> int | str:
    """Run the plugin and return its exit status."""
    if sys.version_info < (3, 10):
        return "Error: docker chap needs Python 3.10 or newer; this is %d.%d." % sys.version_info[:2]
    archive = os.path.abspath(sys.path[0])
    build = build_of(archive)
    try:
        folder = unpacked(archive)
        sys.path[0] = os.path.join(folder or archive, PACKAGES)
        try:
            from compose_chap import plugin

            run = plugin.main
        except Exception:
            if not folder:
                raise
            discard(folder)
            sys.path[0] = os.path.join(archive, PACKAGES)
            for name in [name for name in sys.modules if name.partition(".")[0] == "compose_chap"]:
                del sys.modules[name]
            from compose_chap import plugin

            run = plugin.main
        try:
            status = run()
        except Exception:
            # Half a module can be valid Python; the plugin itself lets nothing out.
            if not mended(archive, build, folder):
                raise
            return 1
        # What fails may have failed for this; what works is not kept waiting.
        if status == 1:
            mended(archive, build, folder)
        return status
    except KeyboardInterrupt:
        return 130


def mended(archive: str, build: tuple[int, int, int], folder: str | None) -> bool:
    """Remove an unpacked copy that is damaged; return whether it was.

    Where another build was installed since this process began, nothing is left to compare the copy with.
    """
    if not folder or build_of(archive) != build or not damaged(archive, folder):
        return False
    discard(folder)
    message = f"The unpacked copy in {folder} was damaged and has been removed. Run the command again."
    if "--progress json" in " ".join(sys.argv).replace("=", " "):
        import json

        message = json.dumps({"note": message})
    print(message, file=sys.stderr)
    return True


def build_of(archive: str) -> tuple[int, int, int]:
    """Return what changes when another file takes the archive's place; zeros where there is none."""
    try:
        status = os.stat(archive)
    except OSError:
        return (0, 0, 0)
    return (status.st_dev, status.st_ino, status.st_mtime_ns)


def damaged(archive: str, folder: str) -> bool:
    """Return whether a file of the archive is missing in its unpacked copy, or another one."""
    import zipfile
    import zlib

    try:
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                if entry.filename.startswith(f"{PACKAGES}/") and not entry.is_dir():
                    with open(os.path.join(folder, entry.filename), "rb") as file:
                        if zlib.crc32(file.read()) != entry.CRC:
                            return True
    except (OSError, zipfile.BadZipFile):
        return True
    return False


def discard(folder: str) -> None:
    """Move an unpacked copy aside, where the next unpacking sweeps it away: other processes may still use it."""
    try:
        os.rename(folder, f"{folder}.{os.getpid()}.tmp")
    except OSError:
        pass


def unpacked(archive: str) -> str | None:
    """Return the folder of the unpacked archive, filled if this is the first run; None where there can be none."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = os.path.join(base, "docker-chap", "packages")
    folder = os.path.join(cache, BUILD)
    try:
        if not os.path.isabs(base) or not makes_private(cache):
            return None
        if not holds(folder):
            unpack(archive, cache, folder)
        return folder
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


def unpack(archive: str, cache: str, folder: str) -> None:
    """Let shiv unpack the archive: beside the place, and moved there in one step, by one process at a time."""
    import pathlib
    import zipfile

    from _bootstrap import extract_site_packages  # type: ignore[import-not-found]

    turn = os.open(cache, os.O_RDONLY)
    fcntl.flock(turn, fcntl.LOCK_EX)
    umask = os.umask(0o077)
    try:
        with zipfile.ZipFile(archive) as packed:
            extract_site_packages(packed, pathlib.Path(folder))
        holds(folder)
    finally:
        os.umask(umask)
        sweep(cache)
        os.close(turn)


def sweep(cache: str) -> None:
    """Remove what no process holds: other versions, shiv's lock files, what a killed or failed run left."""
    import shutil

    for name in os.listdir(cache):
        path = os.path.join(cache, name)
        try:
            descriptor = os.open(path, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
