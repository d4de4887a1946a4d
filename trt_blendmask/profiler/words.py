"""Numbers and findings of a profile as words."""

from __future__ import annotations

from collections.abc import Sequence

from trt_blendmask.layout import counted
from trt_blendmask.profiler.report import Comparison, ModelProfile, PipelineProfile, ProfileReport

# What each key of `ModelProfile.times` is, in the order of the page.
METRICS = {
    "host": "Letterbox to detections, by the host's clock",
    "network": "The network alone, by the host's clock",
    "gpu": "One frame on the GPU, by its events",
    "h2d": "Upload to the GPU",
    "compute": "Computation on the GPU",
    "d2h": "Download from the GPU",
    "enqueue": "CPU, to hand a frame over",
}
MAIN = ("host", "gpu", "network")  # by which models are judged: the first that all of them have


def ms_text(ms: float) -> str:
    """Milliseconds with three digits that matter."""
    if ms == 0:
        return "0"
    digits = 0 if ms >= 100 else 1 if ms >= 10 else 2 if ms >= 0.1 else 4
    return f"{ms:,.{digits}f}"


def cut(name: str) -> str:
    """A name of a layer or kernel; TensorRT's may have thousands of letters, as it has fused layers."""
    return name if len(name) <= 160 else f"{name[:100]} … {name[-57:]}"


def rank_text(rank: float) -> str:
    """A percentile: "median", "p99"."""
    return "median" if rank == 50 else f"p{rank:g}"


def pair(report: ProfileReport, one: str, other: str, metric: str) -> Comparison | None:
    """How `other` compares with `one`, whichever way round it was noted."""
    for found in report.comparisons:
        if found.metric == metric and (found.one, found.other) == (one, other):
            return found
        if found.metric == metric and (found.one, found.other) == (other, one):
            noise = 1 / found.noise_high, 1 / found.noise_low
            return Comparison(one, other, metric, 1 / found.ratio, 1 / found.high, 1 / found.low, *noise, found.differs)
    return None


def verdict(found: Comparison) -> str:
    """Of `other`: "1.62 times as fast as fp32 (1.58 to 1.66)"."""
    if not found.differs:
        return (
            f"cannot be told from {found.one}: takes {found.ratio:.3f} times as long ({found.low:.3f} to "
            f"{found.high:.3f}), and no difference at all gives {found.noise_low:.3f} to {found.noise_high:.3f}"
        )
    if found.ratio < 1:
        return f"{1 / found.ratio:.2f} times as fast as {found.one} ({1 / found.high:.2f} to {1 / found.low:.2f})"
    return f"takes {found.ratio:.2f} times as long as {found.one} ({found.low:.2f} to {found.high:.2f})"


def summary(report: ProfileReport) -> str:
    """What is fastest, by how much, and what it lost."""
    timed = [model for model in report.models if model.times and not model.error]
    metric = next((key for key in MAIN if timed and all(key in model.times for model in timed)), None)
    if metric is None:
        errors = [f" {model.label}: {model.error}" for model in report.models if model.error]
        layers = [f" {m.label}: only layers, {ms_text(m.layers.sum_ms)} ms in all." for m in report.models if m.layers]
        return f"No frames were timed.{''.join(errors + layers)}"
    left_out = [f"{model.label} was {untimed(model)}." for model in report.models if model not in timed]
    end = "".join(f" {words}" for words in left_out)
    what = METRICS[metric][0].lower() + METRICS[metric][1:]
    if len(timed) == 1:
        takes = f"{ms_text(_median(timed[0], metric))} ms a frame (median; {what})"
        return f"{timed[0].label} takes {takes}.{_rate(timed[0])}{_lost(timed[0], report)}{end}"
    return _ranking(report, timed, metric, what) + end


def _ranking(report: ProfileReport, timed: Sequence[ModelProfile], metric: str, what: str) -> str:
    """Of two models or more. By what was compared round by round, as medians alone tell no differences."""
    medians = {model.label: ms_text(_median(model, metric)) for model in timed}
    first, *others = timed
    pairs = {model.label: pair(report, first.label, model.label, metric) for model in others}
    ratios = {label: found.ratio for label, found in pairs.items() if found is not None}
    if len(ratios) < len(others):
        told = ", ".join(f"{label} {ms}" for label, ms in medians.items())
        return f"Too few rounds to tell which is faster. Medians, ms: {told} ({what})."
    other = min(others, key=lambda model: ratios[model.label])
    found = pairs[other.label]
    assert found is not None
    if not found.differs:
        times = f"{medians[other.label]} and {medians[first.label]} ms a frame (medians; {what})"
        return f"{other.label} {verdict(found)}. They take {times}.{_lost(other, report)}"
    best, ratio = (other, f", {verdict(found)}") if found.ratio < 1 else (first, f"; {other.label} {verdict(found)}")
    rivals = [model.label for model in timed if model is not best]
    equal = [label for label in rivals if not ((seen := pair(report, best.label, label, metric)) and seen.differs)]
    head = f"cannot be told from {' and '.join(equal)} but is among the fastest" if equal else "is the fastest"
    takes = f"{medians[best.label]} ms a frame (median; {what})"
    return f"{best.label} {head}: {takes}{ratio}.{_rate(best)}{_lost(other, report)}"


def bound(profile: PipelineProfile) -> str:
    """Which thread is busiest, and how busy."""
    shares = busy(profile)
    if not shares:
        return ""
    thread = max(shares, key=lambda name: shares[name])
    stages = [stage for stage in profile.stages if stage.thread == thread]
    slowest = max(stages, key=lambda stage: stage.ms.mean_ms)
    what = "bounds the rate" if shares[thread] > 0.85 else "is the busiest stage, but nothing bounds the rate here"
    threads = f"{slowest.abreast} threads work" if slowest.abreast > 1 else "thread works"
    return f"{slowest.name} {what}: its {threads} {min(1.0, shares[thread]):.0%} of the time."


def busy(profile: PipelineProfile) -> dict[str, float]:
    """By thread, the share of the time that it works."""
    shares: dict[str, float] = {}
    for stage in profile.stages:
        work_s = 1e-3 * stage.ms.mean_ms * profile.frames / stage.together
        share = work_s / max(profile.seconds, 1e-9) / stage.abreast
        shares[stage.thread] = shares.get(stage.thread, 0.0) + share
    return shares


def untimed(model: ModelProfile) -> str:
    """Of a model with an error, or without times."""
    return "not timed to the end" if model.times else "not timed"


def _median(model: ModelProfile, metric: str) -> float:
    found = model.distribution(metric)
    return found.median_ms if found else 0.0


def _rate(model: ModelProfile) -> str:
    found = model.throughput
    return f" With {found.in_flight} in flight, {found.frames_per_s:.1f} frames a second." if found else ""


def _lost(model: ModelProfile, report: ProfileReport) -> str:
    seen = model.agreement
    if not seen or model is report.models[0] or "f1" not in seen:
        return ""
    masks = f", mask IoU {seen['mask_iou']:.4f}" if "mask_iou" in seen else ""
    pictures = f" on {counted(round(seen['pictures']), 'picture')}" if "pictures" in seen else ""
    return f" {model.label} finds what {report.models[0].label} finds with F1 {seen['f1']:.4f}{masks}{pictures}."
