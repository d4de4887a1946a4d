"""The models side by side, and the machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from trt_blendmask.profiler.page.drawing import SERIES
from trt_blendmask.profiler.report import Environment, ModelProfile, ProfileReport, Span
from trt_blendmask.profiler.words import MAIN, METRICS, ms_text, pair, rank_text

Rows = list[tuple[str, list[str]]]  # what, and a cell for each model


def models_table(report: ProfileReport) -> str:
    """A column for each model; groups of rows: what it is, each kind of time, throughput, agreement, conditions."""
    models = report.models
    heads = "".join(
        f'<th><i class="chip s{k % SERIES}"></i>{escape(model.label)}</th>' for k, model in enumerate(models)
    )
    groups = [("", _facts(models))]
    times = [(f"{METRICS[key]}, ms", _times(report, key)) for key in METRICS]
    groups += [group for group in times if group[1]][:1]
    groups.append(("Throughput", _throughput(models)))
    if len(models) > 1:
        groups += [_against(report, key) for key in MAIN]
        groups.append((f"Agreement with {models[0].label}", _agreement(models)))
    groups += [group for group in times if group[1]][1:]
    groups.append(("Meanwhile", _conditions(report)))
    body = "".join(_group(title, rows, len(models)) for title, rows in groups if rows)
    return f'<table class="models"><thead><tr><th></th>{heads}</tr></thead>{body}</table>'


def environment_list(report: ProfileReport) -> str:
    """What the machine is, and what it does not tell."""
    env = report.environment
    rows = [
        ("Command", report.command),
        ("When", report.when),
        ("Pictures", report.source),
        *_hows(report.models),
        *_machine(env),
        ("Not available", "; ".join(env.missing)),
    ]
    items = "".join(f"<dt>{name}</dt><dd{_code(name)}>{escape(words)}</dd>" for name, words in rows if words)
    return f"<dl>{items}</dl>"


def _machine(env: Environment) -> list[tuple[str, str]]:
    cores = ", ".join(filter(None, (env.cpu, f"{env.cores} cores" if env.cores else "")))
    packages = [
        ("Python", env.python),
        ("ONNX Runtime", env.onnxruntime),
        ("TensorRT", env.tensorrt),
        ("CUDA", env.cuda),
    ]
    versions = [f"{name} {version}" for name, version in (*packages, *env.packages.items()) if version]
    return [
        ("Machine", env.machine),
        ("CPU", cores),
        ("Memory", f"{env.memory_bytes / 2**30:.1f} GiB" if env.memory_bytes else ""),
        ("GPU", f"{env.gpu}, driver {env.driver}" if env.gpu and env.driver else env.gpu),
        ("System", ", ".join(word for word in (env.os, env.kernel, env.architecture) if word)),
        ("Software", ", ".join(versions)),
        ("Clocks", "; ".join(env.clocks)),
        ("Power mode", env.power_mode),
        ("Governor", env.governor),
        ("Load", env.load),
    ]


def _hows(models: Sequence[ModelProfile]) -> list[tuple[str, str]]:
    """What runs which models."""
    labels: dict[str, list[str]] = {}
    for model in models:
        labels.setdefault(model.how, []).append(model.label)
    alone = len(labels) == 1
    words = [how if alone else f"{', '.join(names)}: {how}" for how, names in labels.items()]
    return [("Runs on", "; ".join(words))]


def _code(name: str) -> str:
    return " class=code" if name == "Command" else ""


def _group(title: str, rows: Rows, columns: int) -> str:
    head = f'<tr class="group"><th colspan="{columns + 1}">{escape(title)}</th></tr>' if title else ""
    body = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, cells in rows
        if any(cells)
    )
    return f"<tbody>{head}{body}</tbody>" if body else ""


def _facts(models: Sequence[ModelProfile]) -> Rows:
    return [
        ("precision", [model.precision for model in models]),
        ("input, H x W pixels", [f"{h} x {w}" if h and w else "" for h, w in (model.input_hw for model in models)]),
        ("multiply-adds, G", [f"{model.macs / 1e9:.2f}" if model.macs else "" for model in models]),
        ("file, MB", [f"{model.file_bytes / 1e6:.1f}" if model.file_bytes else "" for model in models]),
        ("not timed", [model.error for model in models]),
    ]


def _times(report: ProfileReport, key: str) -> Rows:
    found = [model.distribution(key, report.percentiles) for model in report.models]
    if not any(found):
        return []
    ranks = next(one for one in found if one).percentiles

    def row(name: str, of: Callable[..., str]) -> tuple[str, list[str]]:
        return name, ["" if one is None else of(one) for one in found]

    return [
        *(row(rank_text(rank), lambda one, rank=rank: ms_text(one.percentiles[rank])) for rank in ranks),
        row("least", lambda one: ms_text(one.min_ms)),
        row("most", lambda one: ms_text(one.max_ms)),
        row("CoV", lambda one: f"{one.cov:.1%}"),
        row("samples", lambda one: f"{one.count:,}"),
    ]


def _throughput(models: Sequence[ModelProfile]) -> Rows:
    found = [model.throughput for model in models]
    return [
        ("frames a second", [f"{one.frames_per_s:.1f}" if one else "" for one in found]),
        ("in flight", [str(one.in_flight) if one else "" for one in found]),
    ]


def _against(report: ProfileReport, key: str) -> tuple[str, Rows]:
    first = report.models[0].label
    found = [pair(report, first, model.label, key) for model in report.models]
    name = METRICS[key].partition(",")[0]
    return f"{name}, against {first}", [
        ("time", [f"x {one.ratio:.3f}" if one else "" for one in found]),
        ("interval", [f"{one.low:.3f} to {one.high:.3f}" if one else "" for one in found]),
        ("noise", [f"{one.noise_low:.3f} to {one.noise_high:.3f}" if one else "" for one in found]),
        ("a difference", [("yes" if one.differs else "no") if one else "" for one in found]),
    ]


def _agreement(models: Sequence[ModelProfile]) -> Rows:
    seen = [model.agreement or {} for model in models]
    names = {
        "f1": "F1",
        "box_iou": "box IoU",
        "mask_iou": "mask IoU",
        "boundary_f": "boundary F",
        "pictures": "pictures",
    }
    return [
        (words, [(f"{one[key]:.0f}" if key == "pictures" else f"{one[key]:.4f}") if key in one else "" for one in seen])
        for key, words in names.items()
    ]


def _conditions(report: ProfileReport) -> Rows:
    models = report.models
    names = dict.fromkeys(name for model in models for name in model.conditions)
    rows: Rows = [(name, [_span(model.conditions.get(name)) for model in models]) for name in names]
    energy = f"mJ a frame, by {report.readings.power}"
    rows.append((energy, [f"{m.mj_per_frame:,.0f}" if m.mj_per_frame is not None else "" for m in models]))
    return rows


def _span(span: Span | None) -> str:
    return "" if span is None else f"{span.mean:.4g} ({span.low:.4g} to {span.high:.4g})"
