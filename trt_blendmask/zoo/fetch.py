"""From a model's name to a checked file: where it lies, the fetching, the checks, the record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from trt_blendmask.errors import DataError, NotTrustedError, SourceUnavailableError, UsageError
from trt_blendmask.export.reader import read_checkpoint
from trt_blendmask.files import cannot_write, existing_file, file_sha256
from trt_blendmask.zoo.download import CHUNK, Progress, download, plain, shown
from trt_blendmask.zoo.models import WEIGHTS, PublishedModel, find_model
from trt_blendmask.zoo.record import Record, check_record, read_record, record_path, write_record

SUFFIXES = (".pth", ".safetensors")


@dataclass(frozen=True)
class PullReport:
    """The checked file. `is_new`: it was fetched now and its SHA-256 recorded for the first time."""

    name: str
    file: Path
    size_bytes: int
    sha256: str
    is_new: bool

    def summary(self) -> str:
        """One line for a person."""
        state = f"recorded in {record_path(self.file).name}" if self.is_new else "as recorded"
        return f"{self.file}: {self.size_bytes / 1e6:.1f} MB, SHA-256 {self.sha256} ({state})"


def pull(name: str, output: Path | None, mirror: str | None, progress: Progress = lambda _a, _b: None) -> PullReport:
    """Fetch the weights of a published model; a file that is here already is compared with its record.

    Args:
        name: of the table. output: file, or folder for `NAME.pth`; None: the current folder.
        mirror: address whose scheme and host stand in for Hugging Face's, or that of the file itself; or a folder or
            file. None: where the authors put it.
        progress: gets the bytes that are here and those that there will be, or None.

    Raises:
        UsageError: unknown name, or a file is in the way. SourceUnavailableError: cannot be fetched now.
        InputMissingError: not in the mirror's folder. DataError, NotTrustedError: what came is not the model.
        OutputError: cannot be written.
    """
    model = find_model(name)
    file = _target(model, output)
    first = read_record(file)
    if file.exists():
        if first is None:
            raise UsageError(f"'{file}' is there already, and nothing is recorded of it: name another place with -o.")
        check_record(file)
        return PullReport(model.name, file, first.bytes, first.sha256, False)
    place = _locate(model, mirror)
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        stated = download(place, part, progress) if isinstance(place, str) else _copy(place, part, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Stopped by Ctrl-C; type the same command to go on ('{part}' is kept).") from None
    except OSError as error:
        raise cannot_write(file, error) from error
    source = shown(place) if isinstance(place, str) else str(place)
    found = Record(model.name, source, part.stat().st_size, file_sha256(part))
    try:
        _check(part, found, stated, first, file)
    except (DataError, NotTrustedError):
        part.unlink(missing_ok=True)
        raise
    if first is None:
        write_record(file, found)
    try:
        part.replace(file)
    except OSError as error:
        raise cannot_write(file, error) from error
    return PullReport(model.name, file, found.bytes, found.sha256, first is None)


def _target(model: PublishedModel, output: Path | None) -> Path:
    if output is None:
        return Path(f"{model.name}.pth")
    return output if output.suffix in SUFFIXES and not output.is_dir() else output / f"{model.name}.pth"


def _locate(model: PublishedModel, mirror: str | None) -> str | Path:
    if mirror is not None and "://" in mirror and not mirror.lower().startswith("file:"):
        if urlsplit(plain(mirror)).path.endswith(SUFFIXES):
            return mirror
        if model.file:
            return mirror.rstrip("/") + urlsplit(WEIGHTS).path + model.file
    elif mirror is not None:
        folder = Path(unquote(urlsplit(mirror).path)) if "://" in mirror else Path(mirror).expanduser()
        if folder.is_file():
            return folder
        known = [folder / name for name in (f"{model.name}.pth", model.file or f"{model.name}.safetensors")]
        here = next((file for file in known if file.is_file()), known[0])
        return existing_file(here, f"the weights of {model.name}", "Put the file there, or name another --mirror.")
    elif model.file:
        return WEIGHTS + model.file
    raise SourceUnavailableError(
        f"No published weights of {model.name} are known ({model.note}). If you have them, export them with "
        f"--preset {model.name}."
    )


def _copy(source: Path, part: Path, progress: Progress) -> str:
    total, done = source.stat().st_size, 0
    with source.open("rb") as stream, part.open("wb") as out:
        while block := stream.read(CHUNK):
            out.write(block)
            done += len(block)
            progress(done, total)
    return ""


def _check(part: Path, found: Record, stated: str, first: Record | None, file: Path) -> None:
    if stated and stated != found.sha256:
        raise DataError(f"What came from {found.source} has not the SHA-256 that the server states. Try again.")
    if first is not None and (first.bytes, first.sha256) != (found.bytes, found.sha256):
        raise DataError(
            f"What came from {found.source} is not what was fetched before: '{record_path(file)}' says "
            f"{first.bytes} bytes and SHA-256 {first.sha256[:12]}..., got {found.bytes} and {found.sha256[:12]}.... "
            "Delete that record to take the new file."
        )
    try:
        read_checkpoint(part)
    except (DataError, NotTrustedError) as error:
        raise type(error)(f"What came from {found.source} was deleted. {error}") from error
