"""One run at work: readers, network threads, the sink thread, and the main thread that watches them.

The main thread only looks, twenty times a second: a signal always finds it awake, and whatever hangs, hangs elsewhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from trt_blendmask.errors import TrtBlendMaskError, UsageError
from trt_blendmask.runtime.controls import Controls
from trt_blendmask.runtime.deadline import Deadline
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.flow import Flow, Ticket
from trt_blendmask.runtime.model import Model
from trt_blendmask.runtime.notify import Notify
from trt_blendmask.runtime.options import RunOptions
from trt_blendmask.runtime.outlet import failure
from trt_blendmask.runtime.progress import ProgressLine, StageClock
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sinks import Sinks
from trt_blendmask.runtime.sources import Source
from trt_blendmask.runtime.stop import StopSignals
from trt_blendmask.runtime.tally import Tally
from trt_blendmask.runtime.tracking import Tracking
from trt_blendmask.structures import U8, Frame, Letterbox

_POLL_S = 0.05
# A pause of the watching thread that is longer than this means that the process was suspended; it does not count as a
# hang.
_FROZEN_S = 0.5
_GRACE_S = 1.0  # after a stop, for the frames that are in the network
_CLOSE_S, _LEAST_CLOSE_S = 1.6, 0.2  # for sources and threads, from the stop on, and from the last result on


class Job:
    """One run: its threads, and the results in order.

    Attributes:
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
        self._tracks: dict[int, Tracking] = {}  # by source, from its first frame on: a camera's rate comes with that
        self._expected = _expected(sources, options.every, max_frames)
        self._notify = Notify()
        self._deadline = Deadline(options.deadline_s, len(teams) > 1, events)
        batch = min(team[0].batch for team in teams)
        self._flow: Flow[FrameResult] = Flow(sources, len(teams[0]), max_frames, self._deadline.too_old, batch)
        self._at_work: list[tuple[float, Path] | None] = [None] * len(teams[0])  # since when, by `_awake_s`, and whose
        self._awake_s = 0.0
        self._in_sight: dict[int, bool] = {}  # whether the region lay within the newest frame, by source
        self._closers: list[threading.Thread] = []
        self._close_until_s = 0.0

    def dropped(self, source: int) -> int:
        """Frames of this source that made place for newer ones."""
        return self._flow.dropped[source] + self._sources[source].dropped

    def work(self, signals: StopSignals, progress: bool) -> tuple[float, bool]:
        """All of it, and close the sources and the sinks; returns the seconds that it took and whether a signal ended
        it.

        Raises:
            the error of a stage, or of a source. KeyboardInterrupt: nothing was done yet, and the source is no camera.
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
        except BaseException:  # Ctrl-C where the signals are not ours
            self._end(soon=True)
            raise
        finally:
            self._notify.stopping()
            self._end(soon=False)
            until_s = max(self._close_until_s, time.monotonic() + _LEAST_CLOSE_S)
            for thread in [sink, *self._closers, *readers, *([] if self.hangs else networks)]:
                thread.join(max(0.0, until_s - time.monotonic()))
            self.hangs = any(thread.is_alive() for thread in networks)
        error = self._flow.error or (None if stopped else self._flow.source_error)
        if error is not None and not isinstance(error, KeyboardInterrupt):
            raise error
        stopped = stopped or error is not None
        if stopped and not self.tally.frames and not any(source.live for source in self._sources):
            raise KeyboardInterrupt
        return seconds, stopped

    def _end(self, soon: bool) -> None:
        """Take no more frames, and close the sources; `soon`: whatever hangs is left behind."""
        self._flow.stop()
        if soon:
            self._sinks.hurry()
        if not self._closers:
            self._closers = [_start("closer", partial(failure, source.close)) for source in self._sources]
            self._close_until_s = time.monotonic() + _CLOSE_S

    def _watch(self, sink: threading.Thread, signals: StopSignals, line: ProgressLine) -> bool:
        stopped_s, looked_s = float("inf"), time.monotonic()
        while sink.is_alive():
            sink.join(_POLL_S)
            now_s = time.monotonic()
            self._awake_s += min(now_s - looked_s, _FROZEN_S)
            looked_s = now_s
            if (signals.asked or self._controls.stop_asked) and stopped_s > now_s:
                stopped_s = now_s
                self._end(soon=True)
            at_work = [one for one in self._at_work if one is not None]
            since_s, path = min(at_work, default=(self._awake_s, Path()))
            is_hung = self._awake_s - since_s > self._options.hung_s
            if now_s - stopped_s > _GRACE_S:
                self._flow.abandon()
            elif is_hung and not self.hangs:
                self._tell_hung(path)
            if not is_hung:
                self._notify.alive()
            line.show(self.tally.frames, self.clock)
        return stopped_s < float("inf")

    def _tell_hung(self, path: Path) -> None:
        self.hangs, limit_s = True, self._options.hung_s
        text = (
            f"Expected '{path}' to be done with a frame within {limit_s:g} s, but it hangs. Start the run again; if "
            "this machine is just that slow, give it longer: --watchdog 60"
        )
        self._events.publish("watchdog", f"the network has not come back for {limit_s:g} s", {"seconds": limit_s})
        self._flow.abandon(TrtBlendMaskError(text))

    def _read(self, number: int) -> None:
        error = failure(partial(self._read_all, number))
        if error and len(self._sources) > 1 and not self._flow.is_over:  # the others go on, so it is told now
            name = self._sources[number].name
            text = f"{name}: no more frames: {error}"
            error = failure(partial(self._events.publish, "source_ended", text, {"source": name})) or error
        self._flow.read_out(error)

    def _read_all(self, number: int) -> None:
        with closing(self._frames(self._sources[number])) as frames:
            for frame in frames:
                self._options.check_live(self._sources[number].live)  # an address tells with its first frame
                if not self._flow.offer(number, frame):
                    break

    def _frames(self, source: Source) -> Generator[Frame, None, None]:
        frames, count = iter(source), 0
        while True:
            while not self._controls.wait_while_paused(_POLL_S):
                if self._flow.is_over:
                    return
            with nullcontext() if source.live else self.clock.measure("decode"):  # a camera's would be waiting
                frame = next(frames, None)
            if frame is None:
                return
            if count % self._options.every == 0:
                yield frame
            count += 1

    def _detect_all(self, thread: int) -> None:
        tickets: list[Ticket] = []
        try:
            while tickets := self._flow.take():
                for ticket, result in zip(tickets, self._detect(thread, tickets), strict=True):
                    self._flow.done(ticket, result)
        except BaseException as error:
            self._flow.fail(error, *tickets[:1])

    def _detect(self, thread: int, tickets: Sequence[Ticket]) -> list[FrameResult | None]:
        """What was found in each frame; None where there was nothing to look at."""
        model, taken_s = self._teams[-1 if self._deadline.step == 2 else 0][thread], time.monotonic()
        settings = self._controls.settings
        spent_ms: list[dict[str, float]] = [{} for _ in tickets]
        boxes: dict[int, Letterbox] = {}
        for number, ticket in enumerate(tickets):
            with self.clock.measure("letterbox", spent_ms[number]):
                if (part := self._part(ticket)) is not None:
                    images, boxes[number] = model.letterbox(part, len(boxes))
        if not boxes:
            return [None] * len(tickets)
        network_ms: dict[str, float] = {}
        with self.clock.measure("network", network_ms), self._watched(thread, model.path):
            outputs = model.infer(images)
        with self.clock.measure("collect", network_ms):
            found = [model.collect(outputs, box, slot) for slot, box in enumerate(boxes.values())]
        results: list[FrameResult | None] = [None] * len(tickets)
        for slot, number in enumerate(boxes):
            ticket = tickets[number]
            whole = self._options.uncrop(found[slot], ticket.frame.frame_wh)
            results[number] = FrameResult(
                ticket.frame,
                self._deadline.limited(settings.keep(whole)),
                self._sources[ticket.source].state(),
                spent_ms[number] | network_ms,
                self._paste,
                self._colour_by,
                settings.opacity,
                ticket.source,
                taken_s,
                broken=int(outputs["count"][slot]) > len(found[slot]),  # `collect` leaves out what is no number
            )
        return results

    def _part(self, ticket: Ticket) -> U8 | None:
        """What of the frame is looked at; None: nothing, since it has become smaller.

        Raises:
            UsageError: the region is outside of the first frame.
        """
        try:
            part = self._options.crop(ticket.frame.image)
        except UsageError as error:
            if ticket.source not in self._in_sight:
                raise
            if self._in_sight[ticket.source]:
                self._in_sight[ticket.source] = False
                name = self._sources[ticket.source].name
                text = f"{name}: {error} Until then its frames are left out."
                self._events.publish("roi_outside", text, {"source": name, "frame_wh": list(ticket.frame.frame_wh)})
            return None
        self._in_sight[ticket.source] = True
        return part

    def _write_all(self) -> None:
        for work in (self._write_results, self._close_sinks):
            if error := failure(work):
                self._flow.fail(error)

    def _write_results(self) -> None:
        while (result := self._flow.next_result()) is not None:
            live = self._sources[result.source_number].live
            result = self._tracked(result)
            self._write(result, live)
            self._flow.written()
            self.tally.add(result, live)
            now_s = time.monotonic()
            self._deadline.done(now_s - result.frame.captured_s, now_s - result.taken_s)

    def _close_sinks(self) -> None:
        waits = not any(source.live for source in self._sources)
        self._sinks.close(float("inf") if waits else self._options.hung_s)

    def _tracked(self, result: FrameResult) -> FrameResult:
        if not self._options.track:
            return result
        number = result.source_number
        if number not in self._tracks:
            self._tracks[number] = Tracking(self._sources[number].fps)
        ids = self._tracks[number].ids(result.detections, result.frame.time_s)
        return replace(result, detections=replace(result.detections, track_ids=ids))

    def _write(self, result: FrameResult, live: bool) -> None:
        if self._sinks.draws:
            with self.clock.measure("paste", result.stage_ms):
                _ = result.outlined
            with self.clock.measure("draw", result.stage_ms):
                _ = result.picture  # drawn now, so that its time is not taken for the encoder's
        if self._sinks.working:
            with self.clock.measure("encode"):
                self._sinks.write(result, self._options.hung_s, waits=not live)

    @contextmanager
    def _watched(self, thread: int, path: Path) -> Iterator[None]:
        """Notes, while entered, since when."""
        self._at_work[thread] = self._awake_s, path
        try:
            yield
        finally:
            self._at_work[thread] = None


def _start(name: str, work: Callable[..., object], *args: int) -> threading.Thread:
    thread = threading.Thread(target=work, args=args, name=name, daemon=True)
    thread.start()
    return thread


def _expected(sources: Sequence[Source], every: int, max_frames: int | None) -> int | None:
    counts = [source.frame_count for source in sources]
    total = sum(-(-count // every) for count in counts if count is not None)
    totals = [max_frames, None if None in counts else total]
    return min((number for number in totals if number is not None), default=None)
