"""Read a file back from the disk while it is still being written: the disk must return what was written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

from compose_chap.errors import DumpError

# Whole pages, so that none of them is left in memory half read.
_STRETCH = 16 << 20
_PIECE = 1 << 20


class DiskCheck:
    """The SHA-256 of a file that grows, of what the disk returns of it.

    Each stretch is written out and dropped from the page cache before it is read, so that it comes from the disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._digest = hashlib.sha256()
        self._done = self._asked = 0
        self._ends: Queue[int] = Queue()
        self._pool = ThreadPoolExecutor(1)
        self._reading = self._pool.submit(self._follow)

    def reached(self, size: int) -> None:
        """Note that `size` bytes in all were handed to the kernel. They are read in larger pieces."""
        if size - self._asked >= _STRETCH:
            self._asked = size - size % _STRETCH
            self._ends.put(self._asked)

    def sha256(self, size: int) -> str:
        """Return the checksum of all `size` bytes of the file, once they are read.

        Raise DumpError when the disk does not return them, OSError when it does not take them.
        """
        self._ends.put(size)
        self._ends.put(-1)
        self._reading.result()
        return self._digest.hexdigest()

    def close(self) -> None:
        """End the reading, wherever it is."""
        self._ends.put(-1)
        self._pool.shutdown()
        os.close(self._handle)

    def _follow(self) -> None:
        for end in iter(self._ends.get, -1):
            os.fdatasync(self._handle)
            os.posix_fadvise(self._handle, self._done, end - self._done, os.POSIX_FADV_DONTNEED)
            while self._done < end:
                self._read(min(_PIECE, end - self._done))

    def _read(self, most: int) -> None:
        try:
            data = os.pread(self._handle, most, self._done)
        except OSError as error:
            raise DumpError(f"Cannot read {self._path}: {error.strerror}.", hint="Check the disk.") from None
        if not data:
            raise DumpError(f"{self._path.name} is shorter than what was written to it.", hint="Check the disk.")
        self._digest.update(data)
        self._done += len(data)


@contextmanager
def following(path: Path) -> Iterator[DiskCheck]:
    """Yield what reads a file back while it grows."""
    check = DiskCheck(path)
    try:
        yield check
    finally:
        check.close()
