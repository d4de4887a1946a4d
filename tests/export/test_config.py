"""AdelaiDet's YAML: defaults, `_BASE_`, what is refused and how."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trt_blendmask.bundled import CONFIG
from trt_blendmask.errors import DataError, InputMissingError, NotTrustedError, UsageError
from trt_blendmask.export import read_config

MINIMAL = "MODEL: {META_ARCHITECTURE: BlendMask, BACKBONE: {NAME: build_fcos_resnet_fpn_backbone}}\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def make(content: str, name: str = "x.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    return make


def test_reference_config(reference: Path) -> None:
    config = read_config(reference / "end_to_end" / "rt_r50" / "config_full.yaml")
    assert (config.num_classes, config.attention_size, config.mask_size, config.num_bases) == (8, 7, 56, 4)
    assert (config.strides, config.top_levels, config.head.share_convs) == ((8, 16, 32), 0, 3)
    assert (config.score_threshold, config.nms_threshold, config.pre_nms_topk) == (0.05, 0.6, 1000)
    assert (config.max_detections, config.thresh_with_ctr, config.aligned) == (100, True, True)
    assert config.default_input_hw == (128, 224)  # 128 and 200, each up to a multiple of 32
    assert config.class_names[:2] == ("class 0", "class 1")
    config.check_exportable()


def test_coco_names_where_the_data_set_says_so(reference: Path) -> None:
    names = read_config(reference / "end_to_end" / "550_r50" / "config_full.yaml").class_names
    assert (len(names), len(set(names)), names[0], names[-1]) == (80, 80, "person", "toothbrush")


def test_framework_defaults(write: Callable[..., Path]) -> None:
    config = read_config(write(MINIMAL))
    assert (config.backbone.depth, config.backbone.norm, config.backbone.res2_channels) == (50, "FrozenBN", 256)
    assert (config.head.cls_convs, config.head.box_convs, config.head.use_scale) == (4, 4, True)
    assert (config.strides, config.thresh_with_ctr) == ((8, 16, 32, 64, 128), False)
    assert (config.basis.channels, config.basis.convs, config.basis.norm) == (128, 3, "SyncBN")
    assert config.default_input_hw == (800, 1344)
    assert config.model_spec((64, 96)).input_hw == (64, 96)


def test_base_chain_and_spelled_tuples(write: Callable[..., Path]) -> None:
    write(MINIMAL + "INPUT: {MIN_SIZE_TEST: 550}\n", "Base.yaml")
    write('_BASE_: "../Base.yaml"\nMODEL: {FCOS: {NUM_CLASSES: 7, TOP_LEVELS: 1}}\n', "sub/Middle.yaml")
    leaf = write(
        '_BASE_: "Middle.yaml"\nMODEL: {FCOS: {NUM_CLASSES: 9, FPN_STRIDES: "(8, 16, 32, 64)"}}\n', "sub/leaf.yaml"
    )
    config = read_config(leaf)
    assert (config.num_classes, config.strides) == (9, (8, 16, 32, 64))
    assert config.default_input_hw == (576, 1344)


def test_our_own_keys(write: Callable[..., Path]) -> None:
    text = MINIMAL.replace("META", "FCOS: {NUM_CLASSES: 2}, META") + "CLASS_NAMES: [nut, bolt]\n"
    config = read_config(write(text + "INPUT: {SIZE_HW: [288, 512], MIN_SIZE_TEST: 800}\n"))
    assert config.class_names == ("nut", "bolt")
    assert config.default_input_hw == (288, 512)
    with pytest.raises(DataError, match="multiples of 32"):
        read_config(write(text + "INPUT: {SIZE_HW: [300, 512]}\n"))


@pytest.mark.parametrize(
    ("input_hw", "advice"),
    [
        ((550, 550), "544x544 or 576x576"),
        ((288, 500), "288x480 or 288x512"),
        ((0, 64), "32x64"),
        ((-5, 64), "32x64"),
        ((64, 9000), "64x8192"),
    ],
)
def test_sizes_that_do_not_fit_get_the_nearest(
    input_hw: tuple[int, int], advice: str, write: Callable[..., Path]
) -> None:
    with pytest.raises(UsageError, match=advice):
        read_config(write(MINIMAL)).model_spec(input_hw)


UNSUPPORTED: dict[str, tuple[str, str]] = {
    "backbone": ("BACKBONE: {NAME: build_fcos_vovnet_fpn_backbone}", "MODEL.BACKBONE.NAME: 'build_fcos_vovnet_fpn"),
    "DLA": ("BACKBONE: {NAME: build_fcos_dla_fpn_backbone}, DLA: {CONV_BODY: DLA60}", "MODEL.DLA.CONV_BODY: 'DLA60'"),
    "mobile": ("MOBILENET: true", "MODEL.MOBILENET: True"),
    "deformable": ("RESNETS: {DEPTH: 34, DEFORM_ON_PER_STAGE: [false, true, true, true]}", "DEFORM_ON_PER_STAGE"),
    "depth": ("RESNETS: {DEPTH: 152}", "MODEL.RESNETS.DEPTH: 152"),
    "dilation": ("RESNETS: {RES5_DILATION: 2}", "RES5_DILATION: 2"),
    "stages": ("FPN: {IN_FEATURES: [res2, res3]}", r"MODEL.FPN.IN_FEATURES: \['res2', 'res3'\]"),
    "average": ("FPN: {FUSE_TYPE: avg}", "FUSE_TYPE: 'avg'"),
    "anti-alias": ("BACKBONE: {NAME: build_fcos_resnet_fpn_backbone, ANTI_ALIAS: true}", "ANTI_ALIAS: True"),
}


@pytest.mark.parametrize("case", UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_other_networks_are_named_at_export_only(case: tuple[str, str], write: Callable[..., Path]) -> None:
    model = case[0] if "BACKBONE" in case[0] else f"BACKBONE: {{NAME: build_fcos_resnet_fpn_backbone}}, {case[0]}"
    config = read_config(write(f"MODEL: {{META_ARCHITECTURE: BlendMask, {model}}}"))  # surgery reads it all the same
    with pytest.raises(DataError, match=case[1]):
        config.check_exportable()


REFUSED: dict[str, tuple[str, str]] = {
    "another network": ("META_ARCHITECTURE: GeneralizedRCNN", "META_ARCHITECTURE: 'GeneralizedRCNN', expected BlendM"),
    "no network": ("X: 1", "META_ARCHITECTURE: None"),
    "text for a number": ("FCOS: {NUM_CLASSES: many}", "NUM_CLASSES: 'many', expected a whole number"),
    "fraction": ("FCOS: {NUM_CLASSES: 2.5}", "NUM_CLASSES: 2.5"),
    "true for a number": ("FCOS: {NUM_CLASSES: true}", "NUM_CLASSES: True"),
    "no classes": ("FCOS: {NUM_CLASSES: 0}", "NUM_CLASSES: 0"),
    "levels": ("FCOS: {TOP_LEVELS: 3}", "TOP_LEVELS: 3"),
    "strides": ("FCOS: {FPN_STRIDES: [4, 8, 16, 32, 64]}", "FPN_STRIDES"),
    "strides that are no list": ("FCOS: {FPN_STRIDES: '(8, 16'}", "FPN_STRIDES"),
    "features": ("FCOS: {IN_FEATURES: [p2, p3]}", "IN_FEATURES"),
    "norm": ("RESNETS: {NORM: LN}", "MODEL.RESNETS.NORM: 'LN'"),
    "pooler": ("BLENDMASK: {POOLER_TYPE: ROIPool}", "POOLER_TYPE: 'ROIPool'"),
    "adaptive samples": ("BLENDMASK: {POOLER_SAMPLING_RATIO: 0}", "POOLER_SAMPLING_RATIO: 0"),
    "scale": ("BLENDMASK: {POOLER_SCALES: [0.125]}", "POOLER_SCALES"),
    "interpolation": ("BLENDMASK: {TOP_INTERP: bicubic}", "TOP_INTERP: 'bicubic'"),
    "basis": ("BASIS_MODULE: {NAME: Other}", "BASIS_MODULE.NAME: 'Other'"),
    "basis inputs": ("BASIS_MODULE: {IN_FEATURES: [p4]}", "BASIS_MODULE.IN_FEATURES"),
    "mean": ("PIXEL_MEAN: [1, 2]", "PIXEL_MEAN"),
    "infinite mean": ("PIXEL_MEAN: [1, 2, .inf]", "PIXEL_MEAN"),
    "not a number": ("FCOS: {INFERENCE_TH_TEST: .nan}", "INFERENCE_TH_TEST"),
    "std": ("PIXEL_STD: [1, 0, 1]", "PIXEL_STD"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_values_are_refused_by_key(case: tuple[str, str], write: Callable[..., Path]) -> None:
    kind = "" if "META" in case[0] or case[0].startswith("X") else "META_ARCHITECTURE: BlendMask, "
    with pytest.raises(DataError, match=case[1]) as caught:
        read_config(write(f"MODEL: {{{kind}{case[0]}}}"))
    assert "x.yaml" in str(caught.value)


def test_rgb_input_and_wrong_names_are_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"INPUT\.FORMAT: 'RGB'"):
        read_config(write(MINIMAL + "INPUT: {FORMAT: RGB}"))
    with pytest.raises(DataError, match="CLASS_NAMES: '2 names'"):
        read_config(write(MINIMAL + "CLASS_NAMES: [a, b]"))


def aliases(count: int) -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, count)]
    return "\n".join(lines)


BROKEN: dict[str, tuple[str, type[Exception]]] = {
    "python object": ("a: !!python/object/apply:os.system [id]", NotTrustedError),
    "python name": ("a: !!python/name:os.system", NotTrustedError),
    "python module": ("a: !!python/module:os", NotTrustedError),
    "python tuple": ("a: !!python/tuple [1]", NotTrustedError),
    "full tag": ("a: !<tag:yaml.org,2002:python/object/new:os.system> [id]", NotTrustedError),
    "unknown tag": ("a: !thing 3", DataError),
    "unclosed": ("a: [1", DataError),
    "tab": ("a:\n\t- b", DataError),
    "merge": ("a: &a {x: 1}\nb: {<<: *a}", DataError),
    "text": ("hello", DataError),
    "list": ("- 1\n- 2", DataError),
    "deep": ("[" * 1500, DataError),
    "impossible date": ("a: 2001-13-45", DataError),
    "integer of too many digits": ("a: " + "9" * 6000, DataError),
    "unhashable key": ("{[1]: 2}", DataError),
    "control characters": ("a: \x01", DataError),
    "zero bytes": ("a: \0", DataError),
    "undefined alias": ("a: *b", DataError),
    "billion laughs": (aliases(60), DataError),
    "laughing values": (aliases(60) + "\nMODEL: {META_ARCHITECTURE: *a59}", DataError),
    "itself": ("a: &a [*a]\nMODEL: {META_ARCHITECTURE: *a}", DataError),
    "two documents": ("a: 1\n---\nb: 2", DataError),
    "nothing": ("# only a comment", DataError),
    "section that is a list": ("MODEL: [1]", DataError),
    "base that is a list": ("_BASE_: [1]", DataError),
    "base from the net": ("_BASE_: https://example.org/x.yaml", DataError),
    "base that is itself": ("_BASE_: x.yaml", DataError),
    "base that is missing": ("_BASE_: nothing.yaml", InputMissingError),
    "base that is a folder": ("_BASE_: .", InputMissingError),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
def test_broken_yaml(case: tuple[str, type[Exception]], write: Callable[..., Path]) -> None:
    with pytest.raises(case[1]):
        read_config(write(case[0]))


def test_missing_base_tells_who_names_it(write: Callable[..., Path]) -> None:
    with pytest.raises(InputMissingError, match=r"Base\.yaml', but .* 'x\.yaml' names it as its _BASE_: copy it there"):
        read_config(write("_BASE_: Base.yaml"))


def test_base_cycle(write: Callable[..., Path]) -> None:
    write("_BASE_: b.yaml", "a.yaml")
    with pytest.raises(DataError, match="comes back"):
        read_config(write("_BASE_: a.yaml", "b.yaml"))


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for content, words in ((b"\x89PNG\r\n\x1a\n\0", "PNG"), (b"PK\x03\x04\0", "zip"), (b"\xff\xfe\xfd", "unknown")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            read_config(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="0 bytes"):
        read_config(path)
    path.write_bytes("# 你好\nMODEL:\n  META_ARCHITECTURE: BlendMask\n".encode("gbk"))
    with pytest.raises(DataError, match="Save it as UTF-8"):
        read_config(path)


def test_the_bundled_config_reads() -> None:
    config: Any = read_config(CONFIG)
    config.check_exportable()
    assert (config.backbone.depth, config.head.norm, config.num_classes) == (18, "BN", len(config.class_names))
