"""What the deployable file will say of itself: the raw file's metadata or a YAML, then the options on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx

from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.export import as_config
from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.options import SurgeryOptions
from trt_blendmask.surgery.reading.load import metadata
from trt_blendmask.surgery.reading.raw_head import RawHead

MAX_SLOTS = 1000


def resolve_spec(
    model: onnx.ModelProto, head: RawHead, options: SurgeryOptions, found: Mapping[str, Any]
) -> tuple[ModelSpec, str]:
    """The spec of the deployable model and the sentence that says where its settings come from.

    `found` are fields that the graph itself shows: they win over any configuration, options alone win over them.

    Raises:
        DataError: metadata or YAML contradict the graph. UsageError: an option out of range.
    """
    text = metadata(model)
    if options.config is not None:
        config = as_config(options.config)
        spec, source = replace(config.model_spec(), input_hw=head.input_hw), config.source
    elif text:
        spec, source = ModelSpec.from_json(text), "the file's own metadata"
        if spec.kind == "deployable":
            raise DataError("Expected a raw-head ONNX, got a deployable one. Type: trt-blendmask run MODEL SOURCE")
    else:
        spec = _defaults(head)
        source = "AdelaiDet's defaults (no metadata: pass --config YAML or --preset NAME for its own)"
    _check_agreement(spec, head, source)
    return _with_options(replace(spec, **found), options), f"settings from {source}"


def _defaults(head: RawHead) -> ModelSpec:
    return ModelSpec(
        kind="raw-head",
        class_names=tuple(f"class {i}" for i in range(head.num_classes)),
        input_hw=head.input_hw,
        strides=head.strides,
        num_bases=head.num_bases,
        attention_size=head.attention_size,
        spatial_scale=head.bases_hw[0] / head.input_hw[0],
    )


def _check_agreement(spec: ModelSpec, head: RawHead, source: str) -> None:
    scale = head.bases_hw[0] / head.input_hw[0]
    for what, said, found in (
        ("classes", spec.num_classes, head.num_classes),
        ("strides", spec.strides, head.strides),
        ("bases (K)", spec.num_bases, head.num_bases),
        ("attention size (M)", spec.attention_size, head.attention_size),
        ("input size", spec.input_hw, head.input_hw),
        ("bases pixels per input pixel", spec.spatial_scale, scale),
    ):
        if said != found:
            raise DataError(f"The graph and {source} disagree: {what} {found} in the graph, {said} there. Pass the "
                            "--config YAML that the network was trained with.")  # fmt: skip


def _with_options(spec: ModelSpec, options: SurgeryOptions) -> ModelSpec:
    slots = spec.max_detections if options.max_detections is None else options.max_detections
    score = spec.score_threshold if options.score_threshold is None else options.score_threshold
    nms = spec.nms_threshold if options.nms_threshold is None else options.nms_threshold
    if not 1 <= slots <= MAX_SLOTS:
        raise UsageError(f"Expected 1 to {MAX_SLOTS} detection slots, got {slots}: pass --max-detections 100.")
    if not 0 <= score < 1:
        raise UsageError(f"Expected a score threshold in [0, 1), got {score}: pass --score-threshold 0.05.")
    if nms != nms or nms > 1:
        raise UsageError(f"Expected an NMS threshold up to 1, got {nms}: pass --nms-threshold 0.6.")
    return replace(
        spec,
        kind="deployable",
        max_detections=slots,
        score_threshold=score,
        nms_threshold=nms,
        input_dtype=options.input_dtype,
        mask_dtype=options.mask_dtype,
        top=options.top,
        nms=options.nms,
        tail=options.tail,
    )
