"""The passport's data: written and read back equal, and nothing out of range is taken."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.engines.fake_runtime import info_of, plan_of
from trt_blendmask.errors import DataError
from trt_blendmask.structures import EngineInfo, TensorSpec

INFO = info_of(plan_of(), options={"opt_level": 3, "profile": [1, 2, 4]}, table_sha256="a" * 64, parity="equal")


def test_there_and_back() -> None:
    assert EngineInfo.from_json(INFO.to_json()) == INFO
    assert json.loads(INFO.to_json())["spec"]["class_names"] == ["rod", "clip"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("plan_sha256", ""),
        ("plan_sha256", "A" * 64),
        ("onnx_sha256", "0" * 63),
        ("plugin_sha256", "x"),
        ("table_sha256", None),
        ("plan_bytes", 0),
        ("plan_bytes", True),
        ("plan_bytes", 1.0),
        ("flavor", "trt"),
        ("tensorrt_version", "10"),
        ("tensorrt_version", "10.3.0.26.1"),
        ("tensorrt_version", "\u0661\u0660.3"),
        ("compute_capability", "8.75"),
        ("compute_capability", "sm87"),
        ("built_at", "yesterday"),
        ("built_at", "2026-01-31T12:00:00+01:00"),
        ("build_seconds", -1),
        ("build_seconds", math.nan),
        ("build_seconds", math.inf),
        ("onnx_path", None),
        ("options", []),
        ("inputs", ()),
        ("outputs", (TensorSpec("masks", "float32", (1, -2)),)),
    ],
)
def test_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(DataError, match=rf"EngineInfo\.{name} must be"):
        info_of(plan_of(), **{name: value})


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "[" * 100_000, INFO.to_json().replace("rtx", "x")[:-3]])
def test_what_is_no_passport(text: str) -> None:
    with pytest.raises(DataError, match="Expected the passport of an engine"):
        EngineInfo.from_json(text)


def test_keys_of_another_version() -> None:
    for changed in ({"new": 1}, {"spec": {}}, {"inputs": [{"name": "images"}]}, {"inputs": 1}):
        with pytest.raises(DataError):
            EngineInfo.from_json(json.dumps({**json.loads(INFO.to_json()), **changed}))
