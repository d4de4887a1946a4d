"""Ranking and curve on models whose harm is known: each INT8 layer shifts every box by so much."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest

from trt_blendmask.calibrate.pictures import Picture
from trt_blendmask.errors import UsageError
from trt_blendmask.quantize import sensitivity
from trt_blendmask.quantize.plan import Layer
from trt_blendmask.quantize.sensitivity import Block, block_of, group_blocks, measure, write_sensitivity
from trt_blendmask.structures import Detections

PICTURES = [Picture(0, "a", "", np.zeros((60, 90, 3), np.uint8))]
SHIFTS = {"big": 0.8, "small": 0.4, "harmless": 0.0, "dear": 0.8}  # pixels of a box of 20
MACS = {"big": 100, "small": 10, "harmless": 5, "dear": 1000}
BLOCKS = [Block(name, (f"{name}.1", f"{name}.2"), MACS[name]) for name in SHIFTS]


def make(kept: frozenset[str]) -> onnx.ModelProto:
    """No model, but which layers are float."""
    return onnx.ModelProto(doc_string=json.dumps(sorted(kept)))


def detect(path: Path, pictures: list[Picture]) -> list[Detections]:
    """Each layer that is INT8 makes the one box wider."""
    kept = json.loads(onnx.load(path).doc_string) if path.exists() else [name for b in BLOCKS for name in b.layers]
    wider = sum(shift for name, shift in SHIFTS.items() for n in (1, 2) if f"{name}.{n}" not in kept)
    box = np.array([[10, 10, 30 + wider, 30]], np.float32)
    masks = np.ones((1, 14, 14), np.float32)
    return [Detections(box, np.ones(1, np.float32), np.zeros(1, np.int32), masks, (90, 60)) for _ in pictures]


@pytest.fixture(autouse=True)
def _known_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "_detect", detect)


def test_blocks_go_back_to_float_by_harm_for_their_price() -> None:
    ticks: list[int] = []
    found = measure(Path("float"), BLOCKS, make, PICTURES, on_model=lambda: ticks.append(1))
    assert [block.name for block in found.blocks] == ["small", "big", "dear", "harmless"]
    assert [step.kept for step in found.steps][2] == ("small", "big")
    assert len(found.steps) == 5
    assert len(ticks) == 9
    assert found.chosen is None
    assert found.keep_float == frozenset()
    lost = [step.lost for step in found.steps]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 10
    assert lost[-1] == 0
    shares = [step.int8_share for step in found.steps]
    assert shares == pytest.approx([1, 1105 / 1115, 1005 / 1115, 5 / 1115, 0])


@pytest.mark.parametrize(("allowed", "kept"), [(100, []), (9, ["small", "big"]), (0, ["small", "big", "dear"])])
def test_the_curve_ends_where_little_enough_is_lost(allowed: float, kept: list[str]) -> None:
    found = measure(Path("float"), BLOCKS, make, PICTURES, allowed)
    assert found.chosen == len(found.steps) - 1 == len(kept)
    assert found.keep_float == {f"{name}.{n}" for name in kept for n in (1, 2)}
    assert found.steps[-1].lost <= allowed
    assert "<- chosen" in found.lines()[-1]


def test_nothing_to_measure_is_refused() -> None:
    for blocks, pictures in (([], PICTURES), (BLOCKS, [])):
        with pytest.raises(UsageError, match="pictures to measure"):
            measure(Path("float"), blocks, make, pictures)


def test_page_and_json_say_the_same(tmp_path: Path) -> None:
    found = measure(Path("float"), BLOCKS, make, PICTURES, 5)
    page, facts = write_sensitivity(found, "model <int8>", tmp_path / "curve.html")
    text = page.read_text()
    parser = HTMLParser()
    parser.feed(text)
    assert "model &lt;int8&gt;" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert text.count("<circle") == len(found.steps)
    assert text.count('class="chosen"') == 1
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
