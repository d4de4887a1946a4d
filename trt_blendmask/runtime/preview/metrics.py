"""The numbers of a run in Prometheus' text format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from trt_blendmask.runtime.board import Board
from trt_blendmask.runtime.preview.state import BUCKETS_MS, PreviewState, Totals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_ABOUT = {  # kind and meaning
    "frames_total": ("counter", "frames that went through"),
    "frames_dropped_total": ("counter", "frames that made place for newer ones"),
    "frames_corrupt_total": ("counter", "frames that were damaged"),
    "source_up": ("gauge", "1 while frames come"),
    "source_reconnects_total": ("counter", "times that the signal came back"),
    "frame_latency_seconds": ("histogram", "from a frame's capture to its result"),
    "detections_total": ("counter", "instances found"),
    "events_total": ("counter", "what happened"),
    "preview_watchers": ("gauge", "clients that see the live picture"),
    "temperature_celsius": ("gauge", "of the board"),
    "power_watts": ("gauge", "of the board"),
}
Sample = tuple[str, Mapping[str, str], float]  # what follows the metric's name, labels, value


def metrics(states: Sequence[PreviewState], events: Mapping[str, int], board: Board, watchers: int) -> str:
    """The text of /metrics: `states` of the sources in their order; `events` counts them by kind."""
    rows: dict[str, list[Sample]] = {}
    for state in states:
        totals, source, numbers = state.totals(), state.source(), state.source_numbers()
        label = {"source": str(numbers["name"])}
        values = {
            "frames_total": totals.frames,
            "frames_dropped_total": numbers["dropped"],
            "frames_corrupt_total": numbers["corrupt"],
            "source_up": source.kind == "LIVE",
            "source_reconnects_total": source.reconnects,
        }
        for family, value in values.items():
            rows.setdefault(family, []).append(("", label, value))
        rows.setdefault("frame_latency_seconds", []).extend(_latency(label, totals))
        rows.setdefault("detections_total", []).extend(_by("class", totals.classes, label))
    rows |= {
        "events_total": _by("kind", events),
        "preview_watchers": [("", {}, watchers)],
        "temperature_celsius": _by("zone", board.celsius),
        "power_watts": _by("rail", board.watts),
    }
    return "".join(_family(f"trt_blendmask_{of}", *_ABOUT[of], samples) for of, samples in rows.items())


def _latency(label: Mapping[str, str], totals: Totals) -> list[Sample]:
    counts = list(accumulate(totals.latency_counts))
    bounds = [f"{ms / 1e3:g}" for ms in BUCKETS_MS] + ["+Inf"]
    rows: list[Sample] = [
        ("_bucket", {**label, "le": bound}, count) for bound, count in zip(bounds, counts, strict=True)
    ]
    return [*rows, ("_sum", label, totals.latency_ms / 1e3), ("_count", label, counts[-1])]


def _by(name: str, values: Mapping[str, float], more: Mapping[str, str] | None = None) -> list[Sample]:
    return [("", {**(more or {}), name: key}, value) for key, value in sorted(values.items())]


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for suffix, labels, value in samples:
        spelt = ",".join(f'{key}="{said.translate(_ESCAPES)}"' for key, said in labels.items())
        lines.append(f"{name}{suffix}{f'{{{spelt}}}' if spelt else ''} {float(value):.10g}")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""
