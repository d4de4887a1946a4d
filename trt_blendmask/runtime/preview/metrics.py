"""The numbers of a run in Prometheus' text format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

from trt_blendmask.runtime.board import Board
from trt_blendmask.runtime.preview.state import BUCKETS_MS, PreviewState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
Sample = tuple[str, Mapping[str, str], float]  # what follows the metric's name, labels, value


def metrics(state: PreviewState, events: Mapping[str, int], board: Board, watchers: int) -> str:
    """The text of /metrics; `events` counts them by kind."""
    totals, source, numbers = state.totals(), state.source(), state.source_numbers()
    name = {"source": str(numbers["name"])}
    counts = list(accumulate(totals.latency_counts))
    bounds = [f"{ms / 1e3:g}" for ms in BUCKETS_MS] + ["+Inf"]
    latency: list[Sample] = [("_bucket", {"le": le}, count) for le, count in zip(bounds, counts, strict=True)]
    latency += [("_sum", {}, totals.latency_ms / 1e3), ("_count", {}, counts[-1])]
    families: list[tuple[str, str, str, Iterable[Sample]]] = [
        ("frames_total", "counter", "frames that went through", [("", name, totals.frames)]),
        ("frames_dropped_total", "counter", "frames that made place for newer ones", [("", name, numbers["dropped"])]),
        ("frames_corrupt_total", "counter", "frames that were damaged", [("", name, numbers["corrupt"])]),
        ("source_up", "gauge", "1 while frames come", [("", name, source.kind == "LIVE")]),
        ("source_reconnects_total", "counter", "times that the signal came back", [("", name, source.reconnects)]),
        ("frame_latency_seconds", "histogram", "from a frame's capture to its result", latency),
        ("detections_total", "counter", "instances found", _by("class", totals.classes)),
        ("events_total", "counter", "what happened", _by("kind", events)),
        ("preview_watchers", "gauge", "clients that see the live picture", [("", {}, watchers)]),
        ("temperature_celsius", "gauge", "of the board", _by("zone", board.celsius)),
        ("power_watts", "gauge", "of the board", _by("rail", board.watts)),
    ]
    return "".join(_family(f"trt_blendmask_{of}", kind, text, samples) for of, kind, text, samples in families)


def _by(label: str, values: Mapping[str, float]) -> Iterable[Sample]:
    return [("", {label: key}, value) for key, value in sorted(values.items())]


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for suffix, labels, value in samples:
        spelt = ",".join(f'{key}="{said.translate(_ESCAPES)}"' for key, said in labels.items())
        lines.append(f"{name}{suffix}{f'{{{spelt}}}' if spelt else ''} {float(value):.10g}")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""
