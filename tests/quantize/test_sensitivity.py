"""Ranking and curve on models whose harm is known: each INT8 layer shifts every box by so much."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest

from trt_blendmask.calibrate.pictures import Picture
from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.quantize import sensitivity
from trt_blendmask.quantize.plan import Layer
from trt_blendmask.quantize.sensitivity import Block, block_of, group_blocks, measure, runs, write_sensitivity
from trt_blendmask.structures import Detections

IMAGE = np.zeros((60, 90, 3), np.uint8)
IMAGE[:, 10:30] = 255  # the object
PICTURES = [Picture(i, f"{i}", "", IMAGE) for i in range(20)]
SHIFTS = {"big": 0.8, "small": 0.4, "harmless": 0.0, "dear": 0.8}  # pixels of a box of 20
MACS = {"big": 100, "small": 10, "harmless": 5, "dear": 1000}
BLOCKS = [Block(name, (f"{name}.1", f"{name}.2"), MACS[name]) for name in SHIFTS]


def make(kept: frozenset[str]) -> onnx.ModelProto:
    """No model, but which layers are float."""
    return onnx.ModelProto(doc_string=json.dumps(sorted(kept)))


class Finder:
    """Each layer that is INT8 makes the one box wider, to the right of the picture as it is."""

    def __init__(self, path: Path) -> None:
        kept = json.loads(onnx.load(path).doc_string) if path.exists() else [name for b in BLOCKS for name in b.layers]
        self.wider = sum(shift for name, shift in SHIFTS.items() for n in (1, 2) if f"{name}.{n}" not in kept)

    def __enter__(self) -> Finder:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, image: np.ndarray) -> Detections:
        columns = np.flatnonzero(image[0, :, 0])
        box = np.array([[columns[0], 10, columns[-1] + 1 + self.wider, 30]], np.float32) if columns.size else None
        n = len(columns[:1])
        boxes = np.zeros((0, 4), np.float32) if box is None else box
        return Detections(
            boxes, np.ones(n, np.float32), np.zeros(n, np.int32), np.ones((n, 14, 14), np.float32), (90, 60)
        )


@pytest.fixture(autouse=True)
def _known_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "load", Finder)


def test_blocks_go_back_to_float_by_harm_for_their_price() -> None:
    ticks: list[int] = []
    found = measure(Path("float"), BLOCKS, make, PICTURES, on_picture=lambda: ticks.append(1))
    assert [block.name for block in found.blocks] == ["small", "big", "dear", "harmless"]
    assert [step.kept for step in found.steps][2] == ("small", "big")
    assert len(found.steps) == 5
    assert len(ticks) == runs(len(BLOCKS), len(PICTURES)) == 2 * 20 + 4 * 10 + 5 * 20
    assert found.chosen is None
    assert found.keep_float == frozenset()
    lost = [step.lost for step in found.steps]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 10
    assert lost[-1] == 0
    # 24, 23, 22 and 20 columns for 20: IoU 0.83, 0.87, 0.91 and 1, which 3, 2, 1 and 0 of COCO's ten bounds exceed
    assert [step.ap_lost for step in found.steps] == pytest.approx([30, 20, 10, 0, 0])
    shares = [step.int8_share for step in found.steps]
    assert shares == pytest.approx([1, 1105 / 1115, 1005 / 1115, 5 / 1115, 0])
    assert [step.best for step in found.steps] == [True, True, True, True, False]  # the last pays for nothing


@pytest.mark.parametrize(
    ("allowed", "bound", "kept"),
    [
        (30, 0.5, []),
        (20, 0.5, ["small"]),
        (9, 0.5, ["small", "big", "dear"]),
        (0, 0.5, ["small", "big", "dear"]),
        (100, 0.9, ["small", "big"]),  # the gate would not let less pass
        (100, 0.97, ["small", "big", "dear"]),
    ],
)
def test_the_curve_ends_where_little_enough_is_lost(
    allowed: float, bound: float, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensitivity, "LEAST_MASK_IOU", bound)
    found = measure(Path("float"), BLOCKS, make, PICTURES, allowed + 1e-9)
    assert found.chosen == len(found.steps) - 1 == len(kept)
    assert found.keep_float == {f"{name}.{n}" for name in kept for n in (1, 2)}
    assert "<- chosen" in found.lines()[-1]


def test_steps_grow() -> None:
    blocks = [Block(f"{i}", (f"{i}",), 1) for i in range(30)]
    found = measure(Path("float"), blocks, make, PICTURES[:1])
    assert [len(step.kept) for step in found.steps] == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 30]
    assert len(found.lines()) == 3 + 31
    one = measure(Path("float"), blocks[:1], make, PICTURES[:1], 0.3)
    assert len(one.steps) == 2


def test_nothing_to_measure_is_refused() -> None:
    for blocks, pictures in (([], PICTURES), (BLOCKS, [])):
        with pytest.raises(UsageError, match="pictures to measure"):
            measure(Path("float"), blocks, make, pictures)
    with pytest.raises(DataError, match="finds nothing above score"):
        measure(Path("float"), BLOCKS, make, [Picture(0, "black", "", np.zeros_like(IMAGE))])


def test_page_and_json_say_the_same(tmp_path: Path) -> None:
    found = measure(Path("float"), BLOCKS, make, PICTURES, 5)
    page, facts = write_sensitivity(found, "model <int8>", tmp_path / "curve.html")
    text = page.read_text()
    parser = HTMLParser()
    parser.feed(text)
    assert "model &lt;int8&gt;" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert text.count("<circle") == 4 * len(found.steps), "two curves, each for a desk and for a phone"
    assert text.count('class="chosen"') == 4
    values = json.loads(facts.read_text())
    assert [step["lost"] for step in values["steps"]] == [step.lost for step in found.steps]
    assert values["chosen"] == found.chosen


@pytest.mark.parametrize(
    ("name", "part", "block"),
    [
        ("backbone.res3.0.conv2", "backbone", "backbone.res3.0"),
        ("/m/backbone/bottom_up/res3/res3.0/conv2/Conv", "backbone", "m.backbone.bottom_up.res3.res3.0"),
        ("backbone.conv12", "backbone", "backbone.conv12"),
        ("head.P4.share_tower.1", "towers", "head.share_tower.1"),
        ("/m/proposal_generator/fcos_head/share_tower/share_tower.0/Conv_3", "towers",
         "m.proposal_generator.fcos_head.share_tower.share_tower.0"),
        ("fpn.output3", "fpn", "fpn.output3"),
    ],
)  # fmt: skip
def test_block_of_a_layer(name: str, part: str, block: str) -> None:
    assert block_of(Layer(name, "x", "w", part)) == block


def test_levels_of_a_tower_are_one_block() -> None:
    layers = [Layer(f"head.P{level}.tower.0", "x", "w", "towers") for level in (3, 4)]
    blocks = group_blocks(layers, {"head.P3.tower.0": 4, "head.P4.tower.0": 1})
    assert blocks == (Block("head.tower.0", ("head.P3.tower.0", "head.P4.tower.0"), 5),)
