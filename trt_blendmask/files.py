"""Reading and writing files so that a user never meets a traceback or a half-written artefact."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trt_blendmask.errors import DataError, InputMissingError, OutputError


def existing_file(path: str | os.PathLike[str], what: str, hint: str) -> Path:
    """Return `path` if it is a readable, non-empty regular file.

    Args:
        what: what the file should be, for the message ("a checkpoint", "an ONNX model").
        hint: the next thing to type, a whole sentence.

    Raises:
        InputMissingError: nothing there, a folder, or not readable.
        DataError: the file has zero bytes.
    """
    file = Path(path)
    if file.is_dir():
        raise InputMissingError(f"Expected {what} at '{file}', but it is a folder. {hint}")
    if not file.exists():
        raise InputMissingError(f"Expected {what} at '{file}', but there is no such file. {hint}")
    if not os.access(file, os.R_OK):
        raise InputMissingError(f"Expected {what} at '{file}', but it may not be read. Check its permissions.")
    if file.stat().st_size == 0:
        raise DataError(f"Expected {what} at '{file}', but the file is empty (0 bytes). {hint}")
    return file


@contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    The temporary name keeps the suffix, because libraries choose formats by it. If the body raises (Ctrl-C included)
    the temporary file is removed and an older file at `path` is left as it was.

    Raises:
        OutputError: the folder cannot be made or written, or the disk is full.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise OutputError(f"Expected a file name to write, got the folder '{target}'. Name a file in it.")
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise cannot_write(target, error) from error
    temporary = Path(name)
    try:
        yield temporary
        _publish(temporary, target)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def cannot_write(target: Path, error: OSError) -> OutputError:
    """The one sentence for an output that the system refused."""
    reason = error.strerror or str(error)
    return OutputError(f"Cannot write '{target}': {reason}. Name another place.")


def _publish(temporary: Path, target: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)  # mkstemp makes 0600: an artefact is readable as any other new file
    _sync(temporary)
    temporary.replace(target)
    _sync(target.parent)  # the rename itself must survive a power cut


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
