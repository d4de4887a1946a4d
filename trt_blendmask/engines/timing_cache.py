"""What TensorRT measured of its kernels, kept so that the next build need not: one file, an entry per GPU and version.

TensorRT parses such bytes and checks little of them, so the file is hashed: what was damaged never gets there.

    trt_blendmask timing cache 1
    <sha256 of all that follows, in hexadecimal>
    <JSON: [{"key": ..., "bytes": ...}, ...]>
    <the entries, one after the other, as TensorRT serialised them>
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trt_blendmask.engines.lock import hold
from trt_blendmask.engines.passport import OWNER_WRITES, check_private
from trt_blendmask.errors import DataError, TrtBlendMaskError
from trt_blendmask.files import put_in_place, temporary_beside

_MAGIC = b"trt_blendmask timing cache 1\n"
_MAX_BYTES = 1 << 28


@dataclass
class TimingCache:
    """The timings of one build.

    Attributes:
        path: the file; read, and added to. seed: another one, only read, for what `path` does not have.
        key: of the entry: flavor, version and GPU. note: tells the user what is wrong with a file.
    """

    path: Path
    key: str
    seed: Path | None
    note: Callable[[str], None]
    _begun_with: bytes = field(default=b"", init=False)

    def attach(self, config: Any) -> Any:
        """Give a builder config what is known; returns the library's cache, which must live as long as the build."""
        self._begun_with = _entry(self.path, self.key, self.note)
        cache = _made(config, self._begun_with)
        more = _entry(self.seed, self.key, self.note) if self.seed else b""
        if more:
            cache.combine(_made(config, more), False)
        elif self.seed:
            self.note(f"'{self.seed}' has no timings for {self.key}: the build goes without them.")
        if not config.set_timing_cache(cache, False):
            self.note(f"The timings in '{self.path}' are of another GPU: ignored.")
            cache = _made(config, b"")
            config.set_timing_cache(cache, False)
        return cache

    def save(self, config: Any, cache: Any) -> None:
        """Add what was measured; what other processes wrote meanwhile stays. A file that was damaged moves to F.bad."""
        try:
            with hold(self.path.with_name(f"{self.path.name}.lock")):
                entries = _usable(self.path)
                latest = entries.get(self.key, b"")
                if latest and latest != self._begun_with:
                    cache.combine(_made(config, latest), False)
                entries[self.key] = bytes(cache.serialize())
                _write(self.path, entries)
        except TrtBlendMaskError as error:
            self.note(f"The timings are lost for the next build: {error}")


def read_entries(path: Path) -> dict[str, bytes]:
    """The entries of the file by key; none where there is no file.

    Raises:
        DataError: it is damaged, of another kind, or cannot be read.
        NotTrustedError: others could have written it.
    """
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for its writer
            raise DataError(f"'{path}' is a folder, a pipe or a device.")
        with path.open("rb") as stream:
            check_private(path, os.fstat(stream.fileno()))
            content = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    try:
        magic, seal, rest = content[: len(_MAGIC)], content[len(_MAGIC) :][:65], content[len(_MAGIC) + 65 :]
        if magic != _MAGIC or seal.decode() != f"{hashlib.sha256(rest).hexdigest()}\n":
            raise ValueError
        header, _, payload = rest.partition(b"\n")
        entries, at = {}, 0
        for row in json.loads(header):
            entries[str(row["key"])] = payload[at : at + row["bytes"]]
            at += row["bytes"]
        return entries
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"'{path}' is damaged, or no timing cache of ours.") from error


def _entry(path: Path, key: str, note: Callable[[str], None]) -> bytes:
    try:
        return read_entries(path).get(key, b"")
    except TrtBlendMaskError as error:
        note(f"{error} It is ignored: this build measures anew.")
        return b""


def _usable(path: Path) -> dict[str, bytes]:
    try:
        return read_entries(path)
    except TrtBlendMaskError:
        with suppress(OSError):  # then it is overwritten
            path.replace(path.with_name(f"{path.name}.bad"))
        return {}


def _write(path: Path, entries: dict[str, bytes]) -> None:
    rows = [{"key": key, "bytes": len(payload)} for key, payload in entries.items()]
    rest = json.dumps(rows).encode() + b"\n" + b"".join(entries.values())
    with temporary_beside(path) as temporary:
        temporary.write_bytes(_MAGIC + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)
        put_in_place(temporary, Path(os.path.realpath(path)), OWNER_WRITES)


def _made(config: Any, payload: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorRT-RTX times nothing, and calls its own functions deprecated
        return config.create_timing_cache(payload) or config.create_timing_cache(b"")
