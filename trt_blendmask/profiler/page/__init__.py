"""A profile as one HTML page that needs no other file and no network."""

from __future__ import annotations

from functools import partial
from html import escape
from importlib.resources import files

from trt_blendmask.html_page import page, sized
from trt_blendmask.layout import counted
from trt_blendmask.profiler.diff import Diff
from trt_blendmask.profiler.layers.parts import all_parts
from trt_blendmask.profiler.page.changes import body_of
from trt_blendmask.profiler.page.conditions import conditions_svgs
from trt_blendmask.profiler.page.drawing import legend
from trt_blendmask.profiler.page.latency import latency_svg
from trt_blendmask.profiler.page.layers import MOST, layers_table
from trt_blendmask.profiler.page.parts import Profiles, inside_network, parts_svg, parts_table, stacked_svg
from trt_blendmask.profiler.page.roofline import roofline_svg
from trt_blendmask.profiler.page.tables import environment_list, models_table
from trt_blendmask.profiler.page.waterfall import stages_table, waterfall_svg
from trt_blendmask.profiler.report import PipelineProfile, ProfileReport
from trt_blendmask.profiler.words import MAIN, METRICS, bound, ms_text, rank_text, summary, untimed


def page_of(report: ProfileReport) -> str:
    """Summary, models, latency, parts, layers, roof, pipeline, conditions, machine: all that was measured."""
    body = [
        f'<p class="lead">{escape(summary(report))}</p>',
        _warnings(report),
        "<h2>Models</h2>",
        _ratios_told(report),
        models_table(report),
        *_latency(report),
        *_layers(report),
        *(part for profile in report.pipeline for part in _pipeline(profile, report)),
    ]
    if drawings := conditions_svgs(report.readings):
        body.append(f'<h2>Clocks, temperatures, power</h2><div class="grid">{"".join(drawings)}</div>')
    body.append(f"<h2>Machine</h2>{environment_list(report)}")
    title = f"Profile of {', '.join(model.label for model in report.models)}"
    return page(title, "\n".join(body), style=_asset("page.css"), script=_asset("page.js"))


def diff_page_of(found: Diff) -> str:
    """What changed between two profiles."""
    return page("What changed", body_of(found), style=_asset("page.css"), script=_asset("page.js"))


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _warnings(report: ProfileReport) -> str:
    words = ["Cut short by Ctrl-C: this is what had been measured by then."] if report.stopped else []
    words += report.warnings
    words += [f"{model.label}: {warning}" for model in report.models for warning in model.warnings]
    words += [f"{model.label} was {untimed(model)}: {model.error}" for model in report.models if model.error]
    items = "".join(f"<li>{escape(word)}</li>" for word in words)
    return f'<div class="warnings"><b>Mind</b><ul>{items}</ul></div>' if words else ""


def _ratios_told(report: ProfileReport) -> str:
    """Why the quotient of two medians of the page may lie outside the interval of their ratio."""
    return (
        "<p>Ratios are reckoned round by round, as what slows the machine down hits all models of a round alike; "
        "medians are of all rounds together, so the quotient of two medians may be another.</p>"
        if report.comparisons
        else ""
    )


def _latency(report: ProfileReport) -> list[str]:
    body = []
    for metric in MAIN:
        if any(model.times.get(metric) for model in report.models):
            draw = partial(latency_svg, report.models, metric, report.percentiles)
            body.append(f"<h3>{METRICS[metric]}</h3>{sized(draw)}")
    if body:
        body.insert(0, "<h2>Latency</h2><p>How often which time came, one frame at a time. Lines: percentiles.</p>")
    return body


def _layers(report: ProfileReport) -> list[str]:
    known = [(model.label, model.layers) for model in report.models if model.layers and model.layers.layers]
    if not known:
        return []
    parts = all_parts([profile for _, profile in known])
    body = [
        f"<h2>Where the time goes</h2>{sized(partial(parts_svg, known))}{legend(parts)}{parts_table(known)}",
        _rooflines(known),
        "<h2>Layers</h2>",
    ]
    for k, (label, profile) in enumerate(known):
        told = f"{escape(label)}: {len(profile.layers)} layers by {escape(profile.tool)}, {profile.runs} runs"
        note = f"<p>{escape(profile.note[0].upper() + profile.note[1:])}.</p>" if profile.note else ""
        table = layers_table(profile, MOST // len(known))
        body.append(f"<details{'' if k else ' open'}><summary>{told}</summary>{note}{table}</details>")
    return body


def _rooflines(known: Profiles) -> str:
    drawings, told = [], dict[str, None]()
    for label, profile in known:
        roof = profile.roof
        if roof and roof.gmacs_per_s and any(layer.macs and layer.bytes for layer in profile.layers):
            drawings.append(roofline_svg(label, profile, roof))
            told[f"Measured here: {roof.how}. Memory: {roof.gbytes_per_s:.3g} GB/s."] = None
    if not drawings:
        return ""
    words = escape(" ".join(told))
    return (
        f"<h3>Layers against the roof</h3><p>{words} The larger a dot, the longer the layer takes; its colour is its "
        f'part.</p><div class="grid">{"".join(drawings)}</div>'
    )


def _pipeline(profile: PipelineProfile, report: ProfileReport) -> list[str]:
    rate = f"{profile.model} on {profile.source}: {counted(profile.frames, 'frame')} in {profile.seconds:.1f} s"
    rate += f", {profile.fps:.1f} FPS"
    rate += f", {profile.dropped} dropped for newer ones." if profile.dropped else "."
    body = [f"<h2>Pipeline</h2><p>{escape(rate)} <b>{escape(bound(profile))}</b></p>"]
    if any(stage.spans for stage in profile.stages):
        body.append(f"{sized(partial(waterfall_svg, profile))}{stages_table(profile)}")
    model = next((one for one in report.models if one.label == profile.model), None)
    if model and (inside := inside_network(model)):
        title = f"Inside the network, {model.label}"
        body.append(sized(partial(stacked_svg, [(title, inside)])))
    if (ages := profile.glass_to_glass) is not None:
        ranks = "".join(f"{rank_text(rank)} {ms_text(ms)}, " for rank, ms in ages.percentiles.items() if rank != 50)
        body.append(
            f"<p>Glass to glass: <b>{ms_text(ages.median_ms)} ms</b> (median; {ranks}most "
            f"{ms_text(ages.max_ms)}), read from a time code in {counted(ages.count, 'picture')}.</p>"
        )
    return body
