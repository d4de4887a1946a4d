"""One file of every kind, all of one small network."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import reference_folder
from tests.inspect.artefacts import hand_made_engine
from tests.quantize.networks import table_of
from trt_blendmask.calibrate.table import cache_header, cache_text, graph_sha256, write_table
from trt_blendmask.export import export_onnx
from trt_blendmask.quantize.files import read_deployable
from trt_blendmask.quantize.fp16 import quantize_fp16
from trt_blendmask.quantize.int8_file import quantize_int8_file
from trt_blendmask.structures import CalibrationTable
from trt_blendmask.surgery import SurgeryOptions, operate


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By name; see the body."""
    folder, source = tmp_path_factory.mktemp("artefacts"), reference_folder() / "end_to_end" / "rt_r50"
    names = ("raw", "model", "plugin", "aot", "fp16", "int8")
    made = {name: folder / f"{name}.onnx" for name in names}
    made["checkpoint"] = source / "model_plain.pth"
    export_onnx(made["checkpoint"], source / "config_full.yaml", made["raw"], (128, 160))
    for name, tail in (("model", "native"), ("plugin", "plugin"), ("aot", "aot")):
        operate(made["raw"], made[name], SurgeryOptions(tail=tail, max_detections=12, split=tail == "native", nms="op"))
    made |= {half: folder / f"model.{half}.onnx" for half in ("trunk", "tail")}
    quantize_fp16(made["model"], made["fp16"])
    model = read_deployable(made["model"]).model
    drawn = table_of(model)
    table = CalibrationTable(graph_sha256(model), "mse", drawn.ranges, ("0" * 64,) * 3, {"numpy": "2.0.0"})
    made |= {"table": folder / "table.json", "cache": folder / "table.cache"}
    write_table(table, made["table"])
    made["cache"].write_text(cache_text(table, cache_header("10.3.0")))
    quantize_int8_file(made["model"], made["table"], made["int8"])
    made |= {"engine": folder / "model.engine", "passport": folder / "model.engine.json"}
    hand_made_engine(made["engine"], read_deployable(made["model"]).spec, made["model"])
    return made
