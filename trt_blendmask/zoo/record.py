"""What a file was when it was first fetched, beside it as `<file>.json`, so that a change is noticed later."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from trt_blendmask.errors import DataError
from trt_blendmask.files import atomic_output, file_sha256

MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Record:
    """Of one fetched file: the model's name, the address without credentials, size and SHA-256."""

    name: str
    source: str
    bytes: int
    sha256: str


def record_path(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def read_record(file: Path) -> Record | None:
    """The record beside `file`; None where there is none, or something else of that name.

    Raises:
        DataError: it says that it is one, but is damaged.
    """
    path = record_path(file)
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or "sha256" not in values:
        return None
    try:
        record = Record(**values)
        if any(type(getattr(record, f.name)) is not (int if f.name == "bytes" else str) for f in fields(Record)):
            raise TypeError
    except TypeError as error:
        raise DataError(f"The record '{path}' is damaged. Delete it if you trust '{file}'.") from error
    return record


def write_record(file: Path, record: Record) -> None:
    """Raises OutputError if it cannot be written."""
    with atomic_output(record_path(file)) as temporary:
        temporary.write_text(json.dumps(asdict(record), indent=1) + "\n", "utf-8")


def check_record(file: Path) -> None:
    """Compare a file with the record beside it, if there is one.

    Raises:
        DataError: it is not what was fetched.
    """
    record = read_record(file) if file.is_file() else None
    if record is not None and (file.stat().st_size != record.bytes or file_sha256(file) != record.sha256):
        raise DataError(
            f"'{file}' is not the file that was fetched from {record.source} ('{record_path(file)}' has another size "
            "or SHA-256). Delete both and fetch it again, or delete the record if you changed the file."
        )
