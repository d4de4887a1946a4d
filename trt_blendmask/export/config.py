"""The part of AdelaiDet's configuration that shapes the network and its selection, as one frozen dataclass.

Defaults are those of AdelaiDet's adet/config/defaults.py and detectron2, so a YAML that leaves a key out means the same
here as there. Two keys are ours: `CLASS_NAMES` (a list) and `INPUT.SIZE_HW` ([height, width]).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.export.backbone_config import DLAConfig, ResNetConfig, read_backbone, unsupported
from trt_blendmask.export.class_names import COCO
from trt_blendmask.export.norms import NORMS
from trt_blendmask.export.presets import PRESETS, find_preset
from trt_blendmask.export.yaml_tree import OPTS, Layer, YamlTree, parse_opts, read_yaml_chain
from trt_blendmask.structures import ModelSpec

MULTIPLE = 32  # the stride of P5: FPN adds its levels, so all must have whole sizes
MAX_SIDE = 8192
DATA_SETS = {"coco_": COCO, "pic_person_": ("person",)}  # class names by how the set's name begins


@dataclass(frozen=True)
class HeadConfig:
    """MODEL.FCOS: how many 3x3 convolutions in each tower, and their norm (batch norm: one per level).

    deformable: the last convolution of the towers that are not shared is a DCNv2.
    """

    share_convs: int
    cls_convs: int
    box_convs: int
    norm: str
    use_scale: bool
    deformable: bool


@dataclass(frozen=True)
class BasisConfig:
    """MODEL.BASIS_MODULE (ProtoNet): `in_levels` of 3, 4, 5; `convs` blocks before the upsampling."""

    in_levels: tuple[int, ...]
    channels: int
    convs: int
    norm: str


@dataclass(frozen=True)
class BlendMaskConfig:
    """A BlendMask configuration; the fields that `ModelSpec` has too mean the same there.

    Attributes:
        source: where it comes from, for messages: "the YAML 'x.yaml'" or "the preset R_50_3x".
        files: the YAML and its chain of bases; none for a preset.
        default_input_hw: INPUT.SIZE_HW, else (MIN_SIZE_TEST, MAX_SIZE_TEST) rounded up to multiples of 32.
        strides: of P3, P4, ...; top_levels of them (0, 1, 2) come from P5 by P6 and P7.
        unused_options: keys of the options that only training, data or other networks have.
        unsupported: a sentence where the network is not one that export can build, else "".
    """

    source: str
    files: tuple[Path, ...]
    num_classes: int
    class_names: tuple[str, ...]
    default_input_hw: tuple[int, int]
    strides: tuple[int, ...]
    top_levels: int
    num_bases: int
    attention_size: int
    mask_size: int
    spatial_scale: float
    sampling_ratio: int
    aligned: bool
    attention_interpolation: str
    score_threshold: float
    thresh_with_ctr: bool
    nms_threshold: float
    pre_nms_topk: int
    max_detections: int
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    fpn_channels: int
    fpn_norm: str
    backbone: ResNetConfig | DLAConfig
    unsupported: str
    head: HeadConfig
    basis: BasisConfig
    unused_options: tuple[str, ...] = ()

    def check_exportable(self) -> None:
        """Raises DataError if the backbone is one that export cannot build (surgery needs no such check)."""
        if self.unsupported:
            raise DataError(self.unsupported)

    def model_spec(self, input_hw: tuple[int, int] | None = None) -> ModelSpec:
        """The raw-head metadata for an input size in pixels (None: the default).

        Raises:
            UsageError: not a multiple of 32, or out of range.
        """
        size = self.default_input_hw if input_hw is None else input_hw
        check_input_hw(size)
        return ModelSpec(
            kind="raw-head",
            class_names=self.class_names,
            input_hw=(int(size[0]), int(size[1])),
            strides=self.strides,
            num_bases=self.num_bases,
            attention_size=self.attention_size,
            mask_size=self.mask_size,
            spatial_scale=self.spatial_scale,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
            attention_interpolation=self.attention_interpolation,
            score_threshold=self.score_threshold,
            thresh_with_ctr=self.thresh_with_ctr,
            nms_threshold=self.nms_threshold,
            pre_nms_topk=self.pre_nms_topk,
            max_detections=self.max_detections,
            pixel_mean=self.pixel_mean,
            pixel_std=self.pixel_std,
        )


def read_config(path: Path | None = None, preset: str | None = None, opts: Sequence[str] = ()) -> BlendMaskConfig:
    """Read a BlendMask configuration, whatever its backbone (see `check_exportable`).

    Args:
        path: AdelaiDet YAML, whole or with its `_BASE_` chain. preset: instead, the name of a published model.
        opts: `KEY, VALUE, KEY, VALUE, ...` that win over it, as AdelaiDet's `--opts`.

    Raises:
        UsageError: not one of path and preset, an unknown preset, or an option that is malformed or unknown.
        InputMissingError: a file is not there. NotTrustedError: a `!!python` tag.
        DataError: not YAML, not a BlendMask, or a value that is out of range or has no counterpart here.
    """
    if (path is None) == (preset is None):
        raise UsageError(
            f"Expected {'one' if path is None else 'only one'} of --config YAML, which the network was trained with, "
            "and --preset NAME, for a published model. Type: trt-blendmask zoo"
        )
    chain: dict[Path, dict[str, Any]] = {}
    if path is not None:
        chain, source = read_yaml_chain(path), f"the YAML '{path}'"
        layers = [Layer(f"'{file}'", document) for file, document in chain.items()]
    else:
        name = find_preset(str(preset))
        source = f"the preset {name}"
        layers = [Layer(source, PRESETS[name], dotted=True)]
    if opts:
        layers.insert(0, Layer(OPTS, parse_opts(opts), dotted=True))
    tree = YamlTree(tuple(layers))
    config = _read(tree, source + (f" with {OPTS}" if opts else ""), tuple(chain))
    return replace(config, unused_options=tree.check_options())


def as_config(config: Path | BlendMaskConfig) -> BlendMaskConfig:
    """What was read already, or the YAML at that path."""
    return config if isinstance(config, BlendMaskConfig) else read_config(config)


def _read(tree: YamlTree, source: str, files: tuple[Path, ...]) -> BlendMaskConfig:
    _check_kind(tree)
    top_levels = tree.integer("MODEL.FCOS.TOP_LEVELS", 2, 0, 2)
    num_classes = tree.integer("MODEL.FCOS.NUM_CLASSES", 80, 1, 10_000)
    std = tree.numbers("MODEL.PIXEL_STD", (1.0, 1.0, 1.0), 3)
    if min(std) <= 0:
        raise tree.refuse("MODEL.PIXEL_STD", std, "three numbers > 0")
    return BlendMaskConfig(
        source=source,
        files=files,
        num_classes=num_classes,
        class_names=_class_names(tree, num_classes),
        default_input_hw=_default_input_hw(tree),
        strides=_strides(tree, top_levels),
        top_levels=top_levels,
        num_bases=tree.integer("MODEL.BASIS_MODULE.NUM_BASES", 4, 1, 256),
        attention_size=tree.integer("MODEL.BLENDMASK.ATTN_SIZE", 14, 1, 128),
        mask_size=tree.integer("MODEL.BLENDMASK.BOTTOM_RESOLUTION", 56, 1, 1024),
        spatial_scale=_spatial_scale(tree),
        sampling_ratio=_sampling_ratio(tree),
        aligned=tree.choice("MODEL.BLENDMASK.POOLER_TYPE", "ROIAlignV2", ("ROIAlignV2", "ROIAlign")) == "ROIAlignV2",
        attention_interpolation=tree.choice("MODEL.BLENDMASK.TOP_INTERP", "bilinear", ("bilinear", "nearest")),
        score_threshold=tree.number("MODEL.FCOS.INFERENCE_TH_TEST", 0.05, 0.0, 0.999999),
        thresh_with_ctr=tree.flag("MODEL.FCOS.THRESH_WITH_CTR", False),
        nms_threshold=tree.number("MODEL.FCOS.NMS_TH", 0.6, -1e9, 1e9),
        pre_nms_topk=tree.integer("MODEL.FCOS.PRE_NMS_TOPK_TEST", 1000, 1, 1_000_000),
        max_detections=tree.integer("MODEL.FCOS.POST_NMS_TOPK_TEST", 100, 1, 10_000),
        pixel_mean=tree.numbers("MODEL.PIXEL_MEAN", (103.53, 116.28, 123.675), 3),
        pixel_std=std,
        fpn_channels=tree.integer("MODEL.FPN.OUT_CHANNELS", 256, 1, 8192),
        fpn_norm=tree.choice("MODEL.FPN.NORM", "", NORMS),
        backbone=read_backbone(tree),
        unsupported=unsupported(tree),
        head=HeadConfig(
            share_convs=tree.integer("MODEL.FCOS.NUM_SHARE_CONVS", 0, 0, 64),
            cls_convs=tree.integer("MODEL.FCOS.NUM_CLS_CONVS", 4, 0, 64),
            box_convs=tree.integer("MODEL.FCOS.NUM_BOX_CONVS", 4, 0, 64),
            norm=tree.choice("MODEL.FCOS.NORM", "GN", ("none", "", "GN", "NaiveGN", "BN", "SyncBN")).replace(
                "none", ""
            ),
            use_scale=tree.flag("MODEL.FCOS.USE_SCALE", True),
            deformable=tree.flag("MODEL.FCOS.USE_DEFORMABLE", False),
        ),
        basis=BasisConfig(
            in_levels=_basis_levels(tree),
            channels=tree.integer("MODEL.BASIS_MODULE.CONVS_DIM", 128, 1, 8192),
            convs=tree.integer("MODEL.BASIS_MODULE.NUM_CONVS", 3, 0, 64),
            norm=tree.choice("MODEL.BASIS_MODULE.NORM", "SyncBN", NORMS),
        ),
    )


def check_input_hw(input_hw: tuple[int, int]) -> None:
    """Raises UsageError, naming the nearest sizes, unless both sides are multiples of 32 up to 8192."""
    bad = [n for n in input_hw if n < MULTIPLE or n > MAX_SIDE or n % MULTIPLE]
    if not bad:
        return
    near = [
        sorted({max(MULTIPLE, min(MAX_SIDE, n // MULTIPLE * MULTIPLE + step)) for step in (0, MULTIPLE)})
        if n in bad
        else [n]
        for n in input_hw
    ]
    options = " or ".join(f"{h}x{w}" for h, w in sorted({(near[0][i], near[1][j]) for i, j in ((0, 0), (-1, -1))}))
    raise UsageError(
        f"The input size must be a multiple of {MULTIPLE} on both sides, from {MULTIPLE} to {MAX_SIDE}, got "
        f"{input_hw[0]}x{input_hw[1]}: pass --input-size {options}."
    )


def _check_kind(tree: YamlTree) -> None:
    architecture = tree.get("MODEL.META_ARCHITECTURE", None)
    if architecture != "BlendMask":
        raise tree.refuse(
            "MODEL.META_ARCHITECTURE",
            architecture,
            "BlendMask (the only network that is supported)",
        )
    tree.choice("INPUT.FORMAT", "BGR", ("BGR",))
    tree.choice("MODEL.PROPOSAL_GENERATOR.NAME", "FCOS", ("FCOS",))
    tree.choice("MODEL.BASIS_MODULE.NAME", "ProtoNet", ("ProtoNet",))


def _strides(tree: YamlTree, top_levels: int) -> tuple[int, ...]:
    count = 3 + top_levels
    levels = tuple(f"p{3 + i}" for i in range(count))
    if tree.names("MODEL.FCOS.IN_FEATURES", levels) != levels:
        found = tree.get("MODEL.FCOS.IN_FEATURES", None)
        raise tree.refuse("MODEL.FCOS.IN_FEATURES", found, f"{', '.join(levels)} for TOP_LEVELS {top_levels}")
    strides = tuple(8 << i for i in range(count))
    found = tree.get("MODEL.FCOS.FPN_STRIDES", strides)
    if not isinstance(found, (list, tuple)) or tuple(found[:count]) != strides:
        raise tree.refuse("MODEL.FCOS.FPN_STRIDES", found, f"{list(strides)} for TOP_LEVELS {top_levels}")
    return strides


def _basis_levels(tree: YamlTree) -> tuple[int, ...]:
    found = tree.names("MODEL.BASIS_MODULE.IN_FEATURES", ("p3", "p4", "p5"))
    if found not in (("p3",), ("p3", "p4"), ("p3", "p4", "p5")):
        raise tree.refuse("MODEL.BASIS_MODULE.IN_FEATURES", found, "p3, p4, p5 or the first of them")
    return tuple(int(name[1:]) for name in found)


def _sampling_ratio(tree: YamlTree) -> int:
    key = "MODEL.BLENDMASK.POOLER_SAMPLING_RATIO"
    if tree.get(key, 1) == 0 and tree.get(key, 1) is not False:
        reason = (
            "1 to 16: at 0 each box's size decides how many samples it gets, which has no fixed shape. Pass "
            f"{OPTS} {key} 2, which changes the masks a little"
        )
        raise tree.refuse(key, 0, reason)
    return tree.integer(key, 1, 1, 16)


def _spatial_scale(tree: YamlTree) -> float:
    (scale,) = tree.numbers("MODEL.BLENDMASK.POOLER_SCALES", (0.25,), 1)
    if scale != 0.25:
        raise tree.refuse("MODEL.BLENDMASK.POOLER_SCALES", [scale], "[0.25]: ProtoNet's bases are at stride 4")
    return scale


def _class_names(tree: YamlTree, num_classes: int) -> tuple[str, ...]:
    names = tree.names("CLASS_NAMES", ())
    if names and len(names) != num_classes:
        expected = f"as many as MODEL.FCOS.NUM_CLASSES says ({num_classes})"
        raise tree.refuse("CLASS_NAMES", f"{len(names)} names", expected)
    data_sets = tree.get("DATASETS.TRAIN", ())
    sets = [str(name) for name in data_sets[:8]] if isinstance(data_sets, (list, tuple)) else []
    known = next((known for prefix, known in DATA_SETS.items() if any(name.startswith(prefix) for name in sets)), ())
    return names or (known if len(known) == num_classes else tuple(f"class {i}" for i in range(num_classes)))


def _default_input_hw(tree: YamlTree) -> tuple[int, int]:
    size = tree.get("INPUT.SIZE_HW", None)
    if size is not None:
        h, w = tree.numbers("INPUT.SIZE_HW", (0, 0), 2)
        if h % MULTIPLE or w % MULTIPLE or not (0 < h <= MAX_SIDE and 0 < w <= MAX_SIDE):
            raise tree.refuse("INPUT.SIZE_HW", size, f"[height, width], multiples of {MULTIPLE} up to {MAX_SIDE}")
        return int(h), int(w)
    shortest = tree.integer("INPUT.MIN_SIZE_TEST", 800, 1, MAX_SIDE)
    longest = tree.integer("INPUT.MAX_SIZE_TEST", 1333, 1, MAX_SIDE)
    return -(-shortest // MULTIPLE) * MULTIPLE, -(-longest // MULTIPLE) * MULTIPLE
