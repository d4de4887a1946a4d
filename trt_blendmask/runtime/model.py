"""A deployable model, loaded: frames in, `Detections` out."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_blendmask.backends import Session
from trt_blendmask.errors import DataError
from trt_blendmask.runtime.choice import GpuOptions, open_session
from trt_blendmask.runtime.letterbox import Letterboxer
from trt_blendmask.runtime.sources import open_source
from trt_blendmask.structures import F32, U8, Detections, Frame, Letterbox, ModelSpec, TensorSpec

_MASK_DTYPES = ("float32", "float16", "uint8")


def load(path: str | os.PathLike[str], device: str = "auto", threads: int = 0, gpu: GpuOptions | None = None) -> Model:
    """Load a deployable ONNX (what `trt-blendmask surgery` writes) or an engine (`trt-blendmask build`).

    Args:
        device: "auto": an ONNX runs on the CPU, in ONNX Runtime; an engine on the GPU or, where there is none, the very
            ONNX that it was built from on the CPU, if that lies where it lay. "cpu", "gpu": there or not at all.
            `Model.how` says what it became and why.
        threads: for one inference on the CPU; 0: all cores that this process may use.
        gpu: how an engine is opened; see there.

    Raises:
        InputMissingError: no such file.
        DataError: not a model, one that does not keep the contract of a deployable one, or an engine that is damaged or
            was built for another machine.
        NotTrustedError: an engine without a passport, or one that others could have written.
        SourceUnavailableError: no GPU, or it has not the memory.
        UsageError: a device that cannot run such a file.
    """
    session, why = open_session(path, device, threads, gpu)
    try:
        return Model(session, checked_spec(session), why)
    except BaseException:
        session.close()
        raise


class Model:
    """A loaded model; not for use by several threads at once (see `twin`).

    One call does one frame. Who has several of them fills as many slots of the batch, infers once and collects each.

    Example:
        with load("model.onnx") as model:
            detections = model(frame)

    Attributes:
        spec: class names, input size, thresholds: what surgery wrote into the file.
        how: what runs the network and why, in words.
        path: of the file that runs.
        batch: N, how many frames one inference does; a call fills the first slot and leaves the others empty.
        abreast: how many models at a time (this one and its twins) the machine makes use of.
    """

    def __init__(self, session: Session, spec: ModelSpec, why: str = "") -> None:
        self.spec, self.abreast, self.path = spec, session.abreast, session.path
        self.how = f"{session.how}: {why}" if why else session.how
        self._session, self._why = session, why
        self._images = session.input_buffer()
        self.batch = len(self._images)
        self._slots = [Letterboxer(spec, self._images[slot : slot + 1]) for slot in range(self.batch)]
        self._filled = 0

    def __call__(self, frame: U8 | Frame) -> Detections:
        """Detections in one frame, uint8 [H, W, 3] BGR of any size; boxes in its pixels, not clipped to it.

        Raises:
            DataError: another shape or dtype.
        """
        image = (frame if isinstance(frame, Frame) else Frame(np.asarray(frame))).image
        images, box = self.letterbox(image)
        return self.collect(self.infer(images), box)

    def stream(self, source: str | os.PathLike[str]) -> Iterator[tuple[Frame, Detections]]:
        """Frames of a source (video file, image folder, image, "synthetic:conveyor") with their detections.

        Raises:
            InputMissingError, DataError, UsageError: as `trt_blendmask.runtime.sources.open_source`.
            DataError: a recording was over before its own end; all frames that it has have come by then.
        """
        with closing(open_source(os.fspath(source))) as opened:
            for frame in opened:
                yield frame, self(frame)
            if opened.cut_short:
                raise DataError(opened.cut_short)

    def letterbox(self, image: U8, slot: int = 0) -> tuple[npt.NDArray[Any], Letterbox]:
        """First step of a call: the input buffer (valid until the next call) and its map to frame pixels.

        Call it with slot 0, 1, ... in this order, at most up to `batch` - 1, then `infer` once.

        Args:
            slot: of the batch; those behind the one that was filled last are empty.
        """
        self._filled = slot + 1
        return self._images, self._slots[slot](image)[1]

    def infer(self, images: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Second step, of what the first gave or of a copy: the network's outputs by name, with their batch axis, in
        buffers that are valid until the next call."""
        if images is self._images:
            for slot in self._slots[self._filled :]:
                slot.blank()  # or what an earlier batch left there would be looked at again
        else:
            for slot in self._slots:
                slot.forget()  # a session may use the buffer to hand them over
        return self._session.run(images)

    def collect(self, outputs: dict[str, npt.NDArray[Any]], box: Letterbox, slot: int = 0) -> Detections:
        """Last step: what was found in one slot of the batch as `Detections` in frame pixels, best first."""
        boxes, scores, order = outputs["boxes"][slot], outputs["scores"][slot], filled_slots(outputs, slot)
        masks = _probabilities(outputs["masks"][slot][order])
        return Detections(
            xyxy=box.to_frame(boxes[order]),
            scores=scores[order].astype(np.float32),
            classes=outputs["classes"][slot][order].astype(np.int32),
            masks=masks,
            frame_wh=box.frame_wh,
            class_names=self.spec.class_names,
        )

    def twin(self) -> Model:
        """The same network with an input buffer of its own, for another thread; closed with this one."""
        return Model(self._session.twin(), self.spec, self._why)

    def close(self) -> None:
        """Free the network; closing twice is harmless."""
        self._session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def filled_slots(outputs: dict[str, npt.NDArray[Any]], image: int = 0) -> npt.NDArray[np.intp]:
    """The slots of one image's outputs that become detections, in their order: best first, none with NaN."""
    boxes, scores = outputs["boxes"][image], outputs["scores"][image]
    count = min(max(int(outputs["count"][image]), 0), len(scores))
    order = np.argsort(-scores[:count], kind="stable")
    order = order[np.isfinite(boxes[order]).all(axis=1) & np.isfinite(scores[order])]
    return np.asarray(order[np.isfinite(outputs["masks"][image][order]).all(axis=(1, 2))])


def checked_spec(session: Session) -> ModelSpec:
    """The session's metadata, after comparing the graph's inputs and outputs with the deployable contract.

    Raises:
        DataError: a raw-head file, a file of another kind, or shapes that contradict the metadata.
    """
    path, names = session.path, {spec.name for spec in session.outputs}
    typed = shlex.quote(str(path))
    operate = f"Type: trt-blendmask surgery {typed} -o model.onnx"
    spec = ModelSpec.from_json(session.metadata, path) if session.metadata else None
    if (spec and spec.kind == "raw-head") or (spec is None and "bases" in names and "boxes" not in names):
        raise DataError(f"Expected a deployable ONNX, but '{path}' is a raw-head ONNX (before surgery). {operate}")
    if spec is None:
        raise DataError(
            f"Expected a deployable ONNX, but '{path}' has no trt_blendmask metadata (outputs: "
            f"{', '.join(sorted(names)[:6])}). If it is a raw-head ONNX of BlendMask, type: "
            f"trt-blendmask surgery {typed} -o model.onnx --config YAML"
        )
    got = {tensor.name: tensor for tensor in (*session.inputs, *session.outputs)}
    batch = max([1, *got["images"].shape[:1]]) if "images" in got else 1  # an open one, -1, is told below
    for expected, dtypes in _contract(spec, batch):
        tensor = got.get(expected.name)
        if tensor is None or tensor.shape != expected.shape or tensor.dtype not in dtypes:
            came = f"{tensor.dtype} {list(tensor.shape)}" if tensor else "nothing of that name"
            raise DataError(
                f"Expected '{expected.name}' {' or '.join(dtypes)} {list(expected.shape)} in '{path}', got {came}. "
                "Make the file again: trt-blendmask surgery raw.onnx -o model.onnx"
            )
    if len(session.inputs) != 1:
        raise DataError(f"Expected one input, 'images', in '{path}', got {len(session.inputs)}. {operate}")
    return spec


def _contract(spec: ModelSpec, n: int) -> list[tuple[TensorSpec, tuple[str, ...]]]:
    (h, w), slots, side = spec.input_hw, spec.max_detections, spec.mask_size
    planar = spec.input_dtype == "float32"
    images = TensorSpec("images", spec.input_dtype or "uint8", (n, 3, h, w) if planar else (n, h, w, 3))
    outputs = (
        TensorSpec("count", "int32", (n,)),
        TensorSpec("boxes", "float32", (n, slots, 4)),
        TensorSpec("scores", "float32", (n, slots)),
        TensorSpec("classes", "int32", (n, slots)),
    )
    masks = TensorSpec("masks", spec.mask_dtype, (n, slots, side, side))
    return [*((tensor, (tensor.dtype,)) for tensor in (images, *outputs)), (masks, _MASK_DTYPES)]


def _probabilities(masks: npt.NDArray[Any]) -> F32:
    if masks.dtype == np.uint8:
        return masks.astype(np.float32) / np.float32(255)
    return masks.astype(np.float32, copy=False)
