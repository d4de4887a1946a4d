"""The passport of an engine: `F.engine.json` beside `F.engine`, which stays a plain plan that trtexec reads.

A passport holds for one plan, by its hash, and is sealed: one that was changed since it was written is refused.
That is a guard against damage and mistakes; against people guard the permissions of both files (`check_private`).

A plan and its passport are two files, and no file system renames two at once. So a new passport first waits beside the
old one as `F.engine.json.new`, then the plan is renamed, then the passport. Whatever moment the process is killed at,
the plan that lies there has its passport beside it, under one name or the other.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
from contextlib import suppress
from pathlib import Path

from trt_blendmask.engines.lock import locked
from trt_blendmask.engines.options import BuildOptions
from trt_blendmask.errors import DataError, InputMissingError, NotTrustedError, TrtBlendMaskError
from trt_blendmask.files import existing_file, file_sha256, put_in_place, temporary_beside
from trt_blendmask.structures import EngineInfo

OWNER_WRITES = 0o644  # less the umask: who can write an engine runs code as who loads it
MAX_BYTES = 1 << 22
_SEAL, _END = b',\n "passport_sha256": "', b"\n}\n"
_REBUILD = "Build the engine again: trt-blendmask build MODEL.onnx -o"


def passport_path(engine: str | os.PathLike[str]) -> Path:
    """Where the passport of `engine` lies; links are followed, because plan and passport stay together."""
    real = Path(os.path.realpath(engine))
    return real.with_name(f"{real.name}.json")


def waiting_path(engine: str | os.PathLike[str]) -> Path:
    """Where a passport waits while its plan is put in place."""
    passport = passport_path(engine)
    return passport.with_name(f"{passport.name}.new")


def read_passport(path: Path, private: bool = False) -> EngineInfo:
    """The passport in the file `path` (of JSON).

    Args:
        private: refuse one that others could have written.

    Raises:
        InputMissingError: no such file.
        DataError: no passport, or changed since it was written.
        NotTrustedError: as `check_private`.
    """
    engine = shlex.quote(str(path).removesuffix(".new").removesuffix(".json"))
    file = existing_file(path, "the passport of an engine", f"{_REBUILD} {engine}")
    try:
        with file.open("rb") as stream:
            if private:
                check_private(path, os.fstat(stream.fileno()))
            content = stream.read(MAX_BYTES)
    except OSError as error:
        raise InputMissingError(f"Cannot read '{path}': {error.strerror or error}. Check the disk.") from error
    text = content.rpartition(_SEAL)[0] + _END
    if content != _sealed(text):
        raise DataError(
            f"Expected in '{path}' the passport of an engine as 'build' wrote it, but it is none, or was changed or "
            f"damaged since. {_REBUILD} {engine}"
        )
    try:
        info = EngineInfo.from_json(text.decode(errors="replace"))
        BuildOptions.from_recorded(info.options, info.flavor)  # one that is not known may change what the engine needs
        return info
    except DataError as error:
        raise DataError(f"The passport '{path}' is of another version of trt-blendmask. {_REBUILD} {engine}") from error


def publish(plan: Path, info: EngineInfo, engine: str | os.PathLike[str]) -> None:
    """Put `plan`, a finished file in the folder of `engine`, in the place of `engine`, with `info` as its passport.

    Killed at any moment, this leaves the old engine or the new one, each with its own passport; see above.

    Raises:
        OutputError: a file cannot be written.
    """
    real, passport, waiting = Path(os.path.realpath(engine)), passport_path(engine), waiting_path(engine)
    with temporary_beside(passport) as temporary, locked(temporary), locked(real.parent):
        _finish_earlier(real)
        temporary.write_bytes(_sealed(info.to_json().encode()))
        put_in_place(temporary, waiting, OWNER_WRITES)
        put_in_place(plan, real, OWNER_WRITES)
        put_in_place(waiting, passport, OWNER_WRITES)


def amend(info: EngineInfo, engine: str | os.PathLike[str]) -> None:
    """Replace the passport of `engine` by `info`, if the plan of `info` still lies there.

    Raises:
        OutputError: it cannot be written.
    """
    real, passport = Path(os.path.realpath(engine)), passport_path(engine)
    with temporary_beside(passport) as temporary, locked(temporary), locked(real.parent):
        temporary.write_bytes(_sealed(info.to_json().encode()))
        if file_sha256(real) == info.plan_sha256:
            put_in_place(temporary, passport, OWNER_WRITES)


def _finish_earlier(engine: Path) -> None:
    """Put the passport in place that a killed process left waiting, before another one waits there."""
    waiting = waiting_path(engine)
    with suppress(TrtBlendMaskError, OSError):
        if read_passport(waiting, private=True).plan_sha256 == file_sha256(engine):
            put_in_place(waiting, passport_path(engine), OWNER_WRITES)


def matching_passport(engine: str | os.PathLike[str], plan_sha256: str, private: bool = True) -> EngineInfo | None:
    """The passport of the plan with that hash, from either place; None if both are of other plans.

    Args:
        private: as of `read_passport`.

    Raises:
        InputMissingError: there is no passport.
        DataError, NotTrustedError: as `read_passport`, of the one that lies in its own place.
    """
    waiting = waiting_path(engine)
    with suppress(DataError, InputMissingError, NotTrustedError):
        info = read_passport(waiting, private)
        if info.plan_sha256 == plan_sha256:
            return info
    info = read_passport(passport_path(engine), private)
    return info if info.plan_sha256 == plan_sha256 else None


def check_private(path: Path, status: os.stat_result | None = None) -> None:
    """Refuse a file that others could have written: engines and plugins are code, and run as who loads them.

    Args:
        status: of the opened file, where it is open; else that of the path.

    Raises:
        InputMissingError: no such file.
        NotTrustedError: of another owner than this user or root, or writable by the group or by all.
    """
    typed = shlex.quote(str(path))
    try:
        status = path.stat() if status is None else status
    except OSError as error:
        raise InputMissingError(f"Cannot reach '{path}': {error.strerror or error}.") from error
    if status.st_uid not in (0, os.geteuid()):
        raise NotTrustedError(
            f"Expected '{path}' to be yours or root's, but user {status.st_uid} owns it, and an engine runs code as "
            f"who loads it. If you trust it: cp {typed} somewhere of yours"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        who = "everybody" if status.st_mode & stat.S_IWOTH else "its group"
        raise NotTrustedError(
            f"Expected that only you can write '{path}', but {who} can, and an engine runs code as who loads it. If "
            f"nobody has: chmod go-w {typed}"
        )


def as_recorded(onnx: Path, engine: Path) -> str:
    """How a passport names `onnx`: from the engine's folder if it lies in or under it, so that both can move."""
    source, folder = Path(os.path.realpath(onnx)), Path(os.path.realpath(engine)).parent
    return str(source.relative_to(folder)) if source.is_relative_to(folder) else str(source)


def recorded_onnx(info: EngineInfo, engine: Path) -> Path:
    """Where the ONNX file that `engine` was built from should lie."""
    return Path(os.path.realpath(engine)).parent / info.onnx_path


def _sealed(text: bytes) -> bytes:
    """JSON with its own hash as the last entry, so that damage shows before anything is parsed."""
    return text.removesuffix(_END) + _SEAL + hashlib.sha256(text).hexdigest().encode() + b'"' + _END
