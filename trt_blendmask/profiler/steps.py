"""The steps of a profile, one after the other; what was found by then is kept, whatever ends them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from trt_blendmask.backends.tensorrt import TensorRtSession
from trt_blendmask.calibrate.pictures import LISTS, left_out
from trt_blendmask.defaults import PERCENTILES
from trt_blendmask.errors import DataError, TrtBlendMaskError, first_line
from trt_blendmask.files import file_sha256
from trt_blendmask.inspect import inspect
from trt_blendmask.layout import counted
from trt_blendmask.profiler import pictures
from trt_blendmask.profiler.correctness import Reference, fault
from trt_blendmask.profiler.layers import under_one_roof
from trt_blendmask.profiler.layers.onnxruntime import onnxruntime_layers
from trt_blendmask.profiler.layers.tensorrt import tensorrt_layers
from trt_blendmask.profiler.pipeline import profile_pipeline
from trt_blendmask.profiler.report import LayerProfile, ModelProfile, PipelineProfile, Roof
from trt_blendmask.profiler.roof import measure_roof
from trt_blendmask.profiler.times import Runner, dropping, measure_throughput, take_turns
from trt_blendmask.runtime.choice import GpuOptions, open_session
from trt_blendmask.runtime.model import Model, checked_spec
from trt_blendmask.runtime.sources.grammar import parse
from trt_blendmask.structures import U8
from trt_blendmask.surgery.part_rows import sum_of

Tick = Callable[[str, float], None]
_CORRECT_ON = 8  # pictures
_THROUGHPUT = 0.5  # of the duration
_LAYERS_ON = 4  # pictures
_PIPELINE_S = 2.0  # at least
_BATCH = "its times, rate and energy are those of a whole batch with a single frame in it."


@dataclass(frozen=True)
class ProfileOptions:
    """What is measured, and how.

    Attributes:
        source, images: where pictures come from, see `pictures`; both empty: synthetic:conveyor. random: noise.
        duration, warmup: seconds of each model; timing goes on for up to ten times as long where the machine is noisy.
        per_layer: time each layer, too, in runs of their own.
        pipeline: the whole way from the source into a video, too, with the fastest model; not of noise.
        force: time a model that finds other things than the first one, too.
        device, gpu: see `trt_blendmask.load`.
    """

    source: str = ""
    images: str = ""
    random: bool = False
    duration: float = 3.0
    warmup: float = 0.5
    percentiles: tuple[float, ...] = PERCENTILES
    per_layer: bool = False
    pipeline: bool = True
    force: bool = False
    device: str = "auto"
    gpu: GpuOptions | None = None


class Steps:
    """Models while they are profiled.

    Attributes:
        runners: one of each model. models: what is known of each, without its times.
        source: where the pictures come from, in words.
        pipeline, warnings: see `ProfileReport`.
    """

    def __init__(self, stack: ExitStack, paths: Sequence[Path], options: ProfileOptions, tick: Tick) -> None:
        """Open all; closed by `stack`."""
        self._options, self._tick = options, tick
        tick("opening models", 0.0)
        self.runners = [_open(stack, path, label, options) for path, label in zip(paths, labels(paths), strict=True)]
        tick("taking pictures", 0.0)
        self._images, self.source, unreadable = _pictures(options, self.runners[0].model)
        self.models = [_facts(path, runner) for path, runner in zip(paths, self.runners, strict=True)]
        self.pipeline: list[PipelineProfile] = []
        self.warnings: list[str] = []
        if unreadable:
            self.warnings.append(left_out(unreadable))
        for k, runner in enumerate(self.runners):
            if runner.model.batch > 1:
                self._warn(k, f"Takes {runner.model.batch} frames at once, of which one is filled here: {_BATCH}")

    def take(self) -> None:
        """All steps."""
        self._check()
        self._time()
        if self._options.per_layer:
            self._look_into_layers()
        if self._options.pipeline and not self._options.random:
            self._run_pipeline()

    def _check(self) -> None:
        """Compare what the models find; one that finds other things than the first is not timed."""
        first, *others = self.runners
        if not others:
            return
        images = self._images
        if self._options.random:  # in noise even a right model finds other things
            images = pictures.of_source(pictures.DEFAULT)
            self.source += f"; what the models find is compared on frames of {pictures.DEFAULT}"
        with dropping(first):
            reference = Reference(first.model, images[:: max(1, len(images) // _CORRECT_ON)][:_CORRECT_ON])
        if first.error:
            self.warnings.append(f"What the models find was not compared, as {first.label} failed.")
            return
        for k, runner in enumerate(others, 1):
            self._tick("comparing what the models find", k / len(self.runners))
            with dropping(runner):
                self._judge(k, reference.agreement(runner.model))

    def _judge(self, k: int, seen: dict[str, float] | str) -> None:
        """By how far a model agrees with the first one, or why that cannot be said."""
        if isinstance(seen, str):
            wrong = seen
        else:
            self.models[k] = replace(self.models[k], agreement=seen)
            wrong = fault(seen, self.runners[0].label)
        if wrong and self._options.force:
            self._warn(k, f"Timed although {wrong}.")
        elif wrong:
            self.runners[k].error = f"{wrong}. To time it all the same, type --force"

    def _time(self) -> None:
        options, images = self._options, self._images
        runners = [runner for runner in self.runners if not runner.error]
        take_turns(runners, images, options.duration, options.warmup, self._tick)
        for k, runner in enumerate(runners):
            self._tick("frames in flight", k / len(runners))
            if not runner.error:
                measure_throughput(runner, images, _THROUGHPUT * options.duration)

    def _look_into_layers(self) -> None:
        roof: Roof | None = None
        for k, runner in enumerate(self.runners):
            self._tick("timing layers", k / len(self.runners))
            if runner.error:
                continue
            with _aside(partial(self._warn, k), "Its layers could not be timed"):
                layers = _layers(runner, self._images)
                self.models[k] = replace(self.models[k], layers=layers)
                if layers.tool == "ONNX Runtime":  # of a GPU it is not measured
                    roof = roof or measure_roof()
                    self.models = under_one_roof(self.models, roof)

    def _run_pipeline(self) -> None:
        timed = [k for k, runner in enumerate(self.runners) if runner.times.get("host") and not runner.error]
        if not timed:
            return
        k = min(timed, key=lambda k: float(np.median(self.runners[k].times["host"])))
        options, model = self._options, self.models[k]
        self._tick("the whole pipeline", 0.0)
        is_list = Path(options.images).suffix.lower() in LISTS  # which `run` does not read
        source = options.source or (options.images if not is_list else "") or pictures.PIPELINE
        with _aside(self.warnings.append, "The whole pipeline was not measured, or not to its end"):
            for found in profile_pipeline(
                model.path,
                model.label,
                source,
                seconds=max(_PIPELINE_S, options.duration),
                percentiles=options.percentiles,
                device=options.device,
                gpu=options.gpu,
                warn=self.warnings.append,
            ):
                self.pipeline = [found]

    def _warn(self, k: int, words: str) -> None:
        self.models[k] = replace(self.models[k], warnings=(*self.models[k].warnings, words))


@contextmanager
def _aside(warn: Callable[[str], None], words: str) -> Iterator[None]:
    """Whatever fails here, be it a fault of ours or of a library's, takes no times along that were measured."""
    try:
        yield
    except TrtBlendMaskError as error:
        warn(f"{words}: {error}")
    except Exception as error:
        warn(f"{words}: {type(error).__name__}: {first_line(error)}.")


def _layers(runner: Runner, images: Sequence[U8]) -> LayerProfile:
    inputs = [runner.model.letterbox(image)[0].copy() for image in images[:_LAYERS_ON]]
    if isinstance(runner.session, TensorRtSession):
        return tensorrt_layers(runner.session, inputs)
    return onnxruntime_layers(Path(runner.session.path), inputs)


def labels(models: Sequence[Path]) -> list[str]:
    """A short name for each model, no two alike."""
    names = [path.name for path in models]
    return [f"{name} ({k})" if names.count(name) > 1 else name for k, name in enumerate(names, 1)]


def _open(stack: ExitStack, path: Path, label: str, options: ProfileOptions) -> Runner:
    session, why = open_session(path, options.device, 0, options.gpu)
    stack.callback(session.close)
    return Runner(label, Model(session, checked_spec(session), why), session)


def _pictures(options: ProfileOptions, first: Model) -> tuple[list[U8], str, int]:
    """The pictures, in words where they come from, and how many more cannot be read."""
    unreadable = 0
    if options.random:
        images, source = pictures.of_noise(first.spec.input_hw), "noise"
    elif options.images:
        (images, unreadable), source = pictures.of_images(options.images), options.images
    else:
        text = options.source or pictures.DEFAULT
        images, source = pictures.of_source(text), parse(text).name  # which hides passwords
    height, width = images[0].shape[:2]
    chosen = "" if options.source or options.images or options.random else ", as no other source was named"
    words = f"{counted(len(images), 'picture')} of {source}, the first of {width} x {height}{chosen}"
    return images, words, unreadable


def _facts(path: Path, runner: Runner) -> ModelProfile:
    """What there is to know before anything is timed."""
    try:
        seen = inspect(path)
        total, sha256, size = sum_of(seen.parts), seen.sha256, seen.file_bytes
    except DataError:  # of a kind that runs but that `inspect` does not know
        total, sha256, size = sum_of(()), file_sha256(path), path.stat().st_size
    spec = runner.model.spec
    precision = max(total.macs, key=lambda name: total.macs[name]) if total.total else spec.precision.upper()
    return ModelProfile(
        runner.label, str(path), sha256, runner.model.how, precision, spec.input_hw, total.total or None, size
    )
