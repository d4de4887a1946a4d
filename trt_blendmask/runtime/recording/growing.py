"""A file that is read while it grows, and after its writer was killed."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

SYNC_S = 1.0  # what was written is on the disk after so long, should the power fail


class GrowingFile:
    """A binary file under its own name from the start. Nothing waits in memory: a kill loses no byte written."""

    def __init__(self, path: Path) -> None:
        """Create or empty `path`.

        Raises:
            OSError: the system refuses.
        """
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._ends = threading.Event()
        self._syncer = threading.Thread(target=self._sync_now_and_then, name="sync", daemon=True)
        self._syncer.start()

    def write(self, data: bytes) -> int:
        """Append, or write at the place sought; how many bytes that were.

        Raises:
            OSError: the disk is full, gone, ...
        """
        write_all(self._descriptor, data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def cut(self, size: int) -> None:
        """Forget what is after the first `size` bytes, as half a line."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        """Everything is on the disk afterwards.

        Raises:
            OSError: it could not be brought there.
        """
        self._ends.set()
        self._syncer.join()
        try:
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def _sync_now_and_then(self) -> None:
        while not self._ends.wait(SYNC_S):
            with contextlib.suppress(OSError):
                os.fdatasync(self._descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; the system may take them in parts.

    Raises:
        OSError: it refuses.
    """
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
