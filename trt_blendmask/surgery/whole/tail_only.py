"""A graph that is the blender alone: its core gives way to our tail, its inputs and outputs stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.surgery.builder import Builder
from trt_blendmask.surgery.export_graph import export_checked
from trt_blendmask.surgery.options import SurgeryOptions
from trt_blendmask.surgery.reading.load import Loaded, save
from trt_blendmask.surgery.reading.read_graph import read_graph
from trt_blendmask.surgery.report import CutTensor, StepOutcome, SurgeryReport
from trt_blendmask.surgery.tail_native import append_logits
from trt_blendmask.surgery.whole.core import Core
from trt_blendmask.surgery.whole.end_to_end import Whole, cut_roles
from trt_blendmask.surgery.whole.wiring import VIEWS, Wiring

_CORE = "file."  # outputs of the cut graph that our tail reads


def replace_tail(loaded: Loaded, whole: Whole, raw: Path, output: Path, options: SurgeryOptions) -> SurgeryReport:
    """Write `raw` with our tail in place of its core; the number of boxes stays as open as it is.

    Raises:
        DataError: something other than views lies behind the core.
        UsageError: an option that only a whole network can follow.
    """
    if options != SurgeryOptions():
        raise UsageError("Expected no options for a file that is the blender alone: it keeps its inputs and outputs.")
    wiring, core = whole.wiring, whole.core
    result = _result(wiring, core)
    roles = {_CORE + part: getattr(core, part) for part in ("bases", "boxes", "batch", "attention")}
    roles = {role: name for role, name in roles.items() if name}
    roles |= {name: name for name in wiring.outputs if name != result}
    inputs = {value.name: value for value in wiring.model.graph.input if value.name in wiring.inputs}
    part = Loaded(cut_roles(wiring, inputs, roles, loaded), loaded.weights)
    graph, read = read_graph(part, raw)
    before = len(loaded.model.graph.node)
    masks = _append(graph, core, (wiring.shape(result) or ())[1:])
    others = {tensor.name: tensor for tensor in graph.outputs}
    masks.name, masks.dtype, masks.shape = result, np.dtype(np.float32), _declared_shape(wiring, result)
    graph.outputs = [masks if name == result else others[name] for name in wiring.outputs]
    graph.cleanup().toposort()
    model = export_checked(graph)
    size = save({output: model}, None)[output]
    sentence = f"RoIAlign and blend found and proven equal to the tail: {core.found}"
    steps = (
        StepOutcome("core", sentence, before, before),
        *read,
        StepOutcome("tail", "native, in its place; inputs and outputs as they were", before, len(graph.nodes)),
    )
    cut = tuple(CutTensor(name, role.removeprefix(_CORE), wiring.shape(name) or ()) for role, name in roles.items())
    return SurgeryReport(steps, {}, {}, None, output, size, cut)


def _result(wiring: Wiring, core: Core) -> str:
    """The output that holds the masks, views of them allowed."""
    name = core.masks
    while name not in wiring.outputs:
        nodes = wiring.consumers.get(name, [])
        if len(nodes) != 1 or nodes[0].op_type not in VIEWS or nodes[0].op_type == "Cast":
            came = ", ".join(node.op_type for node in nodes) or "nothing"
            raise DataError(
                f"Expected the masks '{core.masks}' to be an output of a graph that is BlendMask's blender alone, got "
                f"{came} behind '{name}'. Export it again with the masks as output."
            )
        name = nodes[0].output[0]
    return name


def _declared_shape(wiring: Wiring, output: str) -> tuple[int | str | None, ...]:
    """With the names of its open sides."""
    value = next(value for value in wiring.model.graph.output if value.name == output)
    sides = value.type.tensor_type.shape.dim
    return tuple(side.dim_value if side.HasField("dim_value") else side.dim_param or None for side in sides)


def _append(graph: gs.Graph, core: Core, shape: tuple[int, ...]) -> gs.Variable:
    """Our tail behind the cut graph: masks float32 [n, *shape], probability or logits as the file has them."""
    parts = {t.name.removeprefix(_CORE): t for t in graph.outputs if t.name.startswith(_CORE)}
    b, spec = Builder(graph, "core"), core.settings.spec((32, 32))
    channels = core.settings.num_bases * core.settings.attention_size**2
    rows: dict[str, Any] = {"boxes": parts["boxes"]}
    rows["attention"] = b.reshape("attention_rows", parts["attention"], (-1, channels))
    if core.with_batch:
        rows["batch"], rows["boxes"] = b.split("rows", parts["boxes"], [1, 4], 1)
    elif core.batch:
        rows["batch"] = b.reshape("batch_rows", parts["batch"], (-1, 1))
    # One box more, so that there are some: ONNX Runtime 1.31 fails on products of nothing.
    rows = {part: b.op("Pad", f"{part}_more", x, np.array([0, 0, 1, 0])) for part, x in rows.items()}
    image = b.cast("image", rows["batch"], np.int64) if core.bases_shape[0] > 1 else None
    masks = append_logits(graph, parts["bases"], rows["boxes"], rows["attention"], None, spec, image)
    masks = b.op("Slice", "fewer", masks, np.array([0]), np.array([-1]), np.array([0]))
    if core.settings.activation == "sigmoid":
        masks = b.op("Sigmoid", "probabilities", masks)
    return b.reshape("masks", masks, (-1, *shape))
