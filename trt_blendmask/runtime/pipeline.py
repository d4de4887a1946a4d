"""`run`: a source through the model into a video and JSON lines. `predict` (pictures) is in `predict.py`.

source thread            network threads                 sink thread
decode ──────▶ Frame ──▶ letterbox ─▶ network ─▶ Detections ──▶ overlay ─▶ encode

Several frames are in the network at a time, each on few cores: threads that share one small network wait for each other
more than they work as soon as the decoder and the encoder want the cores, too.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from trt_blendmask.backends.onnxruntime import available_cores
from trt_blendmask.errors import SourceUnavailableError
from trt_blendmask.runtime.choice import GpuOptions
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.model import Model, load
from trt_blendmask.runtime.overlay import check_choices
from trt_blendmask.runtime.progress import ProgressLine, StageClock, spell
from trt_blendmask.runtime.recording import Recording
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sinks import Sinks
from trt_blendmask.runtime.sources import LiveOptions, Source, open_source
from trt_blendmask.runtime.workers import Ahead, Behind, abreast
from trt_blendmask.structures import Frame

_MOST_NAMES = 6  # of outputs in a summary
MAX_ABREAST = 4  # frames in the network at a time; each needs its own activations


@dataclass(frozen=True)
class RunReport:
    """What a run did.

    Attributes:
        frames, detections: how many went through, how many instances were found.
        seconds: wall time from the first frame's decoding to the last frame's writing.
        stage_ms: mean milliseconds per frame of each stage; stages overlap, so their sum may exceed 1000 / fps.
        corrupt: frames that were damaged: shown as far as they could be decoded, or left out.
        dropped: frames of a live source that made place for newer ones.
        stopped: True where Ctrl-C ended it early.
        outputs: the files and folders that were written.
        failures: why outputs were stopped before the end, a sentence each.
        how: what ran the network and why, in words.
    """

    frames: int
    detections: int
    seconds: float
    stage_ms: dict[str, float]
    corrupt: int
    stopped: bool
    outputs: tuple[Path, ...] = ()
    how: str = ""
    dropped: int = 0
    failures: tuple[str, ...] = ()

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def summary(self) -> str:
        """One line for a person."""
        stages = f" ({spell(self.stage_ms)})" if self.stage_ms else ""
        text = f"{self.frames} frames in {self.seconds:.1f} s, {self.fps:.1f} FPS{stages}, {self.detections} detections"
        text += f", {self.corrupt} corrupt frames" if self.corrupt else ""
        text += f", {self.dropped} dropped for newer ones" if self.dropped else ""
        text += ", stopped early" if self.stopped else ""
        text += f", outputs stopped by errors: {len(self.failures)}" if self.failures else ""
        names = [str(path) for path in self.outputs]
        if len(names) > _MOST_NAMES:
            names[2:-1] = [f"{len(names) - 3} more"]
        return text + (f": wrote {', '.join(names)}" if names else "")


def run(
    model: str | os.PathLike[str],
    source: str | os.PathLike[str],
    save: Path | None = None,
    json: Path | None = None,
    score: float | None = None,
    max_frames: int | None = None,
    progress: bool = False,
    paste: str = "exact",
    colour_by: str = "class",
    device: str = "auto",
    gpu: GpuOptions | None = None,
    live: LiveOptions | None = None,
    events: Events | None = None,
    recording: Recording | None = None,
) -> RunReport:
    """Find the instances in every frame of `source`.

    Args:
        model: a deployable ONNX or an engine. device, gpu: see `trt_blendmask.load`.
        source: a file, folder, camera or address, as `trt_blendmask.runtime.sources.grammar.TAKES` says.
        save: overlay video to write (.mp4 or .mkv). json: file with one line per frame, "-" for standard output.
        score: leave out what scores less. max_frames: stop after so many.
        progress: show a bar on standard error.
        paste: "exact" or "reference", see `trt_blendmask.paste`. colour_by: "class" or "instance".
        live: how a source that may break is treated. events: told when it breaks and comes back, and what outputs do.
        recording: more about what is kept; `save` and `json` go before its own.

    Ctrl-C ends the run early, but cleanly. Whatever ends it, the outputs hold what was done so far; before the first
    frame none is touched. One that fails is left out, see `RunReport.failures`, and the run goes on.

    Raises:
        UsageError, InputMissingError, DataError: options, files or their contents that do not do.
        OutputError: no output can be written from the start, or one failed and `recording` says to end then.
    """
    recording = recording or Recording()
    recording = replace(recording, save=save or recording.save, json=json or recording.json)
    recording.check(model, source)
    check_choices(paste, colour_by)
    events = events or Events()
    with ExitStack() as stack:
        cores = available_cores()
        loaded = stack.enter_context(load(model, device, cores // min(cores, MAX_ABREAST), gpu))
        opened = stack.enter_context(closing(open_source(os.fspath(source), live, events)))
        sinks = recording.open(events, opened.fps)
        with closing(sinks):
            report = _Job(_twins(loaded), opened, sinks, score, max_frames, progress, paste, colour_by).work()
    return replace(report, how=loaded.how, outputs=sinks.written, failures=tuple(sinks.failures))


class _Job:
    """One run: the loop over the frames."""

    def __init__(
        self,
        models: list[Model],
        source: Source,
        sinks: Sinks,
        score: float | None,
        max_frames: int | None,
        progress: bool,
        paste: str,
        colour_by: str,
    ) -> None:
        self._source, self._sinks, self._score, self._threads = source, sinks, score, len(models)
        self._idle: queue.SimpleQueue[Model] = queue.SimpleQueue()
        for model in models:
            self._idle.put(model)
        self._max_frames, self._progress = max_frames, progress
        self._paste, self._colour_by = paste, colour_by
        self._clock = StageClock()

    def work(self) -> RunReport:
        frames, detected, stopped = 0, 0, False
        began = time.perf_counter()
        expected = [n for n in (self._source.frame_count, self._max_frames) if n is not None]
        with ExitStack() as stack:
            behind = Behind(self._write)
            stack.callback(behind.abort)
            line = stack.enter_context(closing(ProgressLine(self._progress, min(expected, default=None))))
            ahead: Iterable[Frame] = self._frames()
            if not self._source.live:  # a live source captures in a thread of its own, and what is read ahead gets old
                ahead = stack.enter_context(closing(Ahead(ahead)))
            stack.callback(self._source.close)  # ends the wait for a picture, before that thread is waited for
            try:
                for _, result in stack.enter_context(closing(abreast(self._detect, ahead, self._threads))):
                    behind.put(result)
                    frames, detected = frames + 1, detected + len(result.detections)
                    line.step(self._clock)
            except KeyboardInterrupt:
                if frames == 0 and not self._source.live:
                    raise  # nothing was done
                stopped = True
            try:
                behind.close()
            except KeyboardInterrupt:  # while the last frames are written: they are still written
                stopped = True
                behind.close()
            seconds = time.perf_counter() - began
        mean_ms = self._clock.mean_ms(frames)
        return RunReport(
            frames, detected, seconds, mean_ms, self._source.corrupt, stopped, dropped=self._source.dropped
        )

    def _frames(self) -> Iterator[Frame]:
        frames = iter(self._source)
        done = 0
        while self._max_frames is None or done < self._max_frames:
            with self._clock.measure("decode"):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame
            done += 1

    def _detect(self, frame: Frame) -> FrameResult:
        spent_ms: dict[str, float] = {}
        model = self._idle.get()
        try:
            with self._clock.measure("letterbox", spent_ms):
                images, box = model.letterbox(frame.image)
            with self._clock.measure("network", spent_ms):
                found = model.collect(model.infer(images), box)
        finally:
            self._idle.put(model)
        found = found if self._score is None else found.above(self._score)
        return FrameResult(frame, found, self._source.state(), spent_ms, self._paste, self._colour_by)

    def _write(self, result: FrameResult) -> None:
        if self._sinks.draws:
            with self._clock.measure("overlay", result.stage_ms):
                _ = result.picture  # drawn now, so that its time is not taken for the encoder's
        if self._sinks.working:
            with self._clock.measure("encode"):
                self._sinks.write(result)


def _twins(model: Model) -> list[Model]:
    """The model and as many twins as are of use, or for as many as the GPU has the memory."""
    models = [model]
    with suppress(SourceUnavailableError):
        while len(models) < min(model.abreast, MAX_ABREAST):
            models.append(model.twin())
    return models
