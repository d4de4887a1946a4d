"""An engine and its passport. A plan is a program: it is hashed and never opened; what is told is in the passport."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trt_blendmask.engines.passport import (
    check_private,
    passport_path,
    read_passport,
    recorded_onnx,
    waiting_path,
)
from trt_blendmask.errors import DataError, NotTrustedError, TrtBlendMaskError
from trt_blendmask.export.sniff import ENGINES
from trt_blendmask.files import file_sha256
from trt_blendmask.inspect.findings import Findings
from trt_blendmask.layout import amount
from trt_blendmask.structures import EngineInfo
from trt_blendmask.surgery.part_rows import PartRow

_SUFFIXES = (".engine", ".plan", ".trt")
_FLAVORS = {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}
_BUILD = "trt-blendmask build MODEL.onnx -o"


@dataclass(frozen=True)
class _Passport:
    """`state`: "matches", "other plan", "missing", "damaged"; `info` where it could be read."""

    state: str
    place: Path
    info: EngineInfo | None = None


def may_be_plan(file: Path) -> bool:
    """Whether a file of unknown content is meant to be one."""
    return file.suffix in _SUFFIXES or passport_path(file).is_file()


def inspect_engine(file: Path, looks: str) -> Findings:
    """Tell what its passport says of the plan `file`; `looks`: what its first bytes are."""
    sha256, size = file_sha256(file), file.stat().st_size
    passport = _find_passport(file, sha256)
    notes = [*_of_passport(passport, file, sha256), *_of_permissions(file)]
    if looks not in ENGINES:
        notes.append(f"Its first bytes are those of {looks}, not of an engine: it may be damaged.")
    info = passport.info if passport.state == "matches" else None
    made_by = f"{_FLAVORS[info.flavor]} {info.tensorrt_version}" if info else _maker(looks)
    parts, found = _parts(info, file) if info else ((), "")
    return Findings(
        file,
        "engine",
        f"an engine of {made_by}, {amount(size, 'B')}, {_STATES[passport.state]}",
        size,
        sha256,
        facts=(("passport", str(passport.place)), *_facts(info, found)) if info else (),
        inputs=info.inputs if info else (),
        outputs=info.outputs if info else (),
        parts=parts,
        spec=info.spec if info else None,
        details=_details(passport),
        notes=tuple(notes),
        next=f"trt-blendmask run {shlex.quote(str(file))} SOURCE" if info else "",
    )


def inspect_passport(file: Path) -> Findings:
    """Tell what the passport `file` says, and whether its engine lies beside it.

    Raises:
        DataError: damaged, or changed since it was written.
    """
    info = read_passport(file)
    engine = Path(str(file).removesuffix(".new").removesuffix(".json"))
    state, notes = "missing", [f"Its engine is not beside it: expected '{engine}'."]
    if engine != file and engine.is_file():
        with suppress(OSError):
            state = "matches" if file_sha256(engine) == info.plan_sha256 else "other plan"
        notes = [] if state == "matches" else [f"'{engine}' is another engine: this passport does not hold for it."]
    parts, found = _parts(info, engine)
    return Findings(
        file,
        "passport",
        f"the passport of an engine of {_FLAVORS[info.flavor]} {info.tensorrt_version}",
        file.stat().st_size,
        file_sha256(file),
        facts=(("engine", f"{engine}, {amount(info.plan_bytes, 'B')}, {info.plan_sha256}"), *_facts(info, found)),
        inputs=info.inputs,
        outputs=info.outputs,
        parts=parts,
        spec=info.spec,
        details=_details(_Passport(state, file, info)),
        notes=tuple(notes),
        next=f"trt-blendmask inspect {shlex.quote(str(engine))}" if state == "matches" else "",
    )


_STATES = {
    "matches": "as its passport says",
    "other plan": "not the one of its passport",
    "missing": "without a passport",
    "damaged": "with a damaged passport",
}


def _find_passport(engine: Path, sha256: str) -> _Passport:
    waiting, place = waiting_path(engine), passport_path(engine)
    with suppress(TrtBlendMaskError):
        info = read_passport(waiting)
        if info.plan_sha256 == sha256:
            return _Passport("matches", waiting, info)
    if not place.exists():
        return _Passport("missing", place)
    try:
        info = read_passport(place)
    except TrtBlendMaskError:
        return _Passport("damaged", place)
    return _Passport("matches" if info.plan_sha256 == sha256 else "other plan", place, info)


def _of_passport(passport: _Passport, file: Path, sha256: str) -> list[str]:
    if passport.state == "matches":
        return []
    says = {
        "missing": f"It has no passport ('{passport.place}')",
        "damaged": f"Its passport '{passport.place}' is damaged or was changed",
        "other plan": f"Its passport '{passport.place}' is that of another engine, or the engine is damaged",
    }
    return [
        f"{says[passport.state]}, so nothing more can be told: an engine is a program that runs as who loads it, and "
        f"is not opened to look. Build your own: {_BUILD} {shlex.quote(str(file))}; or, if you trust whom it is from, "
        f"run it with --trust-engine {sha256}"
    ]


def _of_permissions(file: Path) -> list[str]:
    try:
        check_private(file)
    except NotTrustedError as error:
        return [str(error)]
    return []


def _maker(looks: str) -> str:
    return {ENGINES[0]: "TensorRT", ENGINES[1]: "TensorRT-RTX"}.get(looks, "an unknown maker")


def _parts(info: EngineInfo, engine: Path) -> tuple[tuple[PartRow, ...], str]:
    """The parts of the ONNX that it was built from, if that still lies there unchanged, and in words where it is."""
    from trt_blendmask.inspect.onnx_file import inspect_onnx

    source = recorded_onnx(info, engine)
    try:
        if not source.is_file():
            return (), f"{source}, which is not there now"
        if file_sha256(source) != info.onnx_sha256:
            return (), f"{source}, which has changed since"
        return inspect_onnx(source).parts, f"{source}, unchanged: its parts are below"
    except (DataError, OSError, ValueError):
        return (), f"{source}, which cannot be read"


def _facts(info: EngineInfo, source: str) -> list[tuple[str, str]]:
    where = [info.device_name, f"compute capability {info.compute_capability}" if info.compute_capability else ""]
    where += [f"driver {info.driver}" if info.driver else "", f"CUDA {info.cuda_version}" if info.cuda_version else ""]
    options = ", ".join(f"{key} {value}" for key, value in info.options.items())
    facts = [
        ("built", f"{info.built_at} in {info.build_seconds:.1f} s"),
        ("built on", ", ".join(filter(None, where)) or "a machine without a GPU"),
        ("built from", source),
        ("options", options or "none"),
        ("plugin", info.plugin_sha256 or "none"),
        ("calibration", info.table_sha256 or "none"),
        ("parity", info.parity or "not compared on a GPU"),
    ]
    return [(label, words) for label, words in facts if words != "none"]


def _details(passport: _Passport) -> dict[str, Any]:
    info = asdict(passport.info) if passport.info is not None else None
    for key in ("inputs", "outputs", "spec"):
        if info is not None:
            del info[key]
    return {"passport": passport.state, "passport_path": str(passport.place), "info": info}
