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
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from trt_blendmask.backends.onnxruntime import available_cores
from trt_blendmask.files import atomic_output, check_outputs
from trt_blendmask.runtime.model import Model, load
from trt_blendmask.runtime.overlay import check_choices, draw
from trt_blendmask.runtime.progress import ProgressLine, StageClock, spell
from trt_blendmask.runtime.sinks import JsonLinesSink, VideoSink, check_video_name
from trt_blendmask.runtime.source import Source, open_source
from trt_blendmask.runtime.workers import Ahead, Behind, abreast
from trt_blendmask.structures import Detections, Frame

MAX_ABREAST = 4  # frames in the network at a time; each needs its own activations


@dataclass(frozen=True)
class RunReport:
    """What a run did.

    Attributes:
        frames, detections: how many went through, how many instances were found.
        seconds: wall time from the first frame's decoding to the last frame's writing.
        stage_ms: mean milliseconds per frame of each stage; stages overlap, so their sum may exceed 1000 / fps.
        corrupt: frames that could not be decoded and were left out.
        stopped: True where Ctrl-C ended it early.
        outputs: the files that were written.
    """

    frames: int
    detections: int
    seconds: float
    stage_ms: dict[str, float]
    corrupt: int
    stopped: bool
    outputs: tuple[Path, ...]

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def summary(self) -> str:
        """One line for a person."""
        text = (
            f"{self.frames} frames in {self.seconds:.1f} s, {self.fps:.1f} FPS ({spell(self.stage_ms)}), "
            f"{self.detections} detections"
        )
        text += f", {self.corrupt} corrupt frames left out" if self.corrupt else ""
        text += ", stopped early" if self.stopped else ""
        return text + (f": wrote {', '.join(map(str, self.outputs))}" if self.outputs else "")


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
) -> RunReport:
    """Find the instances in every frame of `source`.

    Args:
        model: a deployable ONNX.
        source: video file, folder of pictures, picture, or "synthetic:conveyor".
        save: overlay video to write (.mp4 or .mkv). json: file with one line per frame.
        score: leave out what scores less. max_frames: stop after so many.
        progress: show a bar on standard error.
        paste: "exact" or "reference", see `trt_blendmask.paste`. colour_by: "class" or "instance".

    Ctrl-C ends the run early, but cleanly: the files hold what was done so far. Any error leaves no file behind.

    Raises:
        UsageError, InputMissingError, DataError: options, files or their contents that do not do.
        OutputError: a file could not be written.
    """
    outputs = _checked_outputs(save, json, (model, source))
    check_choices(paste, colour_by)
    with ExitStack() as stack:
        cores = available_cores()
        side_by_side = min(cores, MAX_ABREAST)
        loaded = stack.enter_context(load(model, threads=cores // side_by_side))
        opened = stack.enter_context(closing(open_source(os.fspath(source))))
        video_path = stack.enter_context(atomic_output(save)) if save else None
        lines_path = stack.enter_context(atomic_output(json)) if json else None
        models = [loaded, *(loaded.twin() for _ in range(side_by_side - 1))]
        job = _Job(models, opened, score, max_frames, progress, paste, colour_by)
        with ExitStack() as sinks:
            if video_path is not None and save is not None:
                job.video = sinks.enter_context(closing(VideoSink(video_path, opened.fps, save)))
            if lines_path is not None:
                job.lines = sinks.enter_context(closing(JsonLinesSink(lines_path)))
            report = job.work(outputs)
    return report


class _Job:
    """One run: the sinks (set by `run`) and the loop over the frames."""

    def __init__(
        self,
        models: list[Model],
        source: Source,
        score: float | None,
        max_frames: int | None,
        progress: bool,
        paste: str,
        colour_by: str,
    ) -> None:
        self._source, self._score, self._threads = source, score, len(models)
        self._idle: queue.SimpleQueue[Model] = queue.SimpleQueue()
        for model in models:
            self._idle.put(model)
        self._max_frames, self._progress = max_frames, progress
        self._paste, self._colour_by = paste, colour_by
        self._clock = StageClock()
        self.video: VideoSink | None = None
        self.lines: JsonLinesSink | None = None

    def work(self, outputs: tuple[Path, ...]) -> RunReport:
        frames, detected, stopped = 0, 0, False
        began = time.perf_counter()
        expected = [n for n in (self._source.frame_count, self._max_frames) if n is not None]
        with ExitStack() as stack:
            behind = Behind(self._write)
            stack.callback(behind.abort)
            line = stack.enter_context(closing(ProgressLine(self._progress, min(expected, default=None))))
            ahead = stack.enter_context(closing(Ahead(self._frames())))
            try:
                for frame, found in stack.enter_context(closing(abreast(self._detect, ahead, self._threads))):
                    behind.put((frame, found))
                    frames, detected = frames + 1, detected + len(found)
                    line.step(self._clock)
            except KeyboardInterrupt:
                if frames == 0:
                    raise  # nothing worth keeping
                stopped = True
            try:
                behind.close()
            except KeyboardInterrupt:  # while the last frames are written: they are still written
                stopped = True
                behind.close()
            seconds = time.perf_counter() - began
        return RunReport(frames, detected, seconds, self._clock.mean_ms(frames), self._source.corrupt, stopped, outputs)

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

    def _detect(self, frame: Frame) -> Detections:
        model = self._idle.get()
        try:
            with self._clock.measure("letterbox"):
                images, box = model.letterbox(frame.image)
            with self._clock.measure("network"):
                found = model.collect(model.infer(images), box)
        finally:
            self._idle.put(model)
        return found if self._score is None else found.above(self._score)

    def _write(self, item: tuple[Frame, Detections]) -> None:
        frame, found = item
        if self.lines is not None:
            with self._clock.measure("encode"):
                self.lines.write(frame, found.to_coco(self._paste))
        if self.video is not None:
            with self._clock.measure("overlay"):
                draw(frame.image, found, self._paste, self._colour_by)
            with self._clock.measure("encode"):
                self.video.write(frame.image, frame.time_s)


def _checked_outputs(
    save: Path | None, json: Path | None, inputs: Iterable[str | os.PathLike[str]]
) -> tuple[Path, ...]:
    outputs = tuple(path for path in (save, json) if path is not None)
    if save is not None:
        check_video_name(save)
    check_outputs(outputs, inputs)
    return outputs
