"""One run at work: readers, network threads, the sink thread, and the main thread that watches them.

The main thread only looks, twenty times a second: a signal always finds it awake, and whatever hangs, hangs elsewhere.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace

import numpy as np

from trt_blendmask.errors import TrtBlendMaskError
from trt_blendmask.runtime.controls import Controls
from trt_blendmask.runtime.deadline import Deadline
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.flow import Flow, Ticket
from trt_blendmask.runtime.model import Model
from trt_blendmask.runtime.notify import Notify
from trt_blendmask.runtime.options import RunOptions
from trt_blendmask.runtime.progress import ProgressLine, StageClock
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sinks import Sinks
from trt_blendmask.runtime.sources import Source
from trt_blendmask.runtime.stop import StopSignals
from trt_blendmask.runtime.tracking import Tracking
from trt_blendmask.structures import Frame

MAX_BROKEN = 10  # frames in a row whose outputs are no numbers
_POLL_S = 0.05
_GRACE_S = 1.0  # after a stop, for the frames that are in the network
_CLOSE_S = 2.0  # for sources and threads at the end
_AGES = 100_000  # kept for the summary: an hour at 25 FPS


class Job:
    """Attributes:
    clock: time of the stages. tally: what has come of the frames so far.
    hangs: whether a thread is left in the network; to free what it works with would wait for it, or crash.
    """

    def __init__(
        self,
        teams: Sequence[Sequence[Model]],
        sources: Sequence[Source],
        sinks: Sinks,
        events: Events,
        options: RunOptions,
        controls: Controls,
        max_frames: int | None,
        paste: str,
        colour_by: str,
    ) -> None:
        """`teams`: models, one per thread; those of the second team are the smaller ones."""
        self.clock, self.tally, self.hangs = StageClock(), Tally(events), False
        self._teams, self._sources, self._sinks, self._events = teams, sources, sinks, events
        self._options, self._controls = options, controls
        self._paste, self._colour_by = paste, colour_by
        self._tracks = [Tracking(source.fps) for source in sources] if options.track else []
        self._expected = _expected(sources, options.every, max_frames)
        self._notify = Notify()
        self._deadline = Deadline(options.deadline_s, len(teams) > 1, events)
        self._flow: Flow[FrameResult] = Flow(sources, len(teams[0]), max_frames, self._deadline.too_old)
        self._busy_since: list[float | None] = [None] * (len(teams[0]) + 1)  # network threads, and the sink's

    @property
    def dropped(self) -> int:
        """Frames of live sources that made place for newer ones."""
        return self._flow.dropped + sum(source.dropped for source in self._sources)

    def work(self, signals: StopSignals, progress: bool) -> tuple[float, bool]:
        """All of it; returns the seconds that it took and whether a signal ended it.

        Raises:
            the error of a stage. KeyboardInterrupt: nothing was done yet, and the source is no camera.
        """
        began = time.monotonic()
        networks = [_start("network", self._detect_all, number) for number in range(len(self._teams[0]))]
        sink = _start("sink", self._write_all)
        readers = [_start("reader", self._read, number) for number in range(len(self._sources))]
        self._notify.ready()
        try:
            with closing(ProgressLine(progress, self._expected)) as line:
                stopped = self._watch(sink, signals, line)
            seconds = time.monotonic() - began
        finally:
            self._notify.stopping()
            self._flow.stop()
            closers = [_start("closer", source.close) for source in self._sources]
            end_s = time.monotonic() + _CLOSE_S
            for thread in [sink, *closers, *readers, *([] if self.hangs else networks)]:
                thread.join(max(0.0, end_s - time.monotonic()))
            self.hangs = any(thread.is_alive() for thread in networks)
        error = self._flow.error
        if error is not None and not isinstance(error, KeyboardInterrupt):
            raise error
        stopped = stopped or error is not None
        if stopped and not self.tally.frames and not any(source.live for source in self._sources):
            raise KeyboardInterrupt
        return seconds, stopped

    def _watch(self, sink: threading.Thread, signals: StopSignals, line: ProgressLine) -> bool:
        stopped_s: float | None = None
        while sink.is_alive():
            sink.join(_POLL_S)
            now_s = time.monotonic()
            *network_s, sink_s = [0.0 if since is None else now_s - since for since in self._busy_since]
            if signals.asked and stopped_s is None:
                stopped_s = now_s
                self._flow.stop()
            if stopped_s is not None and now_s - stopped_s > _GRACE_S:
                self._flow.abandon()
            elif max(network_s) > self._options.hung_s and not self.hangs:
                self._tell_hung()
            if max(*network_s, sink_s) < self._options.hung_s:
                self._notify.alive()
            line.show(self.tally.frames, self.clock)
        return stopped_s is not None

    def _tell_hung(self) -> None:
        self.hangs = True
        path, limit_s = self._teams[0][0].path, self._options.hung_s
        text = (
            f"Expected '{path}' to be done with a frame within {limit_s:g} s, but it hangs. Start the run again; if "
            "this machine is just that slow, give it longer: --watchdog 60"
        )
        self._events.publish("watchdog", f"the network has not come back for {limit_s:g} s", {"seconds": limit_s})
        self._flow.abandon(TrtBlendMaskError(text))

    def _read(self, number: int) -> None:
        error: BaseException | None = None
        try:
            with closing(self._frames(self._sources[number])) as frames:
                for frame in frames:
                    if not self._flow.offer(number, frame):
                        break
        except BaseException as caught:
            error = caught
            if len(self._sources) > 1:  # the others go on, so it is told now and not only at the end
                name = self._sources[number].name
                self._events.publish("source_ended", f"{name}: no more frames: {caught}", {"source": name})
        self._flow.read_out(error)

    def _frames(self, source: Source) -> Generator[Frame, None, None]:
        frames, count = iter(source), 0
        while True:
            while not self._controls.wait_while_paused(_POLL_S):
                if self._flow.is_over:
                    return
            with self.clock.measure("decode"):
                frame = next(frames, None)
            if frame is None:
                return
            if count % self._options.every == 0:
                yield frame
            count += 1

    def _detect_all(self, thread: int) -> None:
        ticket: Ticket | None = None
        try:
            while (ticket := self._flow.take()) is not None:
                self._flow.done(ticket, self._detect(thread, ticket))
        except BaseException as error:
            self._flow.fail(error, ticket)

    def _detect(self, thread: int, ticket: Ticket) -> FrameResult:
        spent_ms: dict[str, float] = {}
        frame, taken_s = ticket.frame, time.monotonic()
        model = self._teams[-1 if self._deadline.step == 2 else 0][thread]
        with self.clock.measure("letterbox", spent_ms):
            images, box = model.letterbox(self._options.crop(frame.image))
        with self.clock.measure("network", spent_ms), self._busy(thread):
            outputs = model.infer(images)
            found = model.collect(outputs, box)
        broken = int(outputs["count"][0]) > len(found)  # `collect` leaves out what is no number
        settings = self._controls.settings
        found = settings.keep(self._options.uncrop(found, frame.frame_wh))
        return FrameResult(
            frame,
            self._deadline.limited(found),
            self._sources[ticket.source].state(),
            spent_ms,
            self._paste,
            self._colour_by,
            settings.opacity,
            ticket.source,
            taken_s,
            broken,
        )

    def _write_all(self) -> None:
        try:
            while (result := self._flow.next_result()) is not None:
                with self._busy(-1):
                    result = self._tracked(result)
                    self._write(result)
                self._flow.written()
                self.tally.add(result, self._sources[result.source_number].live)
                now_s = time.monotonic()
                self._deadline.done(now_s - result.frame.captured_s, now_s - result.taken_s)
        except BaseException as error:
            self._flow.fail(error)

    def _tracked(self, result: FrameResult) -> FrameResult:
        if not self._tracks:
            return result
        ids = self._tracks[result.source_number].ids(result.detections, result.frame.time_s)
        return replace(result, detections=replace(result.detections, track_ids=ids))

    def _write(self, result: FrameResult) -> None:
        if self._sinks.draws:
            with self.clock.measure("overlay", result.stage_ms):
                _ = result.picture  # drawn now, so that its time is not taken for the encoder's
        if self._sinks.working:
            with self.clock.measure("encode"):
                self._sinks.write(result)

    def _busy(self, thread: int) -> ExitStack:
        """Notes, while entered, since when."""
        stack = ExitStack()
        self._busy_since[thread] = time.monotonic()
        stack.callback(self._busy_since.__setitem__, thread, None)
        return stack


class Tally:
    """What has come of the frames: `frames`, `detections`, `broken` (frames whose outputs were no numbers)."""

    def __init__(self, events: Events) -> None:
        self.frames = self.detections = self.broken = 0
        self._in_a_row, self._told = 0, 0
        self._ages: deque[float] = deque(maxlen=_AGES)
        self._events = events

    def add(self, result: FrameResult, live: bool) -> None:
        """One frame is out.

        Raises:
            TrtBlendMaskError: the network gives no numbers any more.
        """
        self.frames, self.detections = self.frames + 1, self.detections + len(result.detections)
        if live:
            self._ages.append(time.monotonic() - result.frame.captured_s)
        self.broken += result.broken
        self._in_a_row = self._in_a_row + 1 if result.broken else 0
        if result.broken and self.broken >= max(1, 10 * self._told):  # at 1, 10, 100, ...
            self._told = 10 ** (len(str(self.broken)) - 1)
            text = f"the network gave something that is no number, in {self.broken} frames so far; left out"
            self._events.publish("broken_outputs", text, {"frames": self.broken})
        if self._in_a_row >= MAX_BROKEN:
            raise TrtBlendMaskError(
                f"Expected numbers from the network, but {MAX_BROKEN} frames in a row had outputs that are none (NaN "
                "or infinite). Look at the model with trt-blendmask inspect, and build it again."
            )

    def age_ms(self) -> tuple[float, float] | None:
        """Median and 99th percentile of how old live frames were when they were out."""
        if not self._ages:
            return None
        half, most = np.percentile(list(self._ages), [50, 99]) * 1e3
        return float(half), float(most)


def _start(name: str, work: Callable[..., None], *args: int) -> threading.Thread:
    thread = threading.Thread(target=work, args=args, name=name, daemon=True)
    thread.start()
    return thread


def _expected(sources: Sequence[Source], every: int, max_frames: int | None) -> int | None:
    counts = [source.frame_count for source in sources]
    total = sum(-(-count // every) for count in counts if count is not None)
    totals = [max_frames, None if None in counts else total]
    return min((number for number in totals if number is not None), default=None)
