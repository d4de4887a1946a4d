"""Artefacts that need no network to be made: an engine that is none, its passport, a table."""

from __future__ import annotations

import hashlib
from pathlib import Path

from trt_blendmask.engines.passport import passport_path, publish
from trt_blendmask.structures import CalibrationTable, EngineInfo, ModelSpec, TensorSpec

PLAN = b"vtrt" + bytes(range(256)) * 8  # begins as a plan of TensorRT-RTX does; nothing in it runs
SPEC = ModelSpec("deployable", ("part",), (128, 160), (8,), num_bases=4, attention_size=3, tail="native")


def hand_made_engine(engine: Path, spec: ModelSpec = SPEC, onnx: Path | None = None) -> EngineInfo:
    """Write `PLAN` to `engine`, with a passport that says it was built from the file `onnx` beside it."""
    info = EngineInfo(
        plan_sha256=hashlib.sha256(PLAN).hexdigest(),
        plan_bytes=len(PLAN),
        onnx_sha256=hashlib.sha256(onnx.read_bytes() if onnx else b"").hexdigest(),
        onnx_path=onnx.name if onnx else "model.onnx",
        flavor="rtx",
        tensorrt_version="1.7.1.116",
        inputs=(TensorSpec("images", "uint8", (1, 128, 160, 3)),),
        outputs=(TensorSpec("count", "int32", (1,)),),
        spec=spec,
        built_at="2026-01-31T12:00:00+00:00",
        build_seconds=12.5,
        options={"opt_level": 3},
    )
    plan = engine.with_suffix(".made")
    plan.write_bytes(PLAN)
    publish(plan, info, engine)
    return info


def artefacts(folder: Path) -> dict[str, bytes]:
    """Small files by name."""
    engine = folder / "model.engine"
    hand_made_engine(engine)
    table = CalibrationTable("0" * 64, "mse", {"images": 1.5, "backbone.stem": 7.25}, ("1" * 64,), {"numpy": "2.0.0"})
    passport = passport_path(engine)
    return {file.name: file.read_bytes() for file in (engine, passport)} | {"table.json": table.to_json().encode()}
