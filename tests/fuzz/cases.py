"""Which file goes where: all hostile files once, then as many random ones as wanted, the same for the same seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.fuzz import checkpoints, hostile_networks, networks, pickles, pictures, texts
from tests.fuzz.mutate import Seed, mutate
from tests.fuzz.sandbox import Case
from tests.inspect.artefacts import artefacts
from trt_blendmask.export import export_onnx
from trt_blendmask.export.reader import read_checkpoint
from trt_blendmask.surgery import SurgeryOptions, operate

REGRESSIONS = Path(__file__).resolve().parent / "regressions"
WHOLE_GRAPHS = Path(__file__).resolve().parents[1] / "golden" / "whole_graphs"
HOSTILE = 800  # about as many files does `_hostile` make, and each is inspected, too
DAMAGED = frozenset({0})
REFUSED: frozenset[int] = frozenset()
PICKLE = frozenset({0, 77})  # 77: it asks for code
CONFIG = frozenset({0, 66, 77})  # 66: its _BASE_ is not there


@dataclass(frozen=True)
class Seeds:
    """Good files: checkpoints by form, a config, raw-head ONNX by name, a deployable ONNX, pictures by suffix, an
    engine with its passport and a calibration table by name."""

    checkpoints: dict[str, Seed]
    config: str
    raws: dict[str, Seed]
    model: Seed
    pictures: dict[str, Seed]
    artefacts: dict[str, bytes]
    state: checkpoints.State


def make_seeds(reference: Path, folder: Path) -> Seeds:
    """Made from one of the reference's small networks, at 64 x 64."""
    source = reference / "end_to_end" / "rt_r50"
    loaded = read_checkpoint(source / "model_plain.pth")
    state = {name: weight.read() for name, weight in loaded.weights.items() if weight.dtype == "float32"}
    tree = yaml.safe_load((source / "config_full.yaml").read_text())
    config = yaml.safe_dump({"MODEL": tree["MODEL"], "INPUT": tree["INPUT"]})
    raw, model = folder / "raw.onnx", folder / "model.onnx"
    export_onnx(source / "model_plain.pth", source / "config_full.yaml", raw, (64, 64))
    operate(raw, model, SurgeryOptions(max_detections=5))
    raws = {"raw": networks.seed(raw.read_bytes())}
    for file in sorted([*(reference / "onnx").glob("*.onnx"), *WHOLE_GRAPHS.glob("tiny_*.onnx")]):
        raws[file.stem] = networks.seed(file.read_bytes())
    forms = {
        "zip": checkpoints.as_zip(state),
        "legacy": checkpoints.as_legacy(state),
        "safetensors": checkpoints.as_safetensors(state),
    }
    return Seeds(forms, config, raws, networks.seed(model.read_bytes()), pictures.seeds(), artefacts(folder), state)


def all_cases(seeds: Seeds, seed: int, count: int) -> Iterator[Case]:
    """The files that once failed, the hostile ones (of a short run about half, drawn), then random ones."""
    rng, made = random.Random(f"{seed} hostile"), 0
    share = count / 2 / HOSTILE
    hostile = itertools.chain(_hostile(seeds), map(inspect_case, _hostile(seeds)))
    for case in itertools.chain(_regressions(seeds), (case for case in hostile if rng.random() < share)):
        made += 1
        yield case
    makers = list(itertools.chain.from_iterable([make] * share for make, share in _RANDOM.items()))
    for index in range(count - made):
        rng = random.Random(f"{seed} {index}")
        yield rng.choice(makers)(seeds, rng)


def export_case(seeds: Seeds, name: str, checkpoint: bytes, codes: frozenset[int], config: bytes | None = None) -> Case:
    files = {"model.pth": checkpoint, "config.yaml": seeds.config.encode() if config is None else config}
    argv = ("export", "model.pth", "--config", "config.yaml", "--input-size", "64x64", "-o", "out/raw.onnx")
    return Case(f"export: {name}", argv, files, codes)


def surgery_case(name: str, raw: bytes, codes: frozenset[int], config: bytes | None = None) -> Case:
    argv = ("surgery", "raw.onnx", "-o", "out/model.onnx")
    if config is None:
        return Case(f"surgery: {name}", argv, {"raw.onnx": raw, "weights.bin": bytes(4096)}, codes)
    return Case(f"surgery: {name}", (*argv, "--config", "config.yaml"), {"raw.onnx": raw, "config.yaml": config}, codes)


def predict_case(seeds: Seeds, name: str, model: bytes, codes: frozenset[int]) -> Case:
    files = {"model.onnx": model, "a.png": seeds.pictures[".png"].data, "weights.bin": bytes(4096)}
    return Case(f"predict: {name}", ("predict", "model.onnx", "a.png", "-o", "out"), files, codes)


def picture_case(seeds: Seeds, name: str, suffix: str, picture: bytes, codes: frozenset[int] = DAMAGED) -> Case:
    files = {"model.onnx": seeds.model.data, f"a{suffix}": picture}
    return Case(f"predict: {name}", ("predict", "model.onnx", f"a{suffix}", "-o", "out"), files, codes)


def inspect_case(case: Case) -> Case:
    """The first file of another case, looked at."""
    return Case(f"inspect: {case.name}", ("inspect", next(iter(case.files))), case.files, PICKLE)


def _regressions(seeds: Seeds) -> Iterator[Case]:
    """Files named `verb-what.suffix`."""
    for file in sorted(REGRESSIONS.glob("*-*.*")):
        verb, data = file.name.split("-")[0], file.read_bytes()
        if verb == "export":
            yield export_case(seeds, file.name, data, PICKLE)
        elif verb == "surgery":
            yield surgery_case(file.name, data, DAMAGED)
        elif verb == "picture":
            yield picture_case(seeds, file.name, file.suffix, data)
        else:
            yield predict_case(seeds, file.name, data, DAMAGED)


def _hostile(seeds: Seeds) -> Iterator[Case]:
    for name, data in checkpoints.hostile(seeds.state).items():
        yield export_case(seeds, name, data, PICKLE)
    for name, data in pickles.hostile().items():
        plain = data if data[:1] == b"\x80" else b"\x80\x02" + data
        yield export_case(seeds, name, checkpoints.zipped(data, {"0": bytes(16)}), PICKLE)
        yield export_case(seeds, f"{name}, alone", plain, PICKLE)
        yield export_case(seeds, f"{name}, legacy", b"".join(checkpoints.LEGACY) + plain, PICKLE)
    for name, data in texts.hostile(seeds.config).items():
        yield export_case(seeds, name, seeds.checkpoints["zip"].data, CONFIG, data)
        yield surgery_case(name, seeds.raws["raw"].data, CONFIG, data)
    for name, data in hostile_networks.hostile(seeds.raws["raw"].data, "bases"):
        yield surgery_case(name, data, DAMAGED)
    for name, data in hostile_networks.hostile(seeds.model.data, "masks"):
        yield predict_case(seeds, name, data, DAMAGED)
    for name, (suffix, data) in pictures.hostile(seeds.pictures).items():
        yield picture_case(seeds, name, suffix, data)
    for name, raw in seeds.raws.items():
        yield predict_case(seeds, f"{name} instead of a model", raw.data, REFUSED)
    yield surgery_case("a deployable model", seeds.model.data, REFUSED)


def _checkpoint_bytes(seeds: Seeds, rng: random.Random) -> Case:
    form = rng.choice(list(seeds.checkpoints))
    return export_case(seeds, f"damaged {form}", mutate(seeds.checkpoints[form], rng), PICKLE)


def _pickle(seeds: Seeds, rng: random.Random) -> Case:
    kind = rng.choice((pickles.program, pickles.program, pickles.dumped))
    data = kind(rng)
    if rng.random() < 0.3:
        data = mutate(Seed(data), rng)
    form = rng.choice(("zip", "legacy", "alone"))
    made = {
        "zip": lambda: checkpoints.zipped(data, {"0": bytes(16)}),
        "legacy": lambda: b"".join(checkpoints.LEGACY) + data + data + bytes(rng.randrange(40)),
        "alone": lambda: data,
    }[form]()
    return export_case(seeds, f"{kind.__name__} pickle, {form}", made or b"\x80\x02.", PICKLE)


def _config(seeds: Seeds, rng: random.Random) -> Case:
    data = mutate(Seed(seeds.config.encode()), rng) or b"x"
    if rng.random() < 0.8:
        data = texts.altered(seeds.config, rng)
    if rng.random() < 0.6:
        return export_case(seeds, "altered config", seeds.checkpoints["zip"].data, CONFIG, data)
    return surgery_case("altered config", seeds.raws["raw"].data, CONFIG, data)


def _raw_bytes(seeds: Seeds, rng: random.Random) -> Case:
    name = _some_raw(seeds, rng)
    return surgery_case(f"damaged {name}", mutate(seeds.raws[name], rng) or b"x", DAMAGED)


def _raw_graph(seeds: Seeds, rng: random.Random) -> Case:
    name = _some_raw(seeds, rng)
    return surgery_case(f"altered {name}", networks.altered(seeds.raws[name].data, rng), DAMAGED | {2})


def _some_raw(seeds: Seeds, rng: random.Random) -> str:
    return "raw" if rng.random() < 0.5 else rng.choice(list(seeds.raws))


def _model_bytes(seeds: Seeds, rng: random.Random) -> Case:
    return predict_case(seeds, "damaged model", mutate(seeds.model, rng) or b"x", DAMAGED)


def _model_graph(seeds: Seeds, rng: random.Random) -> Case:
    return predict_case(seeds, "altered model", networks.altered(seeds.model.data, rng), DAMAGED)


def _picture(seeds: Seeds, rng: random.Random) -> Case:
    suffix = rng.choice(list(seeds.pictures))
    return picture_case(seeds, f"damaged {suffix}", suffix, mutate(seeds.pictures[suffix], rng))


def _inspect(seeds: Seeds, rng: random.Random) -> Case:
    if rng.random() < 0.7:
        return inspect_case(rng.choice((_checkpoint_bytes, _pickle, _raw_bytes, _raw_graph, _model_graph))(seeds, rng))
    files = dict(seeds.artefacts)
    damaged = rng.choice(list(files))
    files[damaged] = mutate(Seed(files[damaged]), rng) or b"x"
    shown = "model.engine" if damaged == "model.engine.json" and rng.random() < 0.5 else damaged
    return Case(f"inspect: damaged {damaged}", ("inspect", shown, "--json"), files, DAMAGED)


_RANDOM: dict[Callable[[Seeds, random.Random], Case], int] = {
    _checkpoint_bytes: 4, _pickle: 3, _config: 3, _raw_bytes: 3, _raw_graph: 5, _model_bytes: 2, _model_graph: 4,
    _picture: 3, _inspect: 4,
}  # fmt: skip
