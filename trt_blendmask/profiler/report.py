"""What a profile found: plain frozen data that goes into the JSON file and back.

Times are milliseconds, in order of time where there are several; a ratio is other / one, so above 1 is slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trt_blendmask.defaults import PERCENTILES
from trt_blendmask.errors import DataError
from trt_blendmask.files import existing_file
from trt_blendmask.profiler.plain import from_plain, plain_of

VERSION = 1
_HINT = "Give a file that 'trt-blendmask profile MODEL --json F.json' wrote."


@dataclass(frozen=True)
class Distribution:
    """Of a list of milliseconds.

    Attributes:
        percentiles: by rank, as {50.0: 12.3}. cov: standard deviation / mean.
    """

    count: int
    min_ms: float
    mean_ms: float
    percentiles: dict[float, float]
    max_ms: float
    cov: float

    def __post_init__(self) -> None:
        if 50.0 not in self.percentiles:
            raise DataError("Expected the median among the percentiles of a distribution, but it is missing.")

    @property
    def median_ms(self) -> float:
        return self.percentiles[50.0]

    @staticmethod
    def from_samples(samples: Sequence[float], percentiles: Sequence[float] = PERCENTILES) -> Distribution:
        """Of one sample or more, by linear interpolation; the median is always among the percentiles.

        Raises:
            DataError: no samples.
        """
        if not len(samples):
            raise DataError("Expected measured times, got none: measure for longer, with --duration 10s.")
        values = np.asarray(samples, dtype=np.float64)
        ranks = sorted({50.0, *map(float, percentiles)})
        found = dict(zip(ranks, np.percentile(values, ranks).tolist(), strict=True))
        mean = float(values.mean())
        cov = float(values.std() / mean) if mean > 0 else 0.0
        return Distribution(len(values), float(values.min()), mean, found, float(values.max()), cov)


@dataclass(frozen=True)
class Throughput:
    """With several frames in flight, letterbox to Detections; `seconds` it was measured for."""

    in_flight: int
    frames_per_s: float
    frames: int
    seconds: float


@dataclass(frozen=True)
class Roof:
    """The best that this device was seen to do, in 10^9 a second: multiply-adds by precision, and bytes read and
    written; `how` in words."""

    gmacs_per_s: dict[str, float]
    gbytes_per_s: float
    how: str


@dataclass(frozen=True)
class Layer:
    """One layer as the engine or ONNX Runtime ran it.

    Attributes:
        name: as the tool gives it. part: of `surgery.macs.PARTS`, finer where names tell ("backbone.res2",
            "selection.nms"), or "other". op: operator or kind of layer. precision: "FP32", "FP16", "INT8", ....
        shape: of the (first) output. macs: multiply-adds of one run. bytes: read and written in one run.
        ms: mean of a run. share: of the sum over all layers. roof_share: least time that the roof allows / ms.
        is_reformat: converts layout or type, or copies; nothing that the network asked for.
        kernel: that does it, as the tool calls it ("sm80_xmma_fprop_..."); "" where it does not tell.
        error_ms: standard error of `ms`; 0 unknown.
    """

    name: str
    part: str
    op: str
    precision: str
    shape: tuple[int, ...]
    macs: int
    bytes: int
    ms: float
    share: float
    roof_share: float | None = None
    is_reformat: bool = False
    kernel: str = ""
    error_ms: float = 0.0


@dataclass(frozen=True)
class LayerProfile:
    """Layer by layer, from runs of their own, which are not among `ModelProfile.times`.

    Attributes:
        tool: "ONNX Runtime", "TensorRT" or "trtexec".
        runs: that were profiled; `note` tells which of them the means are of, where not of all.
        whole_ms: mean of a whole run without the profiler, taken in turn with the profiled ones; 0 unknown.
        sum_ms: of the layers. gap: (whole_ms - sum_ms) / whole_ms.
        profiled_ms: mean of a whole profiled run. note: how the times were made, in words.
        shared_error_ms: standard error of what was taken off each layer, the same of all: over layers it adds up.
    """

    tool: str
    runs: int
    whole_ms: float
    sum_ms: float
    gap: float
    layers: tuple[Layer, ...]
    roof: Roof | None = None
    profiled_ms: float | None = None
    note: str = ""
    shared_error_ms: float = 0.0


@dataclass(frozen=True)
class Span:
    """A reading over some time."""

    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class ModelProfile:
    """One model.

    Attributes:
        label: a short name, unlike those of the others. sha256: of the file. how: what ran it and why, in words.
        precision: "FP32", "FP16", "INT8": of most of its multiply-adds; "" unknown.
        macs: multiply-adds of one run; None unknown. file_bytes: of the file.
        times: samples in ms in order of time: "host" (letterbox to Detections) and "network" (images in to outputs
            out), both by the host's clock; on a GPU also "gpu" (a whole frame), "h2d", "compute", "d2h" and "enqueue"
            (of the CPU, to hand a frame over). Empty where it was not timed.
        rounds: for each sample of `times`, by the same key, in which round it was taken.
        throughput: measured apart from the times; None where it was not.
        agreement: with the first model, on the same pictures: "pictures", "objects" (that the first one found above
            the score that counts), "f1", "box_iou", "mask_iou", "boundary_f"; None of the first.
        error: why it was not timed, or not to the end; "" if it was.
        layers: with --per-layer.
        conditions: readings during its turns, by the names of `Readings.series`.
        mj_per_frame: energy in millijoules, of the readings of `Readings.power`; None where nothing tells watts.
        warnings: what a reader of its figures must know.
    """

    label: str
    path: str
    sha256: str
    how: str
    precision: str
    input_hw: tuple[int, int]
    macs: int | None
    file_bytes: int
    times: dict[str, list[float]] = field(default_factory=dict)
    rounds: dict[str, list[int]] = field(default_factory=dict)
    throughput: Throughput | None = None
    agreement: dict[str, float] | None = None
    error: str = ""
    layers: LayerProfile | None = None
    conditions: dict[str, Span] = field(default_factory=dict)
    mj_per_frame: float | None = None
    warnings: tuple[str, ...] = ()

    def distribution(self, key: str, percentiles: Sequence[float] = PERCENTILES) -> Distribution | None:
        """Of `times[key]`; None where there are none."""
        samples = self.times.get(key)
        return Distribution.from_samples(samples, percentiles) if samples else None


@dataclass(frozen=True)
class Comparison:
    """Two models by one kind of time, from turns that were taken in turn.

    Attributes:
        one, other: labels. metric: a key of `ModelProfile.times`.
        ratio: other / one, with its interval from `low` to `high`.
        noise_low, noise_high: ratios that no difference at all would give here.
        differs: the ratio is outside the noise, and its whole interval beyond the least difference that counts.
    """

    one: str
    other: str
    metric: str
    ratio: float
    low: float
    high: float
    noise_low: float
    noise_high: float
    differs: bool


@dataclass(frozen=True)
class Environment:
    """The machine. Words are "" and numbers 0 where it does not tell.

    Attributes:
        cores: that this process may use. memory_bytes: likewise. packages: versions, by name.
        gpu: "" where there is none that runs engines. clocks: in words, one each. governor: of the CPU.
        power_mode: of a Jetson (nvpmodel), or the GPU's limit.
        load: of other processes when the run began, in words.
        missing: what is not available here, and why.
    """

    machine: str = ""
    cpu: str = ""
    cores: int = 0
    memory_bytes: int = 0
    os: str = ""
    kernel: str = ""
    architecture: str = ""
    python: str = ""
    onnxruntime: str = ""
    tensorrt: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    gpu: str = ""
    driver: str = ""
    cuda: str = ""
    clocks: tuple[str, ...] = ()
    power_mode: str = ""
    governor: str = ""
    load: str = ""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Readings:
    """Clocks, temperatures and watts over the run.

    Attributes:
        at_s: when, in seconds from the start. series: by name, as "CPU MHz", "cpu-thermal C", "VDD_IN W"; None where
            a sensor gave nothing that time.
        power: the series that stand for the whole board or GPU, whose watts are counted as energy; "" none.
    """

    at_s: tuple[float, ...] = ()
    series: dict[str, list[float | None]] = field(default_factory=dict)
    power: str = ""


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline.

    Attributes:
        thread: a name; stages of one thread cannot overlap. abreast: how many such threads there are.
        spans: of some frames, the same for all stages: (frame index, begin, end), in ms from the first frame's begin.
        together: frames, on average, that go through it at once, as in the network of a model with a batch.
    """

    name: str
    ms: Distribution
    thread: str
    spans: tuple[tuple[int, float, float], ...] = ()
    abreast: int = 1
    together: float = 1.0


@dataclass(frozen=True)
class PipelineProfile:
    """The whole way of a source's frames through a model.

    Attributes:
        model: its label. frames: that came out. seconds: from the start of all threads to their end. fps: frames in
            each of them.
        dropped: frames of a live source that were left out for newer ones.
        glass_to_glass: from the camera's lens to the viewer, see `profiler.glass`; None: not measured.
    """

    model: str
    source: str
    frames: int
    seconds: float
    fps: float
    stages: tuple[Stage, ...]
    glass_to_glass: Distribution | None = None
    dropped: int = 0


@dataclass(frozen=True)
class ProfileReport:
    """Everything.

    Attributes:
        command: as typed. when: ISO 8601 with the zone. source: where the pictures came from, in words.
        comparisons: of all pairs, by every kind of time that both have. percentiles: that were asked for.
        readings: of the machine's sensors meanwhile. pipeline: none or one, of the fastest model.
        warnings: what a reader of all figures must know.
        noise: by metric the relative difference that no difference at all would give here, as {"host": 0.012}.
        stopped: Ctrl-C cut it short. version: of this form.
    """

    command: str
    when: str
    environment: Environment
    source: str
    models: tuple[ModelProfile, ...]
    comparisons: tuple[Comparison, ...] = ()
    noise: dict[str, float] = field(default_factory=dict)
    readings: Readings = Readings()
    pipeline: tuple[PipelineProfile, ...] = ()
    percentiles: tuple[float, ...] = PERCENTILES
    warnings: tuple[str, ...] = ()
    stopped: bool = False
    version: int = VERSION

    def as_dict(self) -> dict[str, Any]:
        """What goes into the JSON file: all fields, and for other readers `distributions` of each model's times."""
        values = asdict(self)
        for row, model in zip(values["models"], self.models, strict=True):
            found = {key: model.distribution(key, self.percentiles) for key in model.times}
            row["distributions"] = {key: asdict(one) for key, one in found.items() if one is not None}
        return values

    @staticmethod
    def from_dict(values: object) -> ProfileReport:
        """The report of what `as_dict` gave, also after JSON; unknown fields are passed over.

        Raises:
            DataError: a field is missing or of another type, or a later version of the form.
        """
        version = values.get("version") if isinstance(values, dict) else None
        if type(version) is not int:
            raise DataError(f"Expected a profile with its version, got something else. {_HINT}")
        if version > VERSION:
            raise DataError(f"Expected a profile of version {VERSION}, got {version}: update trt-blendmask.")
        return from_plain(ProfileReport, values, "the profile")


def read_report(path: Path) -> ProfileReport:
    """The report in a JSON file.

    Raises:
        InputMissingError: no such file.
        DataError: not a profile, damaged, or of a later version.
    """
    file = existing_file(path, "the JSON of a profile", _HINT)
    try:
        values = plain_of(file.read_bytes())
    except ValueError as error:
        raise DataError(f"Expected the JSON of a profile in '{file}', but it is not JSON: {error}. {_HINT}") from error
    try:
        return ProfileReport.from_dict(values)
    except DataError as error:
        raise DataError(f"Cannot read '{file}': {error}") from error
