"""A profile in words, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from trt_blendmask.layout import columns, counted
from trt_blendmask.profiler.layers import sentence
from trt_blendmask.profiler.layers.parts import all_parts, by_part
from trt_blendmask.profiler.report import LayerProfile, ModelProfile, PipelineProfile, ProfileReport
from trt_blendmask.profiler.words import MAIN, METRICS, bound, ms_text, rank_text, summary


def lines(report: ProfileReport) -> list[str]:
    """The result, a table for each kind of time, and what one must know of them."""
    found = [summary(report), f"On {report.source}"]
    for metric in MAIN:
        timed = [model for model in report.models if model.times.get(metric)]
        if timed:
            found += ["", f"{METRICS[metric]}, ms", *_table(timed, metric, report.percentiles)]
    layers = {model.label: model.layers for model in report.models if model.layers}
    found += ["", *_parts(layers)] if layers else []
    found += [f"{label}: {sentence(profile)}" for label, profile in layers.items()]
    rates = [
        f"{model.label}: {model.throughput.frames_per_s:.1f} frames/s with {model.throughput.in_flight} in flight"
        for model in report.models
        if model.throughput
    ]
    rates += [line for profile in report.pipeline for line in _pipeline(profile)]
    found += ["", *rates] if rates else []
    found += [f"{model.label}: {_agreement(model.agreement)}" for model in report.models if model.agreement]
    noise = [f"{key} {value:.1%}" for key, value in report.noise.items()]
    found += [f"Noise of this run: {', '.join(noise)}; what differs by less may be chance."] if noise else []
    found += [f"Mind: {words}" for words in report.warnings]
    return found + [f"Mind: {model.label}: {words}" for model in report.models for words in model.warnings]


def _table(models: Sequence[ModelProfile], metric: str, percentiles: Sequence[float]) -> list[str]:
    ranks = sorted({50.0, *percentiles})
    rows: list[tuple[str, ...]] = [("", "type", "min", *map(rank_text, ranks), "max", "mean", "CoV", "frames")]
    for model in models:
        seen = model.distribution(metric, ranks)
        if seen is not None:
            values = (seen.min_ms, *(seen.percentiles[rank] for rank in ranks), seen.max_ms, seen.mean_ms)
            rows.append((model.label, model.precision, *map(ms_text, values), f"{seen.cov:.1%}", str(seen.count)))
    return columns(rows)


def _parts(layers: dict[str, LayerProfile]) -> list[str]:
    """Milliseconds of each part, by model."""
    found = [by_part(profile) for profile in layers.values()]
    parts = all_parts(list(layers.values()))
    rows = [(part, *(ms_text(ms[part]) if part in ms else "-" for ms in found)) for part in parts]
    return columns([("ms", *layers), *rows])


def _pipeline(profile: PipelineProfile) -> list[str]:
    stages = ", ".join(f"{stage.name} {ms_text(stage.ms.mean_ms)}" for stage in profile.stages)
    told = f"Pipeline of {profile.model}: {profile.fps:.1f} frames/s ({stages} ms). {bound(profile)}"
    if profile.glass_to_glass is None:
        return [told]
    return [told, f"Glass to glass: {ms_text(profile.glass_to_glass.median_ms)} ms (median)"]


def _agreement(seen: dict[str, float]) -> str:
    pictures = counted(round(seen["pictures"]), "picture")
    return f"F1 {seen['f1']:.4f}, mask IoU {seen['mask_iou']:.4f} against the first one in {pictures}"
