"""Does an engine find what its ONNX finds? Answered after a build, where there is a GPU to run the engine."""

from __future__ import annotations

from pathlib import Path

SCENES = 4


def measure(engine: Path, onnx: Path) -> str:
    """The same synthetic scenes through `engine` on the GPU and through `onnx` in ONNX Runtime, compared in words.

    A model that was trained on other things finds little in them; the words say how many objects were compared.

    Raises:
        as `trt_blendmask.load` and a call of the model.
    """
    from trt_blendmask.agreement import compare_detections
    from trt_blendmask.runtime.model import load
    from trt_blendmask.synthetic import render_scene

    frames = [render_scene(1, index).image for index in range(SCENES)]
    with load(onnx, "cpu") as model:
        expected = [model(frame) for frame in frames]
    with load(engine, "gpu") as model:
        found = [model(frame) for frame in frames]
    return (
        f"{SCENES} synthetic scenes, ONNX Runtime against the engine: {compare_detections(expected, found).sentence()}"
    )
