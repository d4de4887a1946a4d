"""Calibration as a whole, on a small network: against values kept in memory, stopped, resumed, misused."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from tests.calibrate.conftest import picture
from trt_blendmask import cli
from trt_blendmask.calibrate import (
    CalibrationReport,
    calibrate,
    graph_sha256,
    histograms_beside,
    read_histograms,
    read_table,
    write_table,
)
from trt_blendmask.calibrate.network import Network, picture_part
from trt_blendmask.errors import DataError, InputMissingError, OutputError, UsageError
from trt_blendmask.quantize.files import read_deployable
from trt_blendmask.quantize.plan import read_plan
from trt_blendmask.runtime.letterbox import Letterboxer
from trt_blendmask.structures import CalibrationTable, Letterbox


@pytest.fixture(scope="module")
def straight(small_model: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> CalibrationReport:
    """What a calibration on the whole folder gives that nothing happens to."""
    return calibrate(small_model, str(folder), tmp_path_factory.mktemp("straight") / "t.json", method="minmax")


def every_value(model: Path, folder: Path) -> dict[str, np.ndarray]:
    """All values of the planned activations over the pictures, by plain ONNX Runtime, cells of the picture only."""
    deployable = read_deployable(model)
    plan = read_plan(deployable.model)
    whole = onnx.load(model)
    kind = onnx.helper.make_tensor_value_info
    whole.graph.output.extend(kind(name, onnx.TensorProto.FLOAT, None) for name in plan.tensors)
    session = onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    boxer, found = Letterboxer(deployable.spec), {name: [] for name in plan.tensors}
    for file in sorted(folder.iterdir()):
        images, box = boxer(cv2.imread(str(file)))
        for name, value in zip(plan.tensors, session.run(list(plan.tensors), {"images": images}), strict=True):
            stride = 64 // value.shape[2]
            rows, columns = -(-box.scaled_wh[1] // stride), -(-box.scaled_wh[0] // stride)
            found[name].append(value[:, :, :rows, :columns].ravel())
    together = {group: np.concatenate([v for name in group for v in found[name]]) for group in plan.groups}
    return {name: values for group, values in together.items() for name in group}


def test_ranges_are_those_of_all_values(small_model: Path, folder: Path, straight: CalibrationReport) -> None:
    values = every_value(small_model, folder)
    assert straight.table.ranges.keys() == values.keys()
    for name, seen in values.items():
        assert straight.table.ranges[name] == pytest.approx(float(np.abs(seen).max()), rel=1e-6)
    counts = read_histograms(histograms_beside(straight.output))
    for name, seen in values.items():
        assert counts[name].zeros + int(counts[name].magnitudes.sum()) == seen.size
    by_mse = calibrate(small_model, str(folder), straight.output.with_name("t.json"))
    assert by_mse.resumed == 40  # another method needs no second run
    small = {name: seen for name, seen in values.items() if seen.size < 200_000}
    for name, seen in list(small.items())[::5]:
        bound, peak = by_mse.table.ranges[name], float(np.abs(seen).max())
        tried = [error_of(seen, peak * share) for share in np.linspace(0.5, 1, 16)]
        assert error_of(seen, bound) <= 1.01 * min(tried)


def error_of(values: np.ndarray, bound: float) -> float:
    scale = bound / 127
    return float(np.square(values - np.clip(np.rint(values / scale), -128, 127) * scale, dtype=np.float64).sum())


def test_order_names_and_resuming_leave_no_trace(
    small_model: Path, folder: Path, tmp_path: Path, straight: CalibrationReport
) -> None:
    listed = tmp_path / "list.txt"
    names = [str(file) for file in sorted(folder.iterdir(), reverse=True)]
    listed.write_text("\n".join(names[:34]))
    calibrate(small_model, str(listed), tmp_path / "b.json", method="minmax")
    listed.write_text("\n".join(names))
    resumed = calibrate(small_model, str(listed), tmp_path / "b.json", method="minmax")
    assert resumed.resumed == 34
    assert resumed.table == straight.table
    assert (tmp_path / "b.json").read_text() == straight.table.to_json()


def test_pictures_that_are_no_longer_asked_for_are_not_kept(
    small_model: Path, folder: Path, tmp_path: Path, straight: CalibrationReport
) -> None:
    shutil.copy(straight.histograms, histograms_beside(tmp_path / "a.json"))
    fewer = calibrate(small_model, str(folder), tmp_path / "a.json", n=32, method="minmax")
    assert (fewer.resumed, len(fewer.table.images)) == (0, 32)
    assert fewer.table == calibrate(small_model, str(folder), tmp_path / "b.json", n=32, method="minmax").table


def test_ctrl_c_keeps_what_was_collected(
    small_model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: CalibrationReport
) -> None:
    real, calls = Network.letterbox, iter(range(100))

    def interrupted(self: Network, image: np.ndarray) -> object:
        if next(calls) == 11:
            raise KeyboardInterrupt
        return real(self, image)

    monkeypatch.setattr(Network, "letterbox", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"after 11 of 40 pictures.*same command"):
        calibrate(small_model, str(folder), tmp_path / "t.json", method="minmax")
    assert not (tmp_path / "t.json").exists()
    monkeypatch.undo()
    resumed = calibrate(small_model, str(folder), tmp_path / "t.json", method="minmax")
    assert resumed.resumed == 11
    assert resumed.table == straight.table


@pytest.mark.parametrize("damage", ["cut", "other", "model"])
def test_foreign_or_damaged_histograms_are_not_gone_on_from(
    damage: str, small_model: Path, folder: Path, tmp_path: Path, straight: CalibrationReport
) -> None:
    keep = histograms_beside(tmp_path / "t.json")
    shutil.copy(straight.histograms, keep)
    model = small_model
    if damage == "cut":
        keep.write_bytes(keep.read_bytes()[:-1000])
    elif damage == "other":
        keep.write_text("no archive")
    else:
        model = with_changed_weight(small_model, tmp_path / "other.onnx", "backbone.res3.0.conv1.weight", 1.5)
    again = calibrate(model, str(folder), tmp_path / "t.json", method="minmax")
    assert again.resumed == 0
    assert (again.table.model_sha256 == straight.table.model_sha256) == (damage != "model")
    assert (again.table.ranges == straight.table.ranges) == (damage != "model")


def with_changed_weight(model: Path, path: Path, name: str, factor: float) -> Path:
    changed = onnx.load(model)
    tensor = next(t for t in changed.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))
    onnx.save(changed, path)
    return path


def test_nan_is_named(small_model: Path, folder: Path, tmp_path: Path) -> None:
    model = with_changed_weight(small_model, tmp_path / "m.onnx", "backbone.res3.0.conv1.weight", 3e38)
    with pytest.raises(DataError, match=r"activation 'backbone\.res3\.\S+'.*(NaN|infinite) for '.*png'"):
        calibrate(model, str(folder), tmp_path / "t.json", method="minmax")
    assert list(tmp_path.iterdir()) == [model]


def test_unreadable_black_and_doubled_pictures_are_counted(
    small_model: Path, folder: Path, tmp_path: Path, straight: CalibrationReport
) -> None:
    place = tmp_path / "pictures"
    shutil.copytree(folder, place)
    (place / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    (place / "empty.jpg").write_bytes(b"")
    shutil.copy(place / "3.png", place / "copy.png")
    cv2.imwrite(str(place / "black.png"), np.zeros((64, 96, 3), np.uint8))
    report = calibrate(small_model, str(place), tmp_path / "t.json", method="minmax")
    assert report.lines()[0].startswith("40 pictures; left out: 2 cannot be read, 1 show one colour only, 1 are copies")
    assert report.table.ranges == straight.table.ranges


def few(place: Path) -> Iterator[tuple[str, str]]:
    place.mkdir()
    for i in range(31):
        cv2.imwrite(str(place / f"{i}.png"), picture(i))
    yield "31", "got 31"
    for i in range(40, 50):
        (place / f"{i}.png").write_bytes(b"broken")
    yield "broken", r"got 31 \(10 cannot be read\)"
    for i in range(60):
        cv2.imwrite(str(place / f"{i}.png"), np.zeros((8, 8, 3), np.uint8))
    yield "black", r"got 0 \(60 show one colour only\)"


def test_fewer_than_32_pictures_are_refused(small_model: Path, tmp_path: Path) -> None:
    for case, words in few(tmp_path / "pictures"):
        with pytest.raises(DataError, match=f"at least 32 .*{words}"):
            calibrate(small_model, str(tmp_path / "pictures"), tmp_path / "t.json", method="minmax")
        assert not (tmp_path / "t.json").exists()
        assert histograms_beside(tmp_path / "t.json").exists() == (case == "broken")  # 31 to go on from
    (tmp_path / "none").mkdir()
    with pytest.raises(InputMissingError):
        calibrate(small_model, str(tmp_path / "none"), tmp_path / "t.json")


def test_misuse_is_refused_before_any_work(small_model: Path, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "t.json"
    for wrong in ({"n": 31}, {"method": "guess"}, {"select": "best"}, {"tensorrt": "11.0"}, {"tensorrt": "ten"}):
        with pytest.raises(UsageError):
            calibrate(small_model, str(folder), output, **wrong)
    with pytest.raises(OutputError, match="folder"):
        calibrate(small_model, str(folder), tmp_path)
    with pytest.raises(OutputError, match="too long"):
        calibrate(small_model, str(folder), tmp_path / ("n" * 300))
    with pytest.raises(OutputError):
        calibrate(small_model, str(folder), Path("/proc/t.json"))
    with pytest.raises(UsageError, match="overwrite"):
        calibrate(small_model, str(folder), small_model)
    quantised = onnx.load(small_model)
    at, node = next((i, node) for i, node in enumerate(quantised.graph.node) if node.op_type == "Conv")
    quantised.graph.node.insert(at, onnx.helper.make_node("QuantizeLinear", [node.input[0], "s", "z"], ["q"]))
    onnx.save(quantised, tmp_path / "q.onnx")
    with pytest.raises(DataError, match="quantised"):
        calibrate(tmp_path / "q.onnx", str(folder), output)
    assert list(tmp_path.iterdir()) == [tmp_path / "q.onnx"]


def test_a_table_is_of_one_graph_whatever_its_metadata(
    small_model: Path, tmp_path: Path, straight: CalibrationReport
) -> None:
    write_table(straight.table, tmp_path / "t.json")
    model = onnx.load(small_model)
    model.producer_version = "9.9"
    del model.metadata_props[:]
    assert read_table(tmp_path / "t.json", graph_sha256(model)) == straight.table
    with_changed_weight(small_model, tmp_path / "m.onnx", "fpn.output3.bias", 1.001)
    (tmp_path / "no.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match=r"no\.json.*trt-blendmask calibrate"):
        read_table(tmp_path / "no.json", graph_sha256(model))
    with pytest.raises(DataError, match="another"):
        read_table(tmp_path / "t.json", graph_sha256(onnx.load(tmp_path / "m.onnx")))


def test_the_cache_is_tensorrts(
    small_model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--images", str(folder), "-o", str(tmp_path / "t.json"), "--cache", str(tmp_path / "c.cache")]
    assert cli.main(["calibrate", str(small_model), *words, "--tensorrt", "10.13.2"]) == 0
    assert "40 pictures" in capsys.readouterr().out
    first, *lines = (tmp_path / "c.cache").read_text().splitlines()
    assert first == "TRT-101302-EntropyCalibration2"
    ranges = json.loads((tmp_path / "t.json").read_text())["ranges"]
    scales = dict(line.rsplit(": ", 1) for line in lines)
    assert scales.keys() == ranges.keys()
    for name, digits in scales.items():
        assert struct.unpack(">f", bytes.fromhex(digits))[0] == pytest.approx(ranges[name] / 127, rel=1e-6)


def test_padding_does_not_count() -> None:
    values = np.arange(8 * 12, dtype=np.float32).reshape(1, 1, 8, 12)  # stride 8 of an input of 64 x 96
    part = picture_part(values, Letterbox((96, 41), (64, 96)))  # 41 of 64 rows are picture: cell 5 shows one of them
    np.testing.assert_array_equal(part, values[:, :, :6])
    assert picture_part(values, Letterbox((40, 64), (64, 96))).shape == (1, 1, 8, 5)
    assert picture_part(values[0], Letterbox((96, 41), (64, 96))).shape == (1, 8, 12)


def table(**changes: object) -> CalibrationTable:
    values = {"model_sha256": "a" * 64, "method": "mse", "ranges": {"x": 1.5}, "images": ("b" * 64,), "versions": {}}
    return CalibrationTable(**{**values, **changes})  # type: ignore[arg-type]


def test_a_table_survives_its_json() -> None:
    one = table(ranges={"b": 0.1, "a": 3.0}, versions={"numpy": "2"})
    assert CalibrationTable.from_json(one.to_json()) == one
    assert one.to_json().index('"a"') < one.to_json().index('"b"')


@pytest.mark.parametrize(
    "change",
    [
        *({"ranges": wrong} for wrong in ({}, {"x": 0.0}, {"x": float("nan")}, {"x": "1"}, [1])),
        *({"model_sha256": "beef"}, {"images": ("b",)}, {"method": 3}, {"versions": {"numpy": 2}}),
    ],
)
def test_a_wrong_table_is_refused(change: dict[str, object]) -> None:
    text = json.dumps({**json.loads(table().to_json()), **change})
    with pytest.raises(DataError):
        CalibrationTable.from_json(text)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"images": 3}', "[" * 10_000])
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="trt-blendmask calibrate"):
        CalibrationTable.from_json(text)
