"""The bundled checkpoint, exported without torch, computes what PyTorch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from trt_blendmask.bundled import CHECKPOINT, CONFIG
from trt_blendmask.export import export_onnx

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "conveyor_heads.npz"


def test_heads_equal_pytorch(tmp_path: Path) -> None:
    golden = dict(np.load(GOLDEN))
    report = export_onnx(CHECKPOINT, CONFIG, tmp_path / "raw.onnx", golden["image"].shape[:2])
    planes = (golden.pop("image") - np.array(report.spec.pixel_mean, np.float32)).transpose(2, 0, 1)[None]
    session = onnxruntime.InferenceSession(str(report.output), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    got = dict(zip(names, session.run(names, {"input_image": planes}), strict=True))
    got["P3top_feats"] = got["P3top_feats"][..., ::8]
    assert set(names) == set(golden)
    for name, expected in golden.items():
        error = np.abs(got[name] - expected) / np.maximum(1, np.abs(expected))
        assert error.max() <= 1e-4, name
