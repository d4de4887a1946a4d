"""Run a file's core beside our tail on made-up numbers: equal, or it is another network."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime

from trt_blendmask.errors import DataError, first_line
from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.reading.merge_weights import Array
from trt_blendmask.surgery.reading.opset import opset_of, raise_opset
from trt_blendmask.surgery.reading.upsample import mend_upsample
from trt_blendmask.surgery.tail_native import append_tail
from trt_blendmask.surgery.whole.wiring import Wiring, cut_part, described

if TYPE_CHECKING:
    from trt_blendmask.surgery.whole.core import Core

_TOLERANCE, _ROUNDING = 1e-4, 2e-3  # on a mask; share of the cells that a sample on a border may decide otherwise
_ROI_ALIGN_OPSET = 21  # ONNX Runtime 1.31 has no RoiAlign of opset 22, which only takes more types
_BOXES, _BASES = 6, 48  # boxes where the file does not fix their number; pixels of a side of the bases, at most
LARGEST = 1 << 26  # numbers that a proof is tried on: three times the heads of a network of 1333 x 800


@dataclass(frozen=True)
class Settings:
    """K, M, R and how the core aligns and blends; `aligned` None where the file does not say.

    `can_align`: the file's opset could have said that there is a half-pixel shift.
    """

    num_bases: int
    attention_size: int
    mask_size: int
    spatial_scale: float
    sampling_ratio: int
    aligned: bool | None
    interpolation: str = ""
    activation: str = ""
    can_align: bool = True

    def spec(self, input_hw: tuple[int, int]) -> ModelSpec:
        """A spec that holds these, with one class and one level: enough for a tail."""
        return ModelSpec(
            "deployable", ("object",), input_hw, (8,), self.num_bases, self.attention_size, self.mask_size,
            self.spatial_scale, self.sampling_ratio, self.aligned is not False, self.interpolation,
        )  # fmt: skip


def proven_settings(wiring: Wiring, core: Core, settings: Settings) -> Settings:
    """`settings` completed by those under which the file's core computes what our tail does.

    Raises:
        DataError: there are none.
    """
    feeds = _feeds(core, settings)
    theirs = _run_theirs(wiring, core, feeds)
    if theirs.size != len(feeds["boxes"]) * settings.mask_size**2:
        raise _other(core, f"{list(theirs.shape)} for {len(feeds['boxes'])} boxes")
    if settings.activation == "none":
        theirs = 1 / (1 + np.exp(-theirs.astype(np.float64)))
    differences = []
    for aligned in (True, False) if settings.aligned is None else (settings.aligned,):
        for interpolation in ("bilinear", "nearest"):
            tried = replace(settings, aligned=aligned, interpolation=interpolation)
            difference = np.abs(theirs.ravel() - _run_ours(core, tried, feeds).ravel())
            if np.mean(~(difference <= _TOLERANCE)) <= _ROUNDING:
                return tried
            differences.append(float(np.max(difference)))
    raise _other(core, f"masks that differ by {min(differences):.2g}")


def _other(core: Core, came: str) -> DataError:
    return DataError(
        "Expected BlendMask's blend behind RoiAlign (attention resized to the mask's size, then softmax over the "
        f"bases, weighted sum, sigmoid), got {came} from {core.found}: this is another network. Give a BlendMask."
    )


def _feeds(core: Core, settings: Settings) -> dict[str, Array]:
    """Boxes inside and across the border, attention from faint to decided."""
    rng = np.random.default_rng(7)
    n, (images, k, *hw) = core.slots or _BOXES, core.bases_shape
    hb, wb = (min(side, _BASES) for side in hw)  # RoiAlign takes any
    if max(images * k * hb * wb, n * k * max(settings.mask_size, settings.attention_size) ** 2) > LARGEST:
        raise DataError(
            f"Expected a blender of usual size, got {n} masks of {settings.mask_size} x {settings.mask_size} from {k} "
            f"bases of {images} images. Give a BlendMask."
        )
    size = np.array([wb, hb]) / settings.spatial_scale
    low = rng.uniform(0.02, 0.5, (n, 2)) * size
    boxes = np.concatenate([low, low + rng.uniform(0.1, 0.45, (n, 2)) * size], axis=1)
    boxes[::5] -= np.tile(size * 0.2713, 2)
    attention = rng.normal(0, 2, (n, settings.num_bases * settings.attention_size**2))
    attention[1::2] *= 6
    return {
        "bases": rng.normal(0, 2, (images, k, hb, wb)).astype(np.float32),
        "boxes": boxes.astype(np.float32),
        "batch": np.arange(n) % images,
        "attention": attention.astype(np.float32),
    }


def _run_theirs(wiring: Wiring, core: Core, feeds: dict[str, Array]) -> Array:
    shape = list(wiring.shape(core.attention) or ())
    values = {core.bases: feeds["bases"], core.attention: feeds["attention"].reshape(-1, *shape[1:])}
    values[core.boxes] = feeds["boxes"]
    if core.with_batch:
        values[core.boxes] = np.concatenate([feeds["batch"][:, None], feeds["boxes"]], axis=1).astype(np.float32)
    if core.batch:
        values[core.batch] = feeds["batch"]
    try:
        part = cut_part(wiring, {name: described(name, x) for name, x in values.items()}, {core.masks: "out"})
        if opset_of(part) < 11:
            mend_upsample(part, opset_of(part))
            part = raise_opset(part)
        part.opset_import[0].version = min(opset_of(part), _ROI_ALIGN_OPSET)
        return np.asarray(run(part, values)[0])
    except Exception as error:  # ONNX Runtime raises what it likes
        raise _other(core, f"a graph that cannot be run on its own ({first_line(error)})") from error


def _run_ours(core: Core, settings: Settings, feeds: dict[str, Array]) -> Array:
    images = core.bases_shape[0]
    order = np.argsort(feeds["batch"], kind="stable")
    spec = settings.spec((32, 32))
    results = np.zeros((len(order), settings.mask_size, settings.mask_size), np.float32)
    for image in range(images):
        mine = order[feeds["batch"][order] == image]
        values = {"bases": feeds["bases"][image : image + 1], "boxes": feeds["boxes"][mine][None]}
        values["attention"] = feeds["attention"][mine]
        results[mine] = run(_tail(values, spec), values)[0]
    return results


def _tail(values: dict[str, Array], spec: ModelSpec) -> onnx.ModelProto:
    tensors = {name: gs.Variable(name, x.dtype, x.shape) for name, x in values.items()}
    graph = gs.Graph(opset=17, inputs=list(tensors.values()))
    slots = values["boxes"].shape[1]
    graph.outputs = [append_tail(graph, tensors["bases"], tensors["boxes"], tensors["attention"], slots, spec)]
    graph.outputs[0].dtype = np.dtype(np.float32)
    model = gs.export_onnx(graph.cleanup().toposort(), do_type_check=False)
    model.ir_version = 8
    return model


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Any]:
    """All outputs, in ONNX Runtime on one thread, quietly.

    Raises:
        ValueError: a loop, or a tensor too large to be of use. Exception: ONNX Runtime raises what it likes.
    """
    _check_harmless(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()}))


def _check_harmless(model: onnx.ModelProto) -> None:
    """A file must not make us work for hours or fill the memory."""
    for node in model.graph.node:
        if node.op_type in ("Loop", "Scan"):
            raise ValueError(f"'{node.name or node.output[0]}' is a {node.op_type}")
    for value in onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info:
        if math.prod(max(side.dim_value, 1) for side in value.type.tensor_type.shape.dim) > LARGEST:
            raise ValueError(f"'{value.name}' is too large")
