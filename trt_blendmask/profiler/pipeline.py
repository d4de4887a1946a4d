"""The whole way of a source's frames, as `run` goes it: when each stage worked on which frame, and glass to glass."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from trt_blendmask.defaults import PERCENTILES, SHOWN_SCORE
from trt_blendmask.errors import DataError, TrtBlendMaskError
from trt_blendmask.profiler.glass import GlassSink, PaintingCamera, below, has_room
from trt_blendmask.profiler.report import Distribution, PipelineProfile, Stage
from trt_blendmask.runtime.choice import GpuOptions
from trt_blendmask.runtime.controls import Controls, Settings
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.job import Job
from trt_blendmask.runtime.model import Model
from trt_blendmask.runtime.options import RunOptions
from trt_blendmask.runtime.pipeline import load_teams
from trt_blendmask.runtime.recording.recorder import Recorder
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sinks import Sink, Sinks
from trt_blendmask.runtime.sources import LiveOptions, Source, SourceState, open_source
from trt_blendmask.runtime.sources.live import LiveSource
from trt_blendmask.runtime.stop import StopSignals
from trt_blendmask.structures import U8, Frame

DRAWN = 12  # frames in the waterfall
_NETWORK = ("letterbox", "network", "collect")  # stages of the network's threads
_SINK = ("paste", "draw", "encode")
_WARM_UP = 2  # frames of each network that are left out
_CAMERA_FPS = 25.0
_SEEN = 25  # pictures that the camera with the time code shows in turn
Spans = dict[str, tuple[float, float]]  # of one frame: begin and end of each stage, by time.monotonic


def profile_pipeline(
    path: str | os.PathLike[str],
    label: str,
    source: str,
    seconds: float,
    percentiles: tuple[float, ...] = PERCENTILES,
    device: str = "auto",
    gpu: GpuOptions | None = None,
    warn: Callable[[str], None] = lambda _words: None,
) -> Iterator[PipelineProfile]:
    """Run a source through the model and into a video, with all the threads that `run` has.

    Yields:
        what was measured as soon as it was: without glass to glass, then with it.

    Args:
        source: as `run` takes. seconds: at most, of the source and then of the camera with the time code.
        device, gpu: see `trt_blendmask.load`.
        warn: told that a recording broke off, and why glass to glass was not measured; the rest is kept.

    Raises:
        as `trt_blendmask.run`; DataError: too few frames. KeyboardInterrupt: Ctrl-C.
    """
    events = Events()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trt-blendmask-")))
        models = load_teams(stack, path, RunOptions(), device, gpu)[0]
        live = LiveOptions(wait=False, max_retries=0)  # a camera that goes away must not hold up the rest
        opened = stack.enter_context(closing(open_source(source, live, events)))
        watched = WatchedSource(opened, seconds)
        sink = WatchedSink(Recorder(folder / "run.mkv", lambda: opened.fps, events), watched)
        job, took_s = _work(models, watched, sink, events, RunOptions())
        if opened.cut_short:
            warn(opened.cut_short)
        everything = sink.frames()
        frames = everything[_WARM_UP * len(models) :]
        if not frames:
            longer = "measure for longer, with --duration 10s, or " if took_s >= seconds else ""
            raise DataError(
                f"Expected more than {_WARM_UP * len(models)} frames from '{opened.name}', got {len(everything)}: "
                f"{longer}name another source, with --source synthetic:conveyor"
            )
        fps, stages = len(everything) / took_s, _stages(frames, len(models), percentiles)
        found = PipelineProfile(label, opened.name, len(everything), took_s, fps, stages, dropped=job.dropped(0))
        yield found
        if ages := _ages(models, sink.images, seconds, warn):
            yield replace(found, glass_to_glass=Distribution.from_samples(ages, percentiles))


def glass_to_glass(models: Sequence[Model], images: Sequence[U8], seconds: float) -> list[float]:
    """Milliseconds from the light before a camera's lens to what a viewer sees, of each picture that has a readable
    time code; the camera sees those of `images` (uint8 [H, W, 3] BGR) in turn that have room for one and the size of
    the first of these. Empty where there is no such picture."""
    roomy = [image for image in images if has_room(image)]
    if not roomy:
        return []
    images = [image for image in roomy if image.shape == roomy[0].shape]  # cameras do not change their size
    events, sink = Events(), GlassSink()
    options = RunOptions(roi=below((images[0].shape[1], images[0].shape[0])))
    source = LiveSource(
        "time code", lambda left: PaintingCamera(images, _CAMERA_FPS, seconds, left), LiveOptions(), events
    )
    with closing(source):
        _work(models, source, sink, events, options)
    return sink.ages_ms[_WARM_UP * len(models) :]


def _ages(models: Sequence[Model], images: Sequence[U8], seconds: float, warn: Callable[[str], None]) -> list[float]:
    """As `glass_to_glass`; none where it fails, with a warning."""
    why = "no picture has room for a time code, or none could be read."
    try:
        ages = glass_to_glass(models, images, seconds)
    except TrtBlendMaskError as error:
        ages, why = [], str(error)
    if not ages:
        warn(f"Glass to glass was not measured: {why}")
    return ages


def _work(
    models: Sequence[Model], source: Source, sink: Sink, events: Events, options: RunOptions
) -> tuple[Job, float]:
    sinks = Sinks([sink], events, exit_on_failure=True)
    controls = Controls(Settings(score=SHOWN_SCORE))
    job = Job([models], [source], sinks, events, options, controls, None, "exact", "class")
    with closing(sinks), StopSignals() as signals:
        seconds, stopped = job.work(signals, progress=False)
    if stopped:
        raise KeyboardInterrupt
    return job, seconds


def _stages(frames: Sequence[tuple[int, Spans]], networks: int, percentiles: Sequence[float]) -> tuple[Stage, ...]:
    """Times over all frames; spans of some in the middle."""
    first = max(0, (len(frames) - DRAWN) // 2)
    drawn = frames[first : first + DRAWN]
    began_s = min(begin for _, spans in drawn for begin, _ in spans.values())
    stages = []
    for name in frames[0][1]:
        times = [1e3 * (spans[name][1] - spans[name][0]) for _, spans in frames]
        thread = "network" if name in _NETWORK else "sink" if name in _SINK else "reader"
        shown = tuple(
            (index, round(1e3 * (spans[name][0] - began_s), 4), round(1e3 * (spans[name][1] - began_s), 4))
            for index, spans in drawn
        )
        abreast = networks if thread == "network" else 1
        together = len(frames) / len({spans[name] for _, spans in frames})
        stages.append(Stage(name, Distribution.from_samples(times, percentiles), thread, shown, abreast, together))
    return tuple(stages)


class WatchedSource:
    """Another source, for at most so many seconds from its first frame on; notes when each frame was decoded.

    Attributes:
        decoded: (begin, end) by frame index, by `time.monotonic`; of a live source none: its frames come by themselves.
    """

    def __init__(self, source: Source, seconds: float) -> None:
        self.name, self.fps, self.live = source.name, source.fps, source.live
        self.frame_count: int | None = None
        self.decoded: dict[int, tuple[float, float]] = {}
        self._source, self._seconds = source, seconds

    @property
    def corrupt(self) -> int:
        return self._source.corrupt

    @property
    def dropped(self) -> int:
        return self._source.dropped

    @property
    def cut_short(self) -> str:
        return self._source.cut_short

    def state(self) -> SourceState:
        return self._source.state()

    def __iter__(self) -> Iterator[Frame]:
        began_s, first_s = time.monotonic(), None
        for frame in self._source:
            now_s = time.monotonic()
            first_s = now_s if first_s is None else first_s
            if not self._source.live:
                self.decoded[frame.index] = began_s, now_s
            yield frame
            began_s = time.monotonic()
            if began_s - first_s > self._seconds:
                break

    def close(self) -> None:
        self._source.close()


class WatchedSink:
    """Another sink; notes when each stage worked on each frame.

    Attributes:
        images: some of the frames.
    """

    draws = True

    def __init__(self, sink: Sink, source: WatchedSource) -> None:
        self.name, self.check, self.close = sink.name, sink.check, sink.close
        self.images: list[U8] = []
        self._noted: list[tuple[int, float, dict[str, float], Spans]] = []  # index, taken_s, stage_ms, other spans
        self._sink, self._source = sink, source

    @property
    def written(self) -> list[Path]:
        return self._sink.written

    def write(self, result: FrameResult) -> None:
        began_s = time.monotonic()
        self._sink.write(result)
        drew_s = began_s - 1e-3 * result.stage_ms["draw"]
        out = {
            "paste": (drew_s - 1e-3 * result.stage_ms["paste"], drew_s),
            "draw": (drew_s, began_s),
            "encode": (began_s, time.monotonic()),
        }
        self._noted.append((result.frame.index, result.taken_s, result.stage_ms, out))
        if len(self.images) < _SEEN:
            self.images.append(result.frame.image)

    def frames(self) -> list[tuple[int, Spans]]:
        """Index and spans of each frame, in order. Frames that were taken together are letterboxed one after the
        other, and then go through the network together."""
        ready_s: dict[float, float] = {}
        frames: list[tuple[int, Spans]] = []
        for index, taken_s, stage_ms, _ in self._noted:
            begin_s = ready_s.get(taken_s, taken_s)
            ready_s[taken_s] = begin_s + 1e-3 * stage_ms["letterbox"]
            decoded = self._source.decoded.get(index)
            before: Spans = {"decode": decoded} if decoded else {}
            frames.append((index, {**before, "letterbox": (begin_s, ready_s[taken_s])}))
        for (_, spans), (_, taken_s, stage_ms, out) in zip(frames, self._noted, strict=True):
            begin_s = ready_s[taken_s]
            for name in _NETWORK[1:]:
                spans[name] = begin_s, begin_s + 1e-3 * stage_ms[name]
                begin_s = spans[name][1]
            spans.update(out)
        return frames
