"""Reading and writing files so that a user never meets a traceback or a half-written artefact."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from trt_blendmask.errors import DataError, InputMissingError, OutputError, OutputNameError, UsageError


def existing_file(path: str | os.PathLike[str], what: str, hint: str) -> Path:
    """Return `path` if it is a readable, non-empty regular file.

    Args:
        what: what the file should be, for the message ("a checkpoint", "an ONNX model").
        hint: the next thing to type, a whole sentence.

    Raises:
        InputMissingError: nothing there, a folder, a pipe or a device, or not readable.
        DataError: the file has zero bytes.
    """
    file = Path(path)
    expected = f"Expected {what} at '{file}', but"
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputMissingError(f"{expected} there is no such file. {hint}") from None
    except (OSError, ValueError) as error:  # a name that is too long, a loop of links, a null byte
        reason = getattr(error, "strerror", None) or error
        raise InputMissingError(f"{expected} it cannot be reached: {reason}. {hint}") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputMissingError(f"{expected} it is a folder. {hint}")
    if not stat.S_ISREG(status.st_mode):
        raise InputMissingError(f"{expected} it is a pipe or a device. Save it to a file first.")
    if not os.access(file, os.R_OK):
        raise InputMissingError(f"{expected} it may not be read. Check its permissions.")
    if status.st_size == 0:
        raise DataError(f"{expected} the file is empty (0 bytes). {hint}")
    return file


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether it is one; `Path.is_dir` raises where a name is too long or a folder may not be looked into."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def file_sha256(path: Path) -> str:
    """Hash of a file of any size.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_outputs(outputs: Iterable[str | os.PathLike[str]], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse, before any work, an output that would overwrite an input or another output; links are followed.

    Raises:
        UsageError: there is one.
    """
    taken = {os.path.realpath(path) for path in inputs}
    for output in outputs:
        place = os.path.realpath(output)
        if place in taken:
            raise UsageError(f"The output '{output}' would overwrite an input or another output: name another file.")
        taken.add(place)


@contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    If the body raises (Ctrl-C included) the temporary file is removed and an older file at `path` is left as it was.
    A symbolic link is written through.

    Raises:
        OutputError: the folder cannot be made or written, the disk is full, or `path` is no regular file.
    """
    with temporary_beside(path) as temporary:
        yield temporary
        put_in_place(temporary, Path(os.path.realpath(path)))


@contextmanager
def temporary_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary file in the folder of `path`, which is made; removed at the end, if it is still there.

    The temporary name keeps the suffix, because libraries choose formats by it.

    Raises:
        OutputError: as `atomic_output`.
    """
    target, real = Path(path), Path(os.path.realpath(path))
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            mode = real.stat().st_mode  # tells of a name that is too long, too
            if stat.S_ISDIR(mode):
                raise OutputNameError(f"Expected a file name to write, got the folder '{target}'. Name a file in it.")
            if not stat.S_ISREG(mode):  # renaming over /dev/null would replace the device by a file
                raise OutputNameError(f"Expected a file name to write, got the pipe or device '{target}'. Name a file.")
        handle, name = tempfile.mkstemp(prefix=f".{short_stem(real)}.", suffix=real.suffix[:60], dir=real.parent)
        os.close(handle)
    except OSError as error:
        raise cannot_write(target, error) from error
    temporary = Path(name)
    try:
        yield temporary
    except BrokenPipeError:  # who read our words went away: nothing is wrong with the file
        raise
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Refuse an output that cannot be written before the work for it is done; makes no folder.

    Raises:
        OutputError: as `atomic_output`.
    """
    for folder in (*path.parents, path):  # "." has no parents
        try:
            folder.stat()
        except (FileNotFoundError, NotADirectoryError):  # to be made
            continue
        except OSError as error:
            raise cannot_write(path, error) from error
        with temporary_beside(folder / path.name):
            return


def write_texts(texts: Mapping[Path, str]) -> None:
    """Write each text to its file, by `atomic_output`, one after another.

    Raises:
        OutputError: as `atomic_output`.
    """
    for file, text in texts.items():
        with atomic_output(file) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def leftovers(path: str | os.PathLike[str]) -> list[Path]:
    """The files of `temporary_beside(path)`: of processes that were killed, and of those that are still at it."""
    real = Path(os.path.realpath(path))
    return list(real.parent.glob(f".{glob.escape(short_stem(real))}.????????{glob.escape(real.suffix[:60])}"))


def short_stem(path: Path) -> str:
    """What names of other files may begin with: a file name has at most 255 bytes."""
    return os.fsencode(path.stem)[:60].decode(errors="ignore")


def cannot_write(target: Path, error: OSError) -> OutputError:
    """The one sentence for an output that the system refused."""
    reason = error.strerror or str(error)
    return OutputError(f"Cannot write '{target}': {reason}. Name another place.")


def put_in_place(temporary: Path, target: Path, mode: int = 0o666) -> None:
    """Flush `temporary` to disk and rename it to `target`, with the permissions `mode` less the umask.

    Raises:
        OSError: the system refuses.
    """
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(mode & ~umask)  # mkstemp makes 0600: an artefact is readable as any other new file
    _sync(temporary)
    temporary.replace(target)
    with suppress(OSError):  # the rename itself must survive a power cut; some file systems cannot promise it
        _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
