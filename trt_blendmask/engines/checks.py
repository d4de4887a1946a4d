"""What must hold before TensorRT sees a byte of an engine. Nothing here knows TensorRT."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from trt_blendmask.engines.device import Device
from trt_blendmask.engines.passport import check_private, matching_passport, passport_path, read_passport, recorded_onnx
from trt_blendmask.engines.plugin import Plugin, find_plugin
from trt_blendmask.errors import (
    DataError,
    InputMissingError,
    NotTrustedError,
    SourceUnavailableError,
    UsageError,
)
from trt_blendmask.export.sniff import ENGINES, describe
from trt_blendmask.files import existing_file
from trt_blendmask.structures import EngineInfo, is_sha256

_HINT = "Build it: trt-blendmask build MODEL.onnx -o F.engine"
_AMPERE = (8, 0)  # where the engines that run on several kinds of GPU begin


@dataclass(frozen=True)
class Plan:
    """The bytes of an engine, whose hash was taken of these very bytes.

    Attributes:
        info: its passport; None where the user vouched for the hash and there is none.
    """

    path: Path
    content: bytes
    sha256: str
    info: EngineInfo | None


def read_plan(path: str | os.PathLike[str], trust: str = "") -> Plan:
    """Read an engine once, and find the passport that is of these bytes.

    Args:
        trust: the hash of an engine that the user vouches for: it needs no passport, and its owner does not matter.

    Raises:
        InputMissingError: no such file.
        DataError: no engine, or its passport is damaged or of another one.
        NotTrustedError: no passport, another hash than `trust`, or others could have written one of the two files.
        UsageError: `trust` is no sha256.
    """
    if trust and not is_sha256(trust.lower()):
        raise UsageError(f"Expected a sha256 to trust, 64 hex digits, got '{trust:.80}'. Type: sha256sum ENGINE")
    file = existing_file(path, "an engine", _HINT)
    seen: os.stat_result | None = None
    while True:
        content, status = _read(file, private=not trust)
        if seen is not None and os.path.samestat(seen, status):
            raise _other_plan(file, len(content))
        seen = status  # if the passport is of another plan, a build may have put another pair in place meanwhile
        sha256 = hashlib.sha256(content).hexdigest()
        if trust and sha256 != trust.lower():
            raise NotTrustedError(
                f"Expected the engine with the sha256 {trust.lower()} that you trust, but that of '{file}' is "
                f"{sha256}. Take the other engine, or leave the hash out."
            )
        try:
            info = matching_passport(file, sha256, private=not trust)
        except InputMissingError:
            if passport_path(file).exists():  # but cannot be read
                raise
            _check_magic(file, content)
            if not trust:
                raise _no_passport(file) from None
            return Plan(file, content, sha256, None)
        if info is not None:
            return Plan(file, content, sha256, info)


def check_device(info: EngineInfo, device: Device, path: Path) -> None:
    """Refuse an engine that was built for other GPUs than this one.

    Raises:
        DataError: it was.
    """
    here = _numbers(device.compute_capability)
    targets = _targets(info)
    since_ampere = info.options.get("hardware_compatible") == "ampere+" or (info.flavor == "rtx" and not targets)
    if here in targets or (since_ampere and here >= _AMPERE) or (not targets and not since_ampere):
        return
    built = "8.0 and later" if since_ampere else ", ".join(f"{major}.{minor}" for major, minor in targets)
    on = f" on a {info.device_name}" if info.device_name else ""
    raise DataError(
        f"Expected an engine for this GPU, {device.name} of compute capability {device.compute_capability}, but "
        f"'{path}' was built for {built}{on}. {rebuild_hint(path, info)}"
    )


def check_plugin(info: EngineInfo, path: Path) -> Plugin | None:
    """The plugin library that the engine needs, which must be the one that it was built with; None if it needs none.

    Raises:
        DataError: there is another one.
        InputMissingError, NotTrustedError: as `find_plugin`.
    """
    if not info.plugin_sha256 or info.options.get("embed_plugin"):
        return None
    plugin = find_plugin()
    if plugin.sha256 != info.plugin_sha256:
        raise DataError(
            f"Expected the plugin library that '{path}' was built with (sha256 {info.plugin_sha256[:12]}...), but "
            f"'{plugin.path}' is another ({plugin.sha256[:12]}...). {rebuild_hint(path, info)}"
        )
    return plugin


def no_device(path: Path, info: EngineInfo | None) -> SourceUnavailableError:
    """The sentence for an engine on a machine without a GPU."""
    onnx = recorded_onnx(info, path) if info else None
    model = shlex.quote(str(onnx)) if onnx and onnx.is_file() else "MODEL.onnx"
    return SourceUnavailableError(
        f"Expected an NVIDIA GPU to run the engine '{path}', but the driver shows none; trt-blendmask doctor says why. "
        f"Without one, run the ONNX: trt-blendmask predict {model} IMAGE -o predictions"
    )


def rebuild_hint(path: Path, info: EngineInfo | None) -> str:
    """What to type for an engine that fits this machine."""
    if info is None:
        return f"Build it here: trt-blendmask build MODEL.onnx -o {shlex.quote(str(path))}"
    model, engine = shlex.quote(str(recorded_onnx(info, path))), shlex.quote(str(path))
    return f"Build it again: add --rebuild, or type trt-blendmask build {model} -o {engine}"


def _read(file: Path, private: bool) -> tuple[bytes, os.stat_result]:
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if private:
                check_private(file, status)
            return stream.read(), status
    except OSError as error:
        raise InputMissingError(f"Cannot read '{file}': {error.strerror or error}. Check the disk.") from error


def _targets(info: EngineInfo) -> tuple[tuple[int, int], ...]:
    """The compute capabilities that the passport names; none: those that the flavor builds for by default."""
    asked = info.options.get("compute_capability") or ()
    named = [info.compute_capability] if info.flavor == "tensorrt" or "current" in asked else asked
    return tuple(_numbers(text) for text in named if re.fullmatch(r"\d+\.\d", str(text)))


def _numbers(capability: str) -> tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)


def _no_passport(file: Path) -> NotTrustedError:
    return NotTrustedError(
        f"Expected the passport '{passport_path(file)}' beside the engine, but there is none, and an engine runs code "
        f"as who loads it. Copy it too, or compare sha256sum {shlex.quote(str(file))} with what its builder got and "
        "add --trust-engine SHA256"
    )


def _check_magic(file: Path, content: bytes) -> None:
    kind = describe(content[:512])
    if kind not in ENGINES:
        raise DataError(
            f"Expected an engine, but '{file}' is {kind}. If it is a model, build its engine: "
            f"trt-blendmask build {shlex.quote(str(file))} -o F.engine"
        )


def _other_plan(file: Path, size: int) -> DataError:
    info = read_passport(passport_path(file))
    came = (
        f"it has {size} bytes, not {info.plan_bytes}: it was cut short or is another one"
        if size != info.plan_bytes
        else "its bytes are others: it was damaged or is another one"
    )
    return DataError(
        f"Expected in '{file}' the engine of its passport (sha256 {info.plan_sha256[:12]}...), but {came}. "
        f"{rebuild_hint(file, info)}"
    )
