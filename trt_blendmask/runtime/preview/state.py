"""What the page shows of one source: the newest result, and what the last minutes came to."""

from __future__ import annotations

import bisect
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trt_blendmask.coco import class_name
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sources import Source, SourceState

HISTORY_S = 300  # seconds that are remembered: what detections per class are counted over
PLOT_S = 120  # of latency
FPS_S, _LEAST_S = 5, 0.2  # over which frames per second are counted, at most and at least
_MOST_PER_SECOND = 1000  # latencies kept of one second
BUCKETS_MS = (5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0)  # of the histogram in /metrics
STARTING = SourceState("STARTING", 0.0)


@dataclass
class Second:
    """What happened within one second of the monotonic clock."""

    number: int
    frames: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    stage_ms: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)

    def copy(self) -> Second:
        return Second(self.number, self.frames, list(self.latencies_ms), Counter(self.stage_ms), Counter(self.classes))


@dataclass
class Totals:
    """Since the start. Attributes: latency_counts: per bucket of `BUCKETS_MS`, the last for what is above all."""

    frames: int = 0
    latency_ms: float = 0.0
    latency_counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_MS) + 1))
    classes: Counter[str] = field(default_factory=Counter)


class PreviewState:
    """Fed by the pipeline, read by the server; no call waits for more than a few microseconds' work of another."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: FrameResult | None = None
        self._number = 0
        self._seconds: deque[Second] = deque(maxlen=HISTORY_S)
        self._totals = Totals()
        self._source: Source | None = None
        self._dropped: Callable[[], int] = lambda: 0
        self._began_s = self._shown_s = 0.0  # the first and the newest result

    def watch(self, source: Source, dropped: Callable[[], int]) -> None:
        """From now on the state of the source is that of `source`, also while no frames come.

        Args:
            dropped: how many frames made place for newer ones.
        """
        self._dropped, self._source = dropped, source

    def show(self, result: FrameResult) -> None:
        """Take the newest result."""
        now = self._clock()
        latency_ms = 1e3 * (now - result.frame.captured_s) if result.frame.captured_s else 0.0
        stage_ms = dict(result.stage_ms)
        stage_ms["waiting"] = max(0.0, latency_ms - sum(stage_ms.values()))  # for a thread, in a queue
        found = result.detections
        classes = Counter(class_name(found, int(index)) for index in found.classes)
        with self._lock:
            if self._latest is None:
                self._began_s = now
            self._latest, self._number, self._shown_s = result, self._number + 1, now
            if not self._seconds or self._seconds[-1].number != int(now):
                self._seconds.append(Second(int(now)))
            second = self._seconds[-1]
            second.frames += 1
            if len(second.latencies_ms) < _MOST_PER_SECOND:
                second.latencies_ms.append(latency_ms)
            second.stage_ms.update(stage_ms)
            second.classes.update(classes)
            self._totals.frames += 1
            self._totals.latency_ms += latency_ms
            self._totals.latency_counts[bisect.bisect_left(BUCKETS_MS, latency_ms)] += 1
            self._totals.classes.update(classes)

    def latest(self) -> tuple[int, FrameResult | None]:
        """The newest result and its number; 0 and None before the first."""
        with self._lock:
            return self._number, self._latest

    def age_s(self) -> float | None:
        """Seconds since the newest result came; None before the first."""
        with self._lock:
            return self._clock() - self._shown_s if self._latest is not None else None

    def source(self) -> SourceState:
        return self._source.state() if self._source is not None else STARTING

    def source_numbers(self) -> dict[str, Any]:
        """Name, dropped and corrupt frames of the source."""
        source = self._source
        if source is None:
            return {"name": "", "dropped": 0, "corrupt": 0, "live": False}
        return {"name": source.name, "dropped": self._dropped(), "corrupt": source.corrupt, "live": source.live}

    def totals(self) -> Totals:
        with self._lock:
            t = self._totals
            return Totals(t.frames, t.latency_ms, list(t.latency_counts), Counter(t.classes))

    def summary(self) -> dict[str, Any]:
        """Plain JSON values for the page; times in seconds since 1970, durations in milliseconds."""
        now = self._clock()
        with self._lock:  # what takes time is done without it: the pipeline comes by here
            seconds = [s for s in self._seconds if s.number > now - HISTORY_S]
            if seconds:
                seconds[-1] = seconds[-1].copy()
            number, latest = self._number, self._latest
        latencies = sorted(ms for s in seconds if s.number > now - 60 for ms in s.latencies_ms)
        since = int(now) - FPS_S
        recent = [s for s in seconds if s.number >= since]
        recent_frames = sum(s.frames for s in recent)
        stages: Counter[str] = sum((s.stage_ms for s in recent), Counter())
        classes: Counter[str] = sum((s.classes for s in seconds), Counter())
        plot = [
            [int(now) - s.number, round(statistics.median(s.latencies_ms), 2), round(max(s.latencies_ms), 2)]
            for s in seconds
            if s.number > now - PLOT_S
        ]
        state = self.source()
        return self.source_numbers() | {
            "kind": state.kind,
            "since_wall_s": state.since_wall_s,
            "reason": state.reason,
            "reconnects": state.reconnects,
            "frames": number,
            "frame_wh": list(latest.frame.frame_wh) if latest else None,
            "fps": round(recent_frames / max(_LEAST_S, now - max(self._began_s, since)), 2),
            "latency_ms": {"p50": _percentile(latencies, 0.5), "p99": _percentile(latencies, 0.99), "plot": plot},
            "stage_ms": {stage: round(ms / max(1, recent_frames), 3) for stage, ms in stages.items()},
            "detections": len(latest.detections) if latest else 0,
            "classes": dict(classes.most_common()),
        }


def _percentile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else None
