"""A plausible report of three models, made up from a seed: what the page and its tests look at."""

from __future__ import annotations

import itertools

import numpy as np

from trt_blendmask.profiler.report import (
    Comparison,
    Distribution,
    Environment,
    Layer,
    LayerProfile,
    ModelProfile,
    PipelineProfile,
    ProfileReport,
    Readings,
    Roof,
    Span,
    Stage,
    Throughput,
)

HOSTILE = "<script>alert('x')</script>&\"'"
PARTS = (
    ("backbone.stem", 2, 90),
    ("backbone.res2", 10, 310),
    ("backbone.res3", 13, 360),
    ("backbone.res4", 19, 420),
    ("backbone.res5", 10, 330),
    ("fpn", 8, 260),
    ("towers", 15, 610),
    ("predictors", 15, 70),
    ("basis", 9, 330),
    ("selection.decode", 20, 0),
    ("selection.nms", 4, 0),
    ("top_layer", 2, 60),
    ("tail", 6, 1),
)
ROOF = Roof({"FP32": 52.0, "INT8": 171.0}, 17.5, "a 3x3 Conv of 256 channels and a copy of 64 MB, best of 20")


def layers(precision: str, rng: np.random.Generator) -> LayerProfile:
    """Of a network of 137 layers."""
    found = []
    for part, count, megas in PARTS:
        for k in range(count):
            macs = int(1e6 * megas / count * rng.uniform(0.6, 1.4))
            moved = int(rng.uniform(0.2e6, 4e6))
            fast = ROOF.gmacs_per_s.get(precision, 52.0)
            least = max(macs / fast / 1e6, moved / ROOF.gbytes_per_s / 1e6)
            took = least / rng.uniform(0.3, 0.95)
            name = f"{part}.{k}/Conv" if macs else f"{part}.{k}/Gather"
            shape = (1, int(rng.choice([64, 128, 256])), 72, 72)
            found.append(Layer(name, part, name.split("/")[1], precision, shape, macs, moved, took, 0.0, least / took))
    if precision == "INT8":
        found += [
            Layer(f"Reorder {k}", "towers", "Reformat", "FP32", (1, 256, 72, 72), 0, 5_000_000, 0.4, 0, None, True)
            for k in range(3)
        ]
    total = sum(layer.ms for layer in found)
    scaled = tuple(Layer(**{**vars(layer), "share": layer.ms / total}) for layer in found)
    return LayerProfile("ONNX Runtime", 40, total * 1.021, total, 0.0206, scaled, ROOF)


def model(label: str, precision: str, median: float, rng: np.random.Generator, f1: float | None) -> ModelProfile:
    network = (median * 0.93 + rng.gamma(2.0, 0.03 * median, 400)).tolist()
    host = [ms + 1.6 + float(rng.gamma(2, 0.1)) for ms in network]
    agreement = None
    if f1 is not None:
        agreement = {"pictures": 64.0, "f1": f1, "box_iou": 0.991, "mask_iou": 0.984, "boundary_f": 0.979}
    return ModelProfile(
        label,
        f"/models/{label}.onnx",
        "ab12" * 16,
        "ONNX Runtime on the CPU, 2 threads: an ONNX runs there",
        precision,
        (288, 512),
        2_841_000_000,
        int(38e6 * {"FP32": 1, "FP16": 0.5}.get(precision, 0.26)),
        {"host": host, "network": network},
        {"host": [k // 20 for k in range(400)], "network": [k // 20 for k in range(400)]},
        Throughput(2, 1.55e3 / median, 300, 300 * median / 1.55e3),
        agreement,
        "",
        layers(precision, rng),
        {"CPU MHz": Span(2400, 2790, 2800), "package C": Span(61, 66, 71), "package W": Span(24, 27.5, 31)},
        27.5 * median,
        ("host times are unstable: CoV 6.1 % (over 5 %)",) if precision == "FP16" else (),
    )


def compared(one: str, other: str, ratio: float, differs: bool = True) -> list[Comparison]:
    return [
        Comparison(one, other, metric, ratio, ratio * 0.985, ratio * 1.016, 0.988, 1.012, differs)
        for metric in ("host", "network")
    ]


def pipeline() -> PipelineProfile:
    """40 frames through two networks at a time, the first eight of them drawn."""
    rng = np.random.default_rng(3)
    took = {"decode": 6.0, "letterbox": 0.9, "network": 38.0, "collect": 0.6, "paste": 1.6, "draw": 2.5, "encode": 5.3}
    free = dict.fromkeys(("reader", "network 1", "network 2", "sink"), 0.0)
    spans: dict[str, list[tuple[int, float, float]]] = {name: [] for name in took}
    for index in range(40):
        at = 0.0
        network = min(("network 1", "network 2"), key=lambda name: free[name])
        for name, ms in took.items():
            thread = {"decode": "reader", "paste": "sink", "draw": "sink", "encode": "sink"}.get(name, network)
            begin = max(at, free[thread])
            at = free[thread] = begin + ms * float(rng.uniform(0.9, 1.2))
            spans[name].append((index, begin, at))
    stages = tuple(
        Stage(
            name,
            Distribution.from_samples([end - begin for _, begin, end in of]),
            {"decode": "reader", "paste": "sink", "draw": "sink", "encode": "sink"}.get(name, "network"),
            tuple(of[:8]),
            1 if name in ("decode", "paste", "draw", "encode") else 2,
        )
        for name, of in spans.items()
    )
    ages = Distribution.from_samples(rng.normal(96, 7, 200).tolist())
    seconds = max(end for of in spans.values() for _, _, end in of) / 1e3
    return PipelineProfile("int8", "synthetic:conveyor", 40, seconds, 40 / seconds, stages, ages)


def readings() -> Readings:
    rng = np.random.default_rng(4)
    at = tuple((np.arange(300) / 10).tolist())
    busy = 1 - np.exp(-np.arange(300) / 60)
    series: dict[str, list[float | None]] = {
        "CPU MHz": (2800 - 300 * (busy > 0.9) * rng.uniform(0, 1, 300)).tolist(),
        "package C": (52 + 19 * busy + rng.normal(0, 0.3, 300)).tolist(),
        "board C": (41 + 5 * busy).tolist(),
        "package W": (9 + 20 * busy + rng.normal(0, 1, 300)).tolist(),
    }
    series["board C"][100:140] = [None] * 40
    return Readings(at, series, "package W")


def environment() -> Environment:
    return Environment(
        "Example Workstation 7",
        "Example CPU 3.1 GHz",
        2,
        8 << 30,
        "Ubuntu 24.04",
        "6.8.0-45-generic",
        "x86_64",
        "3.11.9",
        "1.31.0",
        "",
        {"numpy": "2.1.0", "opencv": "4.10.0"},
        "",
        "",
        "",
        ("CPU 2.80 GHz, up to 3.10 GHz",),
        "",
        "performance",
        "0.34 of 2 cores busy before the run",
        ("TensorRT: the package tensorrt is not installed", "watts: no sensor tells them"),
    )


def report(hostile: bool = False) -> ProfileReport:
    """Three models on a CPU. `hostile`: every name that a user can choose is HTML."""
    rng = np.random.default_rng(1)
    names = ("fp32", "fp16", "int8")
    if hostile:
        names = tuple(f"{name} {HOSTILE}" for name in names)  # type: ignore[assignment]
    fp32, fp16, int8 = names
    models = (
        model(fp32, "FP32", 61.8, rng, None),
        model(fp16, "FP16", 61.1, rng, 0.9994),
        model(int8, "INT8", 38.2, rng, 0.981),
    )
    pairs = [*compared(fp32, fp16, 0.989, False), *compared(fp32, int8, 0.618), *compared(fp16, int8, 0.625)]
    return ProfileReport(
        f"trt-blendmask profile {' '.join(f'{name}.onnx' for name in names)} --per-layer -o report.html",
        "2026-03-14T15:09:26+01:00",
        environment(),
        HOSTILE if hostile else "synthetic:conveyor",
        models,
        tuple(pairs),
        {"host": 0.012, "network": 0.011},
        readings(),
        (pipeline(),),
        warnings=(f"another process used 31 % of a core{HOSTILE if hostile else ''}",),
    )


def many_layers(count: int) -> ProfileReport:
    """One model with so many layers."""
    rng = np.random.default_rng(2)
    base = model("large", "FP32", 62.0, rng, None)
    assert base.layers is not None
    more = tuple(itertools.islice(itertools.cycle(base.layers.layers), count))
    profile = LayerProfile(**{**vars(base.layers), "layers": more})
    return ProfileReport(
        "trt-blendmask profile", "", environment(), "-", (ModelProfile(**{**vars(base), "layers": profile}),)
    )
