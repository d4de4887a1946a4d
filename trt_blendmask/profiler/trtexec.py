"""trtexec's three JSON files, read into a `ModelProfile` and written of one: --exportTimes, --exportProfile and
--exportLayerInfo of TensorRT 10.x and 11.x, and tensorrt_rtx.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.files import atomic_output, existing_file
from trt_blendmask.profiler.layers import profile_of
from trt_blendmask.profiler.layers.inspector import OUR_FIELDS, OURS, infos_of, layers_of, tensors_of
from trt_blendmask.profiler.plain import plain_of
from trt_blendmask.profiler.report import LayerProfile, ModelProfile

FILES = {"times": "times.json", "profile": "profile.json", "layers": "layers.json"}
_OPTIONS = {"times": "--exportTimes", "profile": "--exportProfile", "layers": "--exportLayerInfo"}
# Ours -> trtexec's. Its latency, which is from the host's memory to the host's memory, is our "gpu".
_TIMES = {"h2d": "h2dMs", "compute": "computeMs", "d2h": "d2hMs", "gpu": "latencyMs"}
# Ours -> its words for a type whose layout it does not tell: in 10.x as Format/Datatype, in 11.x as Datatype.
_TYPES = {
    "FP64": "Double",
    "FP32": "Float",
    "FP16": "Half",
    "BF16": "BFloat16",
    "INT8": "Int8",
    "UINT8": "UInt8",
    "INT32": "Int32",
    "INT64": "Int64",
    "INT4": "Int4",
    "BOOL": "Bool",
}
_TURNS = 40
_HINT = "Give what trtexec --exportTimes=t.json --exportProfile=p.json --exportLayerInfo=l.json writes."


def read_trtexec(paths: Sequence[Path]) -> ModelProfile:
    """One to three files of one run of trtexec, in any order; which is which shows in what they hold.

    Raises:
        InputMissingError: no such file.
        DataError: none of the three, or damaged.
        UsageError: two of a kind.
    """
    found: dict[str, Any] = {}
    for path in paths:
        kind, values = _read(path)
        if kind in found:
            raise UsageError(f"Expected one file of trtexec {_OPTIONS[kind]}, but '{path}' is a second one.")
        found[kind] = values
    times = _times(found["times"]) if "times" in found else {}
    compute = times.get("compute", [])
    whole = sum(compute) / len(compute) if compute else 0.0
    layers = _layers(found.get("profile"), found.get("layers"), whole) if found.keys() - {"times"} else None
    return ModelProfile(
        label=paths[0].stem,
        path=str(paths[0]),
        sha256="",
        how="trtexec",
        precision=_precision(layers),
        input_hw=_input_hw(found.get("layers")),
        macs=sum(layer.macs for layer in layers.layers) or None if layers else None,
        file_bytes=0,
        times=times,
        rounds={key: _turns(len(samples)) for key, samples in times.items()},
        layers=layers,
    )


def write_trtexec(model: ModelProfile, folder: Path) -> list[Path]:
    """`FILES` in `folder`, each where `model` has what goes into it; the paths of those that were written.

    Times that are not of a GPU are written as trtexec writes those of one, all of it as compute.

    Raises:
        OutputError: they cannot be written.
    """
    rows = {
        "times": _times_rows(model),
        "profile": _profile_rows(model.layers) if model.layers else [],
        "layers": _layers_rows(model) if model.layers else {},
    }
    written = []
    for kind, values in rows.items():
        if values:
            written.append(folder / FILES[kind])
            with atomic_output(written[-1]) as temporary:
                temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return written


def _read(path: Path) -> tuple[str, Any]:
    file = existing_file(path, "a JSON file of trtexec", _HINT)
    try:
        values = plain_of(file.read_bytes())
    except ValueError as error:
        raise DataError(f"Expected a JSON file of trtexec at '{file}', but it is not JSON: {error}. {_HINT}") from error
    rows = [row for row in values if isinstance(row, dict)] if isinstance(values, list) else []
    if isinstance(values, dict) and isinstance(values.get("Layers"), list):
        return "layers", values
    if any("computeMs" in row for row in rows):
        return "times", rows
    if any("averageMs" in row for row in rows):
        return "profile", rows
    raise DataError(f"Expected a JSON file of trtexec at '{file}', but it holds something else. {_HINT}")


def _turns(count: int) -> list[int]:
    """Neighbours as one turn, for `statistics`: of trtexec's run there are no others."""
    return [index * _TURNS // count for index in range(count)]


def _times(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    times = {ours: [_number(row, theirs) for row in rows] for ours, theirs in _TIMES.items()}
    if all("startEnqMs" in row and "endEnqMs" in row for row in rows):  # written to nanoseconds
        times["enqueue"] = [round(_number(row, "endEnqMs") - _number(row, "startEnqMs"), 6) for row in rows]
    return times


def _layers(profile: list[dict[str, Any]] | None, information: Any, whole: float) -> LayerProfile:
    infos = infos_of(information) if information is not None else []
    if profile is None:
        return profile_of("trtexec", 0, whole, layers_of(infos, [(info.name, 0.0, 0.0) for info in infos]))
    count = next((row["count"] for row in profile if type(row.get("count")) is int and row["count"] > 0), 0)
    named = [(str(row["name"]), _number(row, "averageMs"), 0.0) for row in profile if "name" in row]
    return profile_of("trtexec", count, whole, layers_of(infos, named), note="times of trtexec's own profiled run")


def _number(row: dict[str, Any], key: str) -> float:
    value = row.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0:
        raise DataError(f"Expected milliseconds as '{key}' in the times of trtexec, got {value!r:.80}. {_HINT}")
    return float(value)


def _precision(layers: LayerProfile | None) -> str:
    """That of most multiply-adds."""
    work: dict[str, int] = {}
    for layer in layers.layers if layers else ():
        work[layer.precision] = work.get(layer.precision, 0) + layer.macs
    return max(work, key=lambda precision: work[precision]) if any(work.values()) else ""


def _input_hw(information: Any) -> tuple[int, int]:
    """Of the pictures; (0, 0) where the file does not tell."""
    if information is None:
        return (0, 0)
    ends = (
        *tensors_of(information.get("I/O Tensors")),
        *(one for info in infos_of(information) for one in info.inputs),
    )
    shape = next((end.shape for end in ends if end.name == "images"), ())
    if len(shape) != 4:
        return (0, 0)
    return (shape[1], shape[2]) if shape[3] == 3 else (shape[2], shape[3])


def _times_rows(model: ModelProfile) -> list[dict[str, float]]:
    """One row a frame. The frames are put one behind the other: when each began is not kept."""
    times = model.times
    compute = times.get("compute") or times.get("network") or []
    zeros = [0.0] * len(compute)
    columns = [times.get(key) or zeros for key in ("h2d", "d2h", "enqueue")]
    whole = times.get("gpu") or [sum(row) for row in zip(columns[0], compute, columns[1], strict=True)]
    rows, begin = [], 0.0
    for h2d, ms, d2h, enqueue, latency in zip(columns[0], compute, *columns[1:], whole, strict=True):
        marks = list(accumulate((begin, h2d, ms, d2h)))
        row = {"startEnqMs": begin, "endEnqMs": begin + enqueue}
        for name, (start, end) in zip(("H2d", "Compute", "D2h"), pairwise(marks), strict=True):
            row |= {f"start{name}Ms": start, f"end{name}Ms": end}
        rows.append(row | {"h2dMs": h2d, "computeMs": ms, "d2hMs": d2h, "latencyMs": latency})
        begin += latency
    return rows


def _profile_rows(profile: LayerProfile) -> list[dict[str, Any]]:
    rows = [
        {
            "name": layer.name,
            "timeMs": layer.ms * profile.runs,
            "averageMs": layer.ms,
            "medianMs": layer.ms,  # the nearest that is kept
            "percentage": 100 * layer.share,
        }
        for layer in profile.layers
    ]
    return [{"count": profile.runs}, *rows] if profile.runs else []


def _layers_rows(model: ModelProfile) -> dict[str, Any]:
    """With the fields of 10.x and those that replaced them in 11.x; what neither has is under a name of ours.

    Of the ends of a layer no names are kept, and of inputs only the type that a product multiplies.
    """
    height, width = model.input_hw
    images = {"Name": "images", "IOMode": "Input", "Dimensions": [1, height, width, 3]}
    rows = [
        {
            "Name": layer.name,
            "LayerType": layer.op,
            "Inputs": [_end(f"{layer.name}_input", (), layer.precision)] if layer.macs else [],
            "Outputs": [_end(f"{layer.name}_output", layer.shape, layer.precision)],
            "TacticName": layer.kernel,
            OURS: {key: getattr(layer, key) for key in OUR_FIELDS},
        }
        for layer in (model.layers.layers if model.layers else ())
    ]
    ends = [images] if height and width else []
    return {"Layers": rows, "Bindings": [end["Name"] for end in ends], "I/O Tensors": ends}


def _end(name: str, shape: Sequence[int], precision: str) -> dict[str, Any]:
    words = _TYPES.get(precision, precision)
    return {"Name": name, "Dimensions": list(shape), "Datatype": words, "Format/Datatype": words}
