"""The data that travels between the stages: frozen, validated at construction, no input or output of their own.

Coordinate frames: `frame` pixels are those of the picture as it was captured; `input` pixels are those of the
letterboxed network input. Boxes are `xyxy` (x1, y1, x2, y2) floats, pixel edges (a whole W x H picture is
[0, 0, W, H]). Masks are box-local R x R probabilities, never full-frame.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trt_blendmask.errors import DataError

if TYPE_CHECKING:
    import supervision

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

METADATA_KEY = "trt_blendmask"  # of the ONNX metadata_props
TABLE_MARK = "calibration_table_sha256="  # in an INT8 file's doc_string, before the hash of its table


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and static shape of one graph input or output."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelSpec:
    """All that a stage must know of a model and cannot read from the tensor shapes.

    Written as JSON in the ONNX `metadata_props` under the key `trt_blendmask` by export, extended by surgery.

    Attributes:
        kind: "raw-head" (export's output) or "deployable" (surgery's output).
        class_names: one per class; "class 0", ... where the names are not known.
        input_hw: network input height and width in pixels; multiples of 32 in what export writes.
        strides: of the head levels, P3 first.
        num_bases: K. attention_size: M. mask_size: R (AdelaiDet's BOTTOM_RESOLUTION).
        spatial_scale: bases pixels per input pixel (0.25). sampling_ratio: RoIAlign samples per cell and axis.
        aligned: True for ROIAlignV2 (half-pixel shift). attention_interpolation: "bilinear" or "nearest" (TOP_INTERP).
        score_threshold: strict bound on sigmoid(class) * sigmoid(centerness), or on sigmoid(class) alone where
            `thresh_with_ctr` is False; it acts before the square root, as in AdelaiDet.
        nms_threshold: class-wise IoU bound; <= 0 means no suppression. pre_nms_topk: candidates kept per level.
        max_detections: D, detection slots per image.
        pixel_mean, pixel_std: of B, G, R.
        input_dtype, mask_dtype, top, nms, tail: what surgery chose; empty in a raw-head file.
        precision: "fp16" or "int8" in a file that quantize wrote, else empty: all float32.
    """

    kind: str
    class_names: tuple[str, ...]
    input_hw: tuple[int, int]
    strides: tuple[int, ...]
    num_bases: int
    attention_size: int
    mask_size: int = 56
    spatial_scale: float = 0.25
    sampling_ratio: int = 1
    aligned: bool = True
    attention_interpolation: str = "bilinear"
    score_threshold: float = 0.05
    thresh_with_ctr: bool = True
    nms_threshold: float = 0.6
    pre_nms_topk: int = 1000
    max_detections: int = 100
    pixel_mean: tuple[float, ...] = (103.53, 116.28, 123.675)
    pixel_std: tuple[float, ...] = (1.0, 1.0, 1.0)
    input_dtype: str = ""
    mask_dtype: str = ""
    top: str = ""
    nms: str = ""
    tail: str = ""
    precision: str = ""

    def __post_init__(self) -> None:
        _require(self.kind in ("raw-head", "deployable"), "kind", "'raw-head' or 'deployable'", self.kind)
        names = self.class_names
        are_texts = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
        _require(are_texts and len(names) > 0, "class_names", "texts, at least one", names)
        _require(len(self.input_hw) == 2 and min(self.input_hw) > 0, "input_hw", "two sizes > 0", self.input_hw)
        _require(len(self.strides) > 0 and min(self.strides) > 0, "strides", "one or more, > 0", self.strides)
        for name in ("num_bases", "attention_size", "mask_size", "sampling_ratio", "pre_nms_topk", "max_detections"):
            _require(getattr(self, name) > 0, name, "> 0", getattr(self, name))
        _require(self.spatial_scale > 0, "spatial_scale", "> 0", self.spatial_scale)
        _require(
            self.attention_interpolation in ("bilinear", "nearest"),
            "attention_interpolation",
            "'bilinear' or 'nearest'",
            self.attention_interpolation,
        )
        _require(self.precision in ("", "fp16", "int8"), "precision", "'', 'fp16' or 'int8'", self.precision)
        _require(0 <= self.score_threshold < 1, "score_threshold", "in [0, 1)", self.score_threshold)
        mean, std = self.pixel_mean, self.pixel_std
        _require(len(mean) == 3 and all(0 <= v <= 255 for v in mean), "pixel_mean", "three values from 0 to 255", mean)
        _require(len(std) == 3 and all(0 < v < 1e9 for v in std), "pixel_std", "three values > 0", std)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str, path: str | os.PathLike[str] = "") -> ModelSpec:
        """Read what `to_json` wrote; unknown keys of a later version are refused, not guessed at.

        Args:
            path: of the file that `text` is in, for errors.

        Raises:
            DataError: not JSON, a key missing or unknown, or a value out of range.
        """
        expected = f"Expected the metadata of a model in '{path}'" if path else "Expected the metadata of a model"
        try:
            values: dict[str, Any] = json.loads(text)
            known = {f.name for f in fields(ModelSpec)}
            unknown = sorted(set(values) - known)
            if unknown:
                raise DataError(f"it has the unknown keys {unknown} of a later version")
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return ModelSpec(**values)
        except DataError as error:
            advice = "Make the file again, or type: pip install --upgrade trt-blendmask"
            raise DataError(f"{expected}, but {str(error).rstrip('.')}. {advice}") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{expected}, but it cannot be read: {error}. Make the file again.") from error


@dataclass(frozen=True)
class Frame:
    """One picture of a source.

    Attributes:
        image: uint8 [H, W, 3] BGR.
        index: 0, 1, ... within its source; a live source skips the numbers of frames that it dropped.
        time_s: presentation time in the source in seconds (index / fps where a source has no clock).
        name: file name where each frame is a file of its own, else "".
        captured_s, wall_s: when it was captured or arrived, by `time.monotonic` (for its age) and by `time.time` (for
            people); 0 where nobody noted it.
        source: which source it came from, without credentials.
        pixel_aspect: width of a pixel by its height, as the source wants it shown.
    """

    image: U8
    index: int = 0
    time_s: float = 0.0
    name: str = ""
    captured_s: float = 0.0
    wall_s: float = 0.0
    source: str = ""
    pixel_aspect: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        shape, dtype = self.image.shape, self.image.dtype
        if self.image.ndim != 3 or shape[2] != 3 or dtype != np.uint8:
            raise DataError(f"A frame is uint8 [H, W, 3] BGR, got {dtype} {list(shape)}.")

    @property
    def frame_wh(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True)
class Letterbox:
    """The map between frame and input pixels: scaled to fit, anchored top-left, padded right and bottom.

    The scaled size is rounded to whole pixels, so the two axes have each their own exact factor, as in AdelaiDet's
    `detector_postprocess`.

    Example: a 1920x1080 frame in a 576x576 input is scaled to 576x324, so [0, 0, 1920, 1080] maps to [0, 0, 576, 324].
    """

    frame_wh: tuple[int, int]
    input_hw: tuple[int, int]

    def __post_init__(self) -> None:
        if min(self.frame_wh) < 1 or min(self.input_hw) < 1:
            raise DataError(
                f"Expected a frame and an input of one pixel or more, got {self.frame_wh} and {self.input_hw}. "
                "Give a picture that has pixels."
            )

    @property
    def scaled_wh(self) -> tuple[int, int]:
        """Size of the picture inside the input, pixels."""
        (w, h), (input_h, input_w) = self.frame_wh, self.input_hw
        scale = min(input_w / w, input_h / h)
        return min(input_w, max(1, int(w * scale + 0.5))), min(input_h, max(1, int(h * scale + 0.5)))

    @property
    def factors(self) -> F32:
        """Input pixels per frame pixel, float32 [4] for x1, y1, x2, y2."""
        (w, h), (scaled_w, scaled_h) = self.frame_wh, self.scaled_wh
        return np.array([scaled_w / w, scaled_h / h] * 2, dtype=np.float32)

    def to_input(self, xyxy: F32) -> F32:
        """Boxes [n, 4] from frame to input pixels."""
        return (xyxy * self.factors).astype(np.float32)

    def to_frame(self, xyxy: F32) -> F32:
        """Boxes [n, 4] from input to frame pixels."""
        return (xyxy / self.factors).astype(np.float32)


@dataclass(frozen=True)
class Detections:
    """What was found in one frame.

    Attributes:
        xyxy: float32 [n, 4], frame pixels, not clipped to the frame.
        scores: float32 [n], descending.
        classes: int32 [n], indices into `class_names`.
        masks: float32 [n, R, R], probability, local to the unclipped box.
        frame_wh: width and height of the frame in pixels.
        class_names: of the model.
        track_ids: int32 [n], the number of the same object in other frames, -1 where it has none; None: not tracked.
    """

    xyxy: F32
    scores: F32
    classes: I32
    masks: F32
    frame_wh: tuple[int, int]
    class_names: tuple[str, ...] = field(default=())
    track_ids: I32 | None = None

    def __post_init__(self) -> None:
        n = len(self.scores)
        expected = {"xyxy": (n, 4), "scores": (n,), "classes": (n,)}
        for name, shape in expected.items():
            got = getattr(self, name).shape
            if got != shape:
                raise DataError(f"Detections.{name} must be {list(shape)} for {n} scores, got {list(got)}.")
        if self.masks.ndim != 3 or len(self.masks) != n or self.masks.shape[1] != self.masks.shape[2]:
            raise DataError(f"Detections.masks must be [{n}, R, R], got {list(self.masks.shape)}.")
        ids = self.track_ids
        if ids is not None and (ids.shape != (n,) or ids.dtype != np.int32):
            raise DataError(f"Detections.track_ids must be int32 [{n}], got {ids.dtype} {list(ids.shape)}.")

    def __len__(self) -> int:
        return len(self.scores)

    def keep(self, which: npt.NDArray[np.bool_]) -> Detections:
        """The detections where the bool [n] `which` is True."""
        return Detections(
            self.xyxy[which],
            self.scores[which],
            self.classes[which],
            self.masks[which],
            self.frame_wh,
            self.class_names,
            None if self.track_ids is None else self.track_ids[which],
        )

    def above(self, score: float) -> Detections:
        """The detections whose score is at least `score`."""
        return self.keep(self.scores >= score)

    def top(self, count: int) -> Detections:
        """The first `count` of them, which are the best."""
        return self.keep(np.arange(len(self)) < count)

    def to_coco(self, paste: str = "exact") -> list[dict[str, Any]]:
        """COCO results (`bbox` [x, y, w, h] and compressed RLE in frame pixels); see `trt_blendmask.coco`."""
        from trt_blendmask.coco import to_coco

        return to_coco(self, paste)

    def to_supervision(self) -> supervision.Detections:
        """`supervision.Detections` with dense full-frame masks; needs the package supervision."""
        from trt_blendmask.coco import to_supervision

        return to_supervision(self)


@dataclass(frozen=True)
class CalibrationTable:
    """Which values the INT8 grid of each activation represents; what `calibrate` measured.

    Attributes:
        model_sha256: of the float deployable graph, see `trt_blendmask.calibrate.graph_sha256`.
        method: "mse", "percentile", "entropy" or "minmax".
        ranges: tensor name in that graph -> the threshold, > 0: the largest value that its grid represents; the scale
            is a 127th of it. Tensors that share a scale have equal ones.
        images: sha256 of the pictures that were looked at (of the files; of the pixels where they came from a video),
            sorted.
        versions: of what computed the ranges, by name.
    """

    model_sha256: str
    method: str
    ranges: dict[str, float]
    images: tuple[str, ...]
    versions: dict[str, str]

    def __post_init__(self) -> None:
        hashes = (self.model_sha256, *self.images)
        _require(all(is_sha256(h) for h in hashes), "sha256", "64 hex digits", self.model_sha256, "CalibrationTable")
        texts = (self.method, *self.versions, *self.versions.values(), *self.ranges)
        _require(all(isinstance(t, str) for t in texts), "method", "text", self.method, "CalibrationTable")
        _require(len(self.ranges) > 0, "ranges", "those of at least one tensor", self.ranges, "CalibrationTable")
        for name, value in self.ranges.items():
            usable = isinstance(value, (int, float)) and 1e-35 < value < 3e38  # a 127th is a float32, too
            _require(usable, f"ranges[{name!r}]", "a number above 0", value, "CalibrationTable")

    def to_json(self) -> str:
        """Sorted, one value per line, for people and `diff`; `from_json` reads it back equal."""
        return json.dumps(asdict(self), sort_keys=True, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> CalibrationTable:
        """Read what `to_json` wrote.

        Raises:
            DataError: not JSON, a key missing or unknown, or a value out of range.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            return CalibrationTable(**{**values, "images": tuple(values["images"])})
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise DataError(
                f"Expected a calibration table, but it cannot be read: {type(error).__name__}: {error}. Make it again: "
                "trt-blendmask calibrate MODEL --images DIR -o table.json"
            ) from error


@dataclass(frozen=True)
class EngineInfo:
    """The passport of an engine: what its plan is, what it was built from and where it can run.

    Attributes:
        plan_sha256, plan_bytes: of the plan itself.
        onnx_sha256, onnx_path: of the ONNX file it was built from; the path is relative to the engine's folder, or
            absolute.
        plugin_sha256: of the plugin library it needs, "" where it needs none. table_sha256: of the calibration table
            its ONNX was quantised with, "" where there is none.
        flavor: "tensorrt" or "rtx". tensorrt_version: with all its parts, "10.3.0.26".
        compute_capability: "8.7" of the GPU it was built on or for; "" where it was built for several.
        device_name, driver, cuda_version: of the machine that built it, "" where there was no GPU.
        options: of the build, by name; plain JSON values.
        inputs, outputs: of the engine, in its order.
        spec: of the model.
        built_at: ISO 8601 in UTC, "2026-01-31T12:00:00+00:00". build_seconds: how long it took.
        parity: what a comparison with ONNX Runtime on a GPU found, in words; "" where none was made.
    """

    plan_sha256: str
    plan_bytes: int
    onnx_sha256: str
    onnx_path: str
    flavor: str
    tensorrt_version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    spec: ModelSpec
    built_at: str
    build_seconds: float
    plugin_sha256: str = ""
    table_sha256: str = ""
    compute_capability: str = ""
    device_name: str = ""
    driver: str = ""
    cuda_version: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    parity: str = ""

    def __post_init__(self) -> None:
        for name in ("plan_sha256", "onnx_sha256", "plugin_sha256", "table_sha256"):
            value = getattr(self, name)
            may_lack = name in ("plugin_sha256", "table_sha256")
            self._require(is_sha256(value) or (may_lack and value == ""), name, "64 hex digits", value)
        for name in ("onnx_path", "device_name", "driver", "cuda_version", "parity"):
            self._require(isinstance(getattr(self, name), str), name, "text", getattr(self, name))
        size, seconds = self.plan_bytes, self.build_seconds
        self._require(type(size) is int and size > 0, "plan_bytes", "a whole number above 0", size)
        self._require(type(seconds) in (int, float) and 0 <= seconds < 1e9, "build_seconds", "seconds", seconds)
        self._require(self.flavor in ("tensorrt", "rtx"), "flavor", "'tensorrt' or 'rtx'", self.flavor)
        for name, form, example in (
            ("tensorrt_version", r"\d+(\.\d+){1,3}", "a version as 10.3.0.26"),
            ("compute_capability", r"(\d+\.\d)?", "a compute capability as 8.7, or nothing"),
            ("built_at", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00", "a time in UTC"),
        ):
            value = getattr(self, name)
            self._require(isinstance(value, str) and bool(re.fullmatch(form, value, re.A)), name, example, value)
        for name in ("inputs", "outputs"):
            specs = getattr(self, name)
            self._require(len(specs) > 0 and all(map(_is_tensor_spec, specs)), name, "one or more tensors", specs)
        self._require(isinstance(self.options, dict), "options", "values by name", self.options)

    @staticmethod
    def _require(holds: bool, name: str, expected: str, got: object) -> None:
        _require(holds, name, expected, got, "EngineInfo")

    def to_json(self) -> str:
        """Sorted, one value per line, for people and `diff`; `from_json` reads it back equal."""
        return json.dumps(asdict(self), sort_keys=True, indent=1, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str) -> EngineInfo:
        """Read what `to_json` wrote.

        Raises:
            DataError: not JSON, a key missing or unknown, or a value out of range.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            ends = {name: tuple(_tensor_spec(v) for v in values[name]) for name in ("inputs", "outputs")}
            return EngineInfo(**{**values, **ends, "spec": ModelSpec.from_json(json.dumps(values["spec"]))})
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise DataError(f"Expected the passport of an engine, but got {type(error).__name__}: {error}.") from error


def _require(holds: bool, name: str, expected: str, got: object, of: str = "ModelSpec") -> None:
    if not holds:
        raise DataError(f"{of}.{name} must be {expected}, got {got!r:.200}.")


def is_sha256(text: object) -> bool:
    """Whether `text` is a SHA-256 as sha256sum prints it."""
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def _tensor_spec(values: dict[str, Any]) -> TensorSpec:
    return TensorSpec(**{**values, "shape": tuple(values["shape"])})


def _is_tensor_spec(spec: object) -> bool:
    return (
        isinstance(spec, TensorSpec)
        and isinstance(spec.name, str)
        and isinstance(spec.dtype, str)
        and all(type(size) is int and size >= -1 for size in spec.shape)
    )
