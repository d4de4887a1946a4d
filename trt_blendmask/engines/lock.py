"""One at a time: locks that the system gives back when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trt_blendmask.errors import OutputError
from trt_blendmask.files import leftovers


@contextmanager
def hold(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[bool]:
    """Hold the lock file `path`, which is made and never removed; yields whether another had it before.

    Args:
        waiting: called once if another process has it.

    Raises:
        OutputError: the file cannot be made or locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _cannot_lock(path, error) from error
    try:
        waited = not _taken_at_once(descriptor, path)
        if waited:
            if waiting is not None:
                waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield waited
    finally:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process that was forked meanwhile still has the file open
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on a folder, or on a temporary file of ours (for `sweep`), itself; a file system may have none."""
    descriptor = -1
    with suppress(OSError):
        access = os.O_RDONLY if path.is_dir() else os.O_RDWR  # NFS locks only what is open for writing
        descriptor = os.open(path, access | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def sweep(*targets: Path) -> None:
    """Remove the temporary files that processes which were killed left beside `targets`: nobody holds their locks."""
    for file in (file for target in targets for file in leftovers(target)):
        with suppress(OSError), file.open("r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()


def _taken_at_once(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _cannot_lock(path, error) from error
    return True


def _cannot_lock(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"Cannot lock '{path}': {error.strerror or error}. Set XDG_CACHE_HOME to a folder that you can write to."
    )
