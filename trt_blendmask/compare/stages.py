"""Where two models begin to differ: their tensors stage by stage, bases and attention among them.

The graph's own outputs tell of boxes and masks only, so those of an ONNX are extended by two inner tensors. Slots hold
other objects in another model: attention, boxes and masks are compared between the slots of matched detections.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_blendmask.backends.onnxruntime import OnnxRuntimeSession
from trt_blendmask.files import existing_file
from trt_blendmask.paste import visible
from trt_blendmask.runtime.choice import GpuOptions, is_engine
from trt_blendmask.runtime.model import Model, checked_spec, filled_slots, load
from trt_blendmask.structures import F64, U8, Detections

STAGES = ("bases", "boxes", "attention", "masks")  # in the order in which they are computed
_INPUT_OF = {"bases": "tail.roi.planes", "attention": "tail.attention_grid"}  # nodes of surgery's tail


@dataclass(frozen=True)
class Seen:
    """One picture in one model: what was found, and what is behind it.

    Attributes:
        bases: float [1, K, h, w], None where the model does not show it.
        attention: float [n, K*M*M] of each detection, likewise.
    """

    detections: Detections
    bases: npt.NDArray[Any] | None
    attention: npt.NDArray[Any] | None

    def above(self, score: float) -> Seen:
        sure = self.detections.scores >= score
        return Seen(self.detections.keep(sure), self.bases, None if self.attention is None else self.attention[sure])


class Watched:
    """A model that also tells its bases and attention, as far as its file allows."""

    def __init__(self, path: Path, device: str = "auto", gpu: GpuOptions | None = None) -> None:
        """Raises: as `trt_blendmask.load`."""
        self._inner: dict[str, str] = {}
        watched = None if device == "gpu" or is_engine(path) else self._with_inner_tensors(path)
        if watched is None:
            self._inner = {}
        self.model = watched or load(path, device, gpu=gpu)

    @property
    def shows_inside(self) -> bool:
        """Whether it tells bases and attention."""
        return len(self._inner) == len(_INPUT_OF)

    def __call__(self, image: U8) -> Seen:
        """Detections of uint8 [H, W, 3] BGR, boxes in its pixels; those that no pixel of it shows are left out."""
        images, box = self.model.letterbox(image)
        outputs = self.model.infer(images)
        inner = {stage: outputs[name].astype(np.float32) for stage, name in self._inner.items()}
        bases, attention = inner.get("bases"), inner.get("attention")
        if bases is not None:
            bases = bases[:1]  # of a batch the first is this picture's; its attention comes first, too
        found = self.model.collect(outputs, box)
        inside = visible(found)
        if attention is not None:
            attention = attention[filled_slots(outputs)][inside]
        return Seen(found.keep(inside), bases, attention)

    def close(self) -> None:
        self.model.close()

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _with_inner_tensors(self, path: Path) -> Model | None:
        """The model with more outputs; None where they are not to be had: `load` says better what is wrong."""
        import onnx

        try:  # not onnx.load: it follows weights into other files, and waits for who writes into a pipe
            graph = onnx.load_model_from_string(existing_file(path, "an ONNX model", "").read_bytes())
            inputs = {node.name: node.input[0] for node in graph.graph.node if node.input}
            self._inner = {stage: inputs[node] for stage, node in _INPUT_OF.items() if node in inputs}
            known = {value.name for value in graph.graph.output}
            wanted = [name for name in self._inner.values() if name not in known]
            graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / path.name
                onnx.save(graph, file)
                session = OnnxRuntimeSession(file)
            session.path = path  # what it is called in errors
            return Model(session, checked_spec(session))
        except Exception:  # ours, and those of protobuf and onnx
            return None


@dataclass(frozen=True)
class StageDifference:
    """How far a stage of one model is from that of the other, over all pictures.

    Attributes:
        relative: root of the summed squares of the differences by that of the reference; of the boxes both are
            reckoned by the reference's width and height.
        mean, largest: absolute difference; of boxes in pixels.
        values: how many were compared.
    """

    stage: str
    relative: float
    mean: float
    largest: float
    values: int


class StageSums:
    """Sums up the differences of one stage after another."""

    def __init__(self) -> None:
        self._rows: dict[str, F64] = {}  # squares of differences, squares of reference, absolutes, values
        self._largest: dict[str, float] = {}
        self.other_shape: tuple[str, ...] = ()

    def add(self, reference: Seen, other: Seen, matches: tuple[tuple[int, int], ...]) -> None:
        """One picture, and which of its detections go together."""
        ours, theirs = [i for i, _ in matches], [j for _, j in matches]
        a, b = reference.detections, other.detections
        self._add("bases", reference.bases, other.bases)
        sides = np.tile(a.xyxy[ours, 2:] - a.xyxy[ours, :2], 2)
        self._add("boxes", a.xyxy[ours], b.xyxy[theirs], sides)
        if reference.attention is not None and other.attention is not None:
            self._add("attention", reference.attention[ours], other.attention[theirs])
        self._add("masks", a.masks[ours], b.masks[theirs])

    def differences(self) -> tuple[StageDifference, ...]:
        """Those of the stages that could be compared."""
        found = []
        for stage in STAGES:
            if stage in self._rows and self._rows[stage][3]:
                squares, reference, absolutes, values = self._rows[stage].tolist()
                relative = float(np.sqrt(squares / reference)) if reference else float(squares > 0)
                found.append(StageDifference(stage, relative, absolutes / values, self._largest[stage], int(values)))
        return tuple(found)

    def _add(
        self,
        stage: str,
        reference: npt.NDArray[Any] | None,
        other: npt.NDArray[Any] | None,
        scale: npt.NDArray[Any] | None = None,
    ) -> None:
        if reference is None or other is None:
            return
        if reference.shape != other.shape:
            self.other_shape = tuple(dict.fromkeys((*self.other_shape, stage)))
            return
        with np.errstate(invalid="ignore"):  # FP16 that overflowed: the report says "nan"
            difference = np.abs(reference.astype(np.float64) - other)
        whole = reference if scale is None else scale
        row = [(difference**2).sum(), (whole.astype(np.float64) ** 2).sum(), difference.sum(), difference.size]
        self._rows[stage] = self._rows.get(stage, np.zeros(4)) + row
        self._largest[stage] = float(np.maximum(self._largest.get(stage, 0.0), difference.max(initial=0)))
