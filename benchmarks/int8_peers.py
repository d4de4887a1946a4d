"""INT8 files by the tools that people would else take: ONNX Runtime's quantize_static and ModelOpt's ONNX PTQ.

Each places Q/DQ as it sees fit, but only where we do, too: selection, predictors, sparse top and blender are excluded,
as their users would have to find out. Weights per channel, activations symmetric INT8, as TensorRT wants them. All
else is left at the tool's defaults.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from trt_blendmask.calibrate.network import cut
from trt_blendmask.quantize.files import Deployable, read_deployable
from trt_blendmask.quantize.plan import read_plan
from trt_blendmask.runtime.images import read_image
from trt_blendmask.runtime.letterbox import Letterboxer
from trt_blendmask.structures import METADATA_KEY, ModelSpec

ORT_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
MODELOPT_METHODS = ("max", "entropy")
_MULTIPLIES = {"Conv", "DeformConv", "MatMul", "Gemm"}

# Run by the Python that has ModelOpt: it needs another onnx than we do, and PyTorch.
_MODELOPT = """
import sys
import numpy as np
from modelopt.onnx.quantization import quantize
model, output, method, images, excluded = sys.argv[1:]
quantize(
    model,
    quantize_mode="int8",
    calibration_data={"images": np.load(images)},
    calibration_method=method,
    calibration_eps=["cpu"],
    nodes_to_exclude=open(excluded).read().split("\\n"),
    high_precision_dtype="fp32",
    output_path=output,
    log_level="ERROR",
)
"""


def letterboxed(spec: ModelSpec, files: Sequence[Path]) -> Iterator[npt.NDArray[np.uint8]]:
    """The network's input for each picture, uint8 [1, H, W, 3]."""
    letterboxer = Letterboxer(spec)
    for file in files:
        yield letterboxer(read_image(file))[0].copy()


def by_onnxruntime(model: Path, files: Sequence[Path], method: str, output: Path) -> None:
    """Write `output` by quantize_static with one of `ORT_METHODS`."""
    source = read_deployable(model)
    trunk, excluded = cut_trunk(source.model)
    with tempfile.TemporaryDirectory() as folder:
        quantised = Path(folder) / "quantised.onnx"
        quantize_static(
            trunk,
            quantised,
            _Reader(letterboxed(source.spec, files)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
            calibrate_method=ORT_METHODS[method],
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )
        _put_back(onnx.load(quantised), source, output)


def by_modelopt(model: Path, files: Sequence[Path], method: str, output: Path, python: Path) -> None:
    """Write `output` with one of `MODELOPT_METHODS`.

    Raises:
        RuntimeError: ModelOpt failed; its last line.
    """
    source = read_deployable(model)
    trunk, names = cut_trunk(source.model)
    with tempfile.TemporaryDirectory() as folder:
        images, excluded, plain, quantised = (
            Path(folder) / name for name in ("images.npy", "excluded.txt", "model.onnx", "quantised.onnx")
        )
        np.save(images, np.concatenate(list(letterboxed(source.spec, files))))
        excluded.write_text("\n".join(f"^{re.escape(name)}$" for name in names))
        onnx.save(trunk, plain)
        arguments = [str(plain), str(quantised), method, str(images), str(excluded)]
        done = subprocess.run([str(python), "-c", _MODELOPT, *arguments], capture_output=True, text=True, check=False)
        if done.returncode or not quantised.is_file():
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise RuntimeError(lines[-1])
        _put_back(onnx.load(quantised), source, output)


def cut_trunk(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The dense network alone, and the names of its convolutions that we leave float."""
    inside = _trunk_nodes(model)
    trunk = [node for node in model.graph.node if node.name in inside]
    rest = [node for node in model.graph.node if node.name not in inside]
    made = {name for node in trunk for name in node.output}
    ends = dict.fromkeys(name for node in rest for name in node.input if name in made)
    ours = {layer.name for layer in read_plan(model).layers}
    return cut(model, tuple(ends)), [n.name for n in trunk if n.op_type in _MULTIPLIES and n.name not in ours]


def _trunk_nodes(model: onnx.ModelProto) -> set[str]:
    needed, inside = set(read_plan(model).end), set()
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            inside.add(node.name)
    return inside


def _put_back(trunk: onnx.ModelProto, source: Deployable, output: Path) -> None:
    """Write the model with its dense network replaced."""
    whole, inside = source.model, _trunk_nodes(source.model)
    own = {tensor.name for tensor in trunk.graph.initializer}
    opset = max(max(o.version for o in m.opset_import if o.domain in ("", "ai.onnx")) for m in (trunk, whole))
    later = version_converter.convert_version(whole, opset)  # the tools may have raised it
    rest = [node for node in later.graph.node if node.name not in inside]
    read = {name for node in rest for name in node.input}
    constants = [t for t in later.graph.initializer if t.name in read and t.name not in own]
    graph = onnx.helper.make_graph(
        [*trunk.graph.node, *rest],
        "quantised",
        list(whole.graph.input),
        list(whole.graph.output),
        [*trunk.graph.initializer, *constants],
    )
    model = onnx.helper.make_model(graph, opset_imports=[*trunk.opset_import], ir_version=trunk.ir_version)
    onnx.helper.set_model_props(model, {METADATA_KEY: source.spec.to_json()})
    onnx.save(model, output)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: Iterator[npt.NDArray[np.uint8]]) -> None:
        self._images = images

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        image = next(self._images, None)
        return None if image is None else {"images": image}
