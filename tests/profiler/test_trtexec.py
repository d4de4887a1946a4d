"""trtexec's files: read in any order, written so that they read the same."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.profiler.made_up import report
from trt_blendmask.errors import DataError, InputMissingError, OutputError, UsageError
from trt_blendmask.profiler.differences import noise_of
from trt_blendmask.profiler.report import ModelProfile
from trt_blendmask.profiler.trtexec import read_trtexec, write_trtexec

DATA = Path(__file__).with_name("data")
THREE = (DATA / "times_10.json", DATA / "profile_10.json", DATA / "inspector_10.json")


def comparable(model: ModelProfile) -> ModelProfile:
    return replace(model, label="", path="")


def test_any_order() -> None:
    found = [comparable(read_trtexec(order)) for order in itertools.permutations(THREE)]
    assert all(model == found[0] for model in found)
    rows = json.loads(THREE[0].read_text())
    model = found[0]
    assert model.times["compute"] == [row["computeMs"] for row in rows]
    assert model.times["gpu"] == [row["latencyMs"] for row in rows]
    assert model.times["enqueue"] == pytest.approx([row["endEnqMs"] - row["startEnqMs"] for row in rows])
    assert model.times.keys() == {"h2d", "compute", "d2h", "gpu", "enqueue"}
    assert model.layers is not None
    assert [layer.ms for layer in model.layers.layers] == [0.02, 0.2, 0.01, 0.1, 0.03, 0.3, 0.05]
    assert (model.layers.runs, model.layers.tool, model.precision) == (100, "trtexec", "INT8")
    assert model.layers.sum_ms == pytest.approx(0.71)
    assert model.layers.whole_ms == pytest.approx(sum(model.times["compute"]) / 60)
    assert noise_of(model, "gpu") is not None


def test_read_written_and_read_again(tmp_path: Path) -> None:
    first = read_trtexec(THREE)
    written = write_trtexec(first, tmp_path)
    assert [path.name for path in written] == ["times.json", "profile.json", "layers.json"]
    assert comparable(read_trtexec(written)) == comparable(first)
    again = write_trtexec(read_trtexec(written), tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_written_frames_follow_each_other(tmp_path: Path) -> None:
    rows = json.loads(write_trtexec(read_trtexec(THREE), tmp_path)[0].read_text())
    for row, following in itertools.pairwise(rows):
        assert row["startH2dMs"] == row["startEnqMs"]
        assert row["endH2dMs"] == row["startComputeMs"] == pytest.approx(row["startH2dMs"] + row["h2dMs"])
        assert row["endComputeMs"] == row["startD2hMs"] == pytest.approx(row["startComputeMs"] + row["computeMs"])
        assert row["endD2hMs"] == pytest.approx(following["startH2dMs"])


def test_of_a_profile_of_ours(tmp_path: Path) -> None:
    """What was measured on a CPU: all of it is compute."""
    model = report().models[0]
    found = read_trtexec(write_trtexec(model, tmp_path))
    assert found.times["compute"] == model.times["network"]
    assert set(found.times["h2d"]) == {0.0}
    assert found.layers is not None
    assert model.layers is not None
    for ours, theirs in zip(model.layers.layers, found.layers.layers, strict=True):
        assert theirs == replace(ours, share=theirs.share, roof_share=None, ms=theirs.ms, error_ms=0.0)
        assert (theirs.ms, theirs.share) == pytest.approx((ours.ms, ours.share))
    assert found.input_hw == model.input_hw


def test_other_readers_find_what_10_x_writes(tmp_path: Path) -> None:
    """trt-engine-explorer takes no file without bindings or a median, and no word for a type but TensorRT's."""
    model = report().models[2]
    assert model.layers is not None
    _, profile, layers = (json.loads(path.read_text()) for path in write_trtexec(model, tmp_path))
    assert layers["Bindings"] == ["images"]
    assert [len(row) for row in profile] == [1] + [5] * len(model.layers.layers)
    assert all(
        row["medianMs"] == row["averageMs"] == layer.ms
        for row, layer in zip(profile[1:], model.layers.layers, strict=True)
    )
    for row, layer in zip(layers["Layers"], model.layers.layers, strict=True):
        words = {"INT8": "Int8", "FP32": "Float"}[layer.precision]
        assert [end["Format/Datatype"] for end in row["Outputs"]] == [words]
        assert [end["Format/Datatype"] for end in row["Inputs"]] == [words] * bool(layer.macs)


def test_what_is_not_there_is_not_written(tmp_path: Path) -> None:
    bare = replace(report().models[0], times={}, layers=None)
    assert write_trtexec(bare, tmp_path) == []


def test_one_of_each_kind_is_enough() -> None:
    assert read_trtexec(THREE[:1]).layers is None
    assert read_trtexec(THREE[1:2]).times == {}
    alone = read_trtexec(THREE[2:])
    assert alone.layers is not None
    assert {layer.ms for layer in alone.layers.layers} == {0.0}
    assert alone.macs == 32 * 64 * 80 * (3 * 49 + 32 * 9)


def test_two_of_a_kind() -> None:
    with pytest.raises(UsageError, match="second one"):
        read_trtexec([THREE[0], THREE[0]])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "[1]",
        '[{"computeMs": "x"}]',
        '[{"computeMs": NaN, "h2dMs": 1}]',
        '[{"averageMs": 1}]',
        '[{"name": "a", "averageMs": -1}]',
        '[{"name": "a", "averageMs": true}]',
        f'[{{"computeMs": {"9" * 400}}}]',
        '[{"computeMs": 1e300, "h2dMs": 0, "d2hMs": 0, "latencyMs": 1e300}]',
        f'{{"Layers": [{{"Name": "a", "Outputs": [{{"Dimensions": [{"9" * 400}]}}]}}]}}',
        "[[",
    ],
)
def test_something_else(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    if text == '[{"averageMs": 1}]':  # a profile of no layers
        assert read_trtexec([path]).layers is not None
        return
    with pytest.raises(DataError, match="Expected"):
        read_trtexec([path])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError):
        read_trtexec([tmp_path / "no.json"])
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError):
        write_trtexec(read_trtexec(THREE), tmp_path / "taken")


def test_a_damaged_file_never_crashes(tmp_path: Path) -> None:
    """Each value of the inspector's and the profiler's file in turn becomes something else."""
    for source in THREE[1:]:
        text = source.read_text()
        for index, value in enumerate(re.finditer(r"(?<=: )[^,}\]\n]+", text)):
            damage = ("null", "-1", '"x"', "[]", "{}", "1e999")[index % 6]
            (tmp_path / "x.json").write_text(text[: value.start()] + damage + text[value.end() :])
            with contextlib.suppress(DataError, UsageError):
                read_trtexec([tmp_path / "x.json", *(() if source == THREE[2] else THREE[2:])])


def test_many_large_sides_are_no_shape(tmp_path: Path) -> None:
    sides = [10**18] * 60
    rows = [{"Name": "a", "LayerType": "Conv", "Outputs": [{"Dimensions": sides, "Datatype": "Half"}], "Kernel": sides}]
    (tmp_path / "x.json").write_text(json.dumps({"Layers": rows}))
    found = read_trtexec([tmp_path / "x.json"])
    assert found.layers is not None
    assert (found.layers.layers[0].shape, found.layers.layers[0].macs) == ((), 0)
    assert json.dumps(found.__dict__, default=str)
