"""Presets and `--opts`: the same configuration as AdelaiDet's files give, and weights of the published shapes fit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.export import published_shapes
from trt_blendmask import cli
from trt_blendmask.errors import DataError, InputMissingError, UsageError
from trt_blendmask.export import BlendMaskConfig, export_onnx, read_config
from trt_blendmask.export.advice import advise
from trt_blendmask.export.assemble import build_model
from trt_blendmask.export.presets import PRESETS
from trt_blendmask.export.reader import Checkpoint, read_checkpoint
from trt_blendmask.export.storage import Weight


def facts(config: BlendMaskConfig) -> dict[str, Any]:
    """The configuration without where it came from."""
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in ("source", "files")}


@pytest.mark.parametrize("model", ["550_r50", "rt_r50", "dla34_small"])
def test_a_preset_with_options_equals_the_full_dump_of_the_same(model: str, reference: Path) -> None:
    folder = reference / "end_to_end" / model
    recipe = json.loads((folder / "recipe.json").read_text())
    preset = Path(recipe["yaml"]).stem
    assert facts(read_config(preset=preset, opts=[str(word) for word in recipe["opts"]])) == facts(
        read_config(folder / "config_full.yaml")
    )


# Depth, deformable, levels, share/cls/box convolutions, norm of head and backbone, basis convolutions, classes, size.
FACTS: dict[str, tuple[Any, ...]] = {
    "R_50_1x": (50, False, 5, (0, 4, 4), "GN", "FrozenBN", 3, 80, (800, 1344)),
    "R_50_3x": (50, False, 5, (0, 4, 4), "GN", "FrozenBN", 3, 80, (800, 1344)),
    "R_101_3x": (101, False, 5, (0, 4, 4), "GN", "FrozenBN", 3, 80, (800, 1344)),
    "R_101_dcni3_5x": (101, True, 5, (0, 4, 4), "GN", "FrozenBN", 3, 80, (800, 1344)),
    "550_R_50_1x": (50, False, 4, (3, 0, 0), "GN", "FrozenBN", 2, 80, (576, 928)),
    "550_R_50_3x": (50, False, 4, (3, 0, 0), "GN", "FrozenBN", 2, 80, (576, 928)),
    "550_R_50_dcni3_5x": (50, True, 4, (3, 0, 0), "GN", "FrozenBN", 2, 80, (576, 928)),
    "RT_R_50_4x_syncbn_shtw": (50, False, 3, (3, 0, 0), "GN", "SyncBN", 2, 80, (512, 736)),
    "RT_R_50_4x_bn-head_syncbn_shtw": (50, False, 3, (3, 0, 0), "SyncBN", "SyncBN", 2, 80, (512, 736)),
    "DLA_34_syncbn_4x": (34, False, 3, (0, 4, 4), "GN", "SyncBN", 3, 80, (512, 736)),
    "Person_R_50_1x": (50, False, 5, (0, 4, 4), "GN", "FrozenBN", 3, 1, (800, 1344)),
    "Panoptic_R_50_3x": (50, False, 5, (0, 4, 4), "GN", "FrozenBN", 3, 80, (800, 1344)),
    "Panoptic_R_101_3x": (101, False, 5, (0, 4, 4), "GN", "FrozenBN", 3, 80, (800, 1344)),
    "Panoptic_R_101_dcni3_5x": (101, True, 5, (0, 4, 4), "GN", "FrozenBN", 3, 80, (800, 1344)),
}


def test_every_preset_has_its_facts() -> None:
    assert set(FACTS) == set(PRESETS)
    for name, (depth, dcn, levels, towers, head_norm, norm, basis, classes, size) in FACTS.items():
        config = read_config(preset=name)
        config.check_exportable()
        backbone = dataclasses.asdict(config.backbone)
        assert backbone.get("depth", 34) == depth, name
        assert backbone["norm"] == norm, name
        assert any(backbone.get("deformable", ())) == dcn, name
        if dcn:
            assert backbone["deformable"] == (False, True, True, True)
            assert (backbone["deform_interval"], backbone["modulated"]) == (3, True)
        head = config.head
        assert (head.share_convs, head.cls_convs, head.box_convs, head.norm) == (*towers, head_norm), name
        assert (config.strides, config.basis.convs) == (tuple(8 << i for i in range(levels)), basis), name
        assert (len(config.class_names), config.class_names[0], config.default_input_hw) == (classes, "person", size)
        assert (config.thresh_with_ctr, head.use_scale, config.num_bases, config.attention_size) == (True, False, 4, 14)
        assert (config.mask_size, config.sampling_ratio, config.aligned) == (56, 1, True)
        assert (config.attention_interpolation, config.nms_threshold, config.pre_nms_topk) == ("bilinear", 0.6, 1000)
        assert (config.score_threshold, config.max_detections) == (0.05, 100)


def fake(shapes: dict[str, tuple[int, ...]]) -> Checkpoint:
    """A checkpoint of those keys whose values take no memory."""

    def weight(key: str, shape: tuple[int, ...]) -> Weight:
        value = np.broadcast_to(np.float32(0.01), shape)
        return Weight(shape, "int64" if key.endswith("tracked") else "float32", lambda: value)

    return Checkpoint(Path("c.pth"), {key: weight(key, shape) for key, shape in shapes.items()}, ())


@pytest.mark.parametrize("model", ["550_r50", "rt_r50", "dla34_small"])
def test_the_published_shapes_have_the_reference_keys(model: str, reference: Path) -> None:
    """So that the next test is not a circle; the reference's are narrow, and its seg_head is longer."""
    folder = reference / "end_to_end" / model
    found = json.loads((folder / "state_dict_keys.json").read_text())
    shapes = published_shapes(Path(json.loads((folder / "recipe.json").read_text())["yaml"]).stem)
    for key in found:
        assert "seg_head" in key or len(shapes[key]) == len(found[key]) - 1, key
    extra = {k for k in shapes if k not in found and not k.endswith("num_batches_tracked")}
    wider = ("level2.project", "_tower.6.", "_tower.7.", "_tower.9.", "_tower.10.")  # 16 to 64 channels, 4 convolutions
    assert all(model == "dla34_small" and any(part in key for part in wider) for key in extra), extra


@pytest.mark.parametrize("name", PRESETS)
def test_weights_of_the_published_shapes_fit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trt_blendmask.export.spill.MIN_BYTES", 1 << 40)  # all zeros: no memory to save
    config = read_config(preset=name)
    built = build_model(fake(published_shapes(name)), config, config.model_spec((64, 96)))
    ignored = {key.split(".")[0] for key in built.ignored_keys if not key.endswith("num_batches_tracked")}
    assert "basis_module" in ignored
    assert ("panoptic_module" in ignored) == name.startswith("Panoptic")


def test_the_same_weights_fit_nothing_else() -> None:
    for name, other in (("R_50_1x", "R_101_3x"), ("R_50_1x", "550_R_50_1x"), ("R_50_1x", "Person_R_50_1x")):
        config = read_config(preset=other)
        with pytest.raises(DataError, match=f"or --preset {name}, which fits"):
            build_model(fake(published_shapes(name)), config, config.model_spec((64, 96)))


def test_advice_counts_what_was_changed(reference: Path) -> None:
    for model in ("550_r50", "rt_r50", "dla34_small"):
        folder = reference / "end_to_end" / model
        advice = advise(read_checkpoint(folder / "model_plain.pth"))
        preset, *opts = advice.split("--preset ")[1].split(",")[0].replace(" --opts", "").split()
        recipe = json.loads((folder / "recipe.json").read_text())
        told = dict(zip(recipe["opts"][::2], recipe["opts"][1::2], strict=True))
        shaped = {k: str(v) for k, v in told.items() if not k.startswith("INPUT") and "BOTTOM" not in k}
        assert preset == Path(recipe["yaml"]).stem
        assert dict(zip(opts[::2], opts[1::2], strict=True)) == shaped
    assert "--preset" not in advise(fake({"conv.weight": (3, 3, 1, 1)}))


def test_export_without_a_config_names_the_preset(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = reference / "end_to_end" / "dla34_small" / "model_plain.pth"
    assert cli.main(["export", str(checkpoint), "-o", str(tmp_path / "raw.onnx")]) == 2
    assert "--preset DLA_34_syncbn_4x --opts MODEL.FCOS.NUM_CLASSES 5" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_the_advice_says_can_be_typed(reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--preset` and `--opts` on the command line give the file that the YAML gives, but for what no shape tells."""
    folder = reference / "end_to_end" / "550_r50"
    words = ["export", str(folder / "model_plain.pth"), "--input-size", "64x96"]
    advice = advise(read_checkpoint(folder / "model_plain.pth")).split("or --preset ")[1].split(",")[0].split()
    assert cli.main([*words, "--config", str(folder / "config_full.yaml"), "-o", str(tmp_path / "a.onnx")]) == 0
    assert cli.main([*words, "--preset", *advice, "-o", str(tmp_path / "b.onnx")]) == 0
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert cli.main([*words, "--preset", "550_R_50_1x", "--opts", "MODEL.FCOS.NUM_CLASES", "8"]) == 2
    assert "Did you mean MODEL.FCOS.NUM_CLASSES?" in capsys.readouterr().err


MINIMAL = "MODEL: {META_ARCHITECTURE: BlendMask, BACKBONE: {NAME: build_fcos_resnet_fpn_backbone}}\n"

GOOD_OPTIONS: dict[str, tuple[list[str], str, Any]] = {
    "number": (["MODEL.FCOS.NUM_CLASSES", "3"], "num_classes", 3),
    "the last one wins": (["MODEL.FCOS.NUM_CLASSES", "3", "MODEL.FCOS.NUM_CLASSES", "4"], "num_classes", 4),
    "Python's True": (["MODEL.FCOS.THRESH_WITH_CTR", "True"], "thresh_with_ctr", True),
    "YAML's true": (["MODEL.FCOS.THRESH_WITH_CTR", "true"], "thresh_with_ctr", True),
    "exponent": (["MODEL.FCOS.INFERENCE_TH_TEST", "1e-1"], "score_threshold", 0.1),
    "negative": (["MODEL.FCOS.NMS_TH", "-1"], "nms_threshold", -1.0),
    "tuple": (["MODEL.PIXEL_MEAN", "(1, 2.5, 3)"], "pixel_mean", (1.0, 2.5, 3.0)),
    "Python list": (["CLASS_NAMES", "['a', 'b']", "MODEL.FCOS.NUM_CLASSES", "2"], "class_names", ("a", "b")),
    "YAML list": (["CLASS_NAMES", "[a, b]", "MODEL.FCOS.NUM_CLASSES", "2"], "class_names", ("a", "b")),
    "size": (["INPUT.SIZE_HW", "[96, 64]"], "default_input_hw", (96, 64)),
    "interpolation": (["MODEL.BLENDMASK.TOP_INTERP", "nearest"], "attention_interpolation", "nearest"),
    "pooler": (["MODEL.BLENDMASK.POOLER_TYPE", "ROIAlign"], "aligned", False),
    "samples": (["MODEL.BLENDMASK.POOLER_SAMPLING_RATIO", "2"], "sampling_ratio", 2),
}


@pytest.mark.parametrize("case", GOOD_OPTIONS.values(), ids=GOOD_OPTIONS.keys())
def test_options_win(case: tuple[list[str], str, Any], tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(MINIMAL + "INPUT: {SIZE_HW: [32, 32]}\n")
    for config in (read_config(path, opts=case[0]), read_config(preset="R_50_1x", opts=case[0])):
        assert getattr(config, case[1]) == case[2]
        assert getattr(config.model_spec(), case[1], case[2]) == case[2]
    assert getattr(read_config(path), case[1]) != case[2] or case[2] is True


COPIED = """SOLVER.IMS_PER_BATCH 2 OUTPUT_DIR out MODEL.WEIGHTS a.pth MODEL.DEVICE cpu DATASETS.TEST ('x',) SEED 1
TEST.AUG.ENABLED True DATALOADER.NUM_WORKERS 0 INPUT.MIN_SIZE_TRAIN (640,) INPUT.CROP.ENABLED True
MODEL.RETINANET.SCORE_THRESH_TEST 0.3 MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.3 MODEL.FCOS.LOSS_ALPHA 0.2
MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH 0.3 MODEL.FCOS.PRE_NMS_TOPK_TRAIN 9
MODEL.BASIS_MODULE.LOSS_ON False MODEL.BACKBONE.FREEZE_AT 0"""


def test_a_command_of_training_can_be_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = read_config(preset="R_50_1x", opts=["MODEL.FCOS.INFERENCE_TH_TEST", "0.3", *COPIED.split()])
    assert config.score_threshold == 0.3
    assert config.unused_options == tuple(COPIED.split()[::2])
    words = ["surgery", "-v", str(tmp_path / "no.onnx"), "--preset", "R_50_1x", "--opts", *COPIED.split()]
    assert cli.main(words) == 66
    assert "no effect at inference: SOLVER.IMS_PER_BATCH" in capsys.readouterr().out


BAD_OPTIONS: dict[str, tuple[list[str], str]] = {
    "typo": (["MODEL.FCOS.NUM_CLASES", "3"], r"Did you mean MODEL\.FCOS\.NUM_CLASSES\?"),
    "small letters": (["model.fcos.num_classes", "3"], r"Did you mean MODEL\.FCOS\.NUM_CLASSES\?"),
    "last part only": (["ATTN_SIZE", "7"], r"Did you mean MODEL\.BLENDMASK\.ATTN_SIZE\?"),
    "not even of training": (["INPUT.MIN_SIZE_TSET", "7"], r"Did you mean INPUT\.MIN_SIZE_TEST\?"),
    "other backbone": (["MODEL.DLA.NORM", "BN"], r"MODEL\.DLA\.NORM, which this network has no use for"),
    "section": (["MODEL.FCOS", "3"], "no use"),
    "odd": (["MODEL.FCOS.NUM_CLASSES"], "a key without a value: 'MODEL.FCOS.NUM_CLASSES'"),
    "equals sign": (["MODEL.FCOS.NUM_CLASSES=3", "x"], "a key that is none"),
    "type": (["MODEL.FCOS.NUM_CLASSES", "many"], "--opts has MODEL.FCOS.NUM_CLASSES: 'many', expected a whole number"),
    "tag": (["MODEL.FCOS.NORM", "!!python/name:os.system"], "FCOS.NORM"),
    "adaptive": (["MODEL.BLENDMASK.POOLER_SAMPLING_RATIO", "0"], "no fixed shape.*POOLER_SAMPLING_RATIO 2"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_bad_options_are_usage(case: tuple[list[str], str]) -> None:
    with pytest.raises(UsageError, match=case[1]):
        read_config(preset="550_R_50_1x", opts=case[0])


def test_one_source_and_known_names(tmp_path: Path) -> None:
    for arguments in ({}, {"path": tmp_path, "preset": "R_50_1x"}, {"opts": ["CLASS_NAMES", "[a]"]}):
        with pytest.raises(UsageError, match="--config"):
            read_config(**arguments)
    with pytest.raises(UsageError, match="nearest are DLA_34_syncbn_4x"):
        read_config(preset="DLA_34_4x")
    spelt = read_config(preset="panoptic/R_50_3x.yaml")
    assert spelt.source == "the preset Panoptic_R_50_3x"


def test_a_chain_means_what_merging_it_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """detectron2 merges the files key by key; one merged file must read the same as the chain."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    base = yaml.safe_load(MINIMAL)
    base["MODEL"] |= {"FCOS": {"NUM_CLASSES": 5, "TOP_LEVELS": 0, "NMS_TH": 0.5}, "PIXEL_STD": [2, 2, 2]}
    middle = {"MODEL": {"FCOS": {"NUM_CLASSES": 7}, "FPN": {"OUT_CHANNELS": 64}}, "INPUT": {"MIN_SIZE_TEST": 100}}
    leaf = {"MODEL": {"FCOS": {"TOP_LEVELS": 1}, "PIXEL_STD": "(1, 1, 1)"}, "INPUT": {"MAX_SIZE_TEST": 200}}

    def merge(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
        return b | {
            k: merge(v, b[k]) if isinstance(v, dict) and isinstance(b.get(k), dict) else v for k, v in a.items()
        }

    (tmp_path / "home" / "deep").mkdir(parents=True)
    (tmp_path / "sub").mkdir()
    (tmp_path / "home" / "Base.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "home" / "deep" / "middle.yaml").write_text(yaml.safe_dump({"_BASE_": "../Base.yaml", **middle}))
    (tmp_path / "sub" / "leaf.yaml").write_text(yaml.safe_dump({"_BASE_": "~/deep/middle.yaml", **leaf}))
    (tmp_path / "merged.yaml").write_text(yaml.safe_dump(merge(leaf, merge(middle, base))))
    chain, merged = read_config(tmp_path / "sub" / "leaf.yaml"), read_config(tmp_path / "merged.yaml")
    assert facts(chain) == facts(merged)
    assert (chain.num_classes, chain.top_levels, chain.default_input_hw, len(chain.files)) == (7, 1, (128, 224), 3)


def test_text_that_spells_a_number_is_one(tmp_path: Path) -> None:
    """As yacs reads it: YAML alone takes 5e-2 for text."""
    (tmp_path / "x.yaml").write_text(MINIMAL + 'INPUT: {MIN_SIZE_TEST: "96", FORMAT: BGR}\n')
    assert read_config(tmp_path / "x.yaml").default_input_hw[0] == 96
    (tmp_path / "x.yaml").write_text(MINIMAL.replace("BACKBONE", "FCOS: {INFERENCE_TH_TEST: 5e-2}, BACKBONE"))
    assert read_config(tmp_path / "x.yaml").score_threshold == 0.05
    (tmp_path / "x.yaml").write_text("_BASE_: ~nobody-of-that-name/x.yaml\n")
    with pytest.raises(InputMissingError, match="home folder"):
        read_config(tmp_path / "x.yaml")


def test_an_output_must_not_be_any_file_of_the_chain(small_config: Callable[..., Path], tmp_path: Path) -> None:
    base = small_config()
    leaf = tmp_path / "leaf.yaml"
    leaf.write_text(f"_BASE_: {base.name}\n")
    before = base.read_text()
    with pytest.raises(UsageError, match="overwrite"):
        export_onnx(tmp_path / "none.pth", leaf, base)
    assert base.read_text() == before
