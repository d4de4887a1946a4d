"""Small graphs around single steps of the surgery, run in ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime

from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.nms import append_nms
from trt_blendmask.surgery.reading.raw_head import HeadLevel, RawHead
from trt_blendmask.surgery.selection import append_selection
from trt_blendmask.surgery.sparse_top import append_dense_top
from trt_blendmask.surgery.tail_native import append_tail

SPEC = ModelSpec("deployable", ("part",), (128, 160), (8,), num_bases=4, attention_size=3)
Arrays = dict[str, Any]


def run_model(model: onnx.ModelProto | bytes, feeds: Arrays) -> Arrays:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def run_graph(graph: gs.Graph, outputs: dict[str, Any], feeds: Arrays) -> Arrays:
    """Name the tensors of `outputs`, declare and run them."""
    for name, tensor in outputs.items():
        tensor.name = name
    graph.outputs = list(outputs.values())
    model = gs.export_onnx(graph.cleanup().toposort(), do_type_check=False)
    model.ir_version = 10
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    types = {info.name: info.type for info in (*inferred.graph.value_info, *inferred.graph.output)}
    for output in model.graph.output:
        output.type.CopyFrom(types[output.name])
    onnx.checker.check_model(model, full_check=True)
    return run_model(model, feeds)


def variable(name: str, values: np.ndarray) -> gs.Variable:
    return gs.Variable(name, values.dtype, values.shape)


def head_of(levels: list[Arrays], strides: list[int], input_hw: tuple[int, int], k: int = 4) -> tuple[RawHead, Arrays]:
    """A head whose tensors are graph inputs; `levels` hold logits, reg, ctr, top of [N, ., h, w]."""
    feeds: Arrays = {}
    made = []
    for i, (level, stride) in enumerate(zip(levels, strides, strict=True)):
        tensors = []
        for part in ("logits", "reg", "ctr", "top"):
            name = f"P{i + 3}{part}"
            feeds[name] = np.ascontiguousarray(level[part], np.float32)
            tensors.append(variable(name, feeds[name]))
        made.append(HeadLevel(i + 3, stride, level["logits"].shape[2:], *tensors))
    n = len(levels[0]["logits"])
    images = gs.Variable("input_image", np.float32, (n, 3, *input_hw))
    bases = gs.Variable("bases", np.float32, (n, k, input_hw[0] // 4, input_hw[1] // 4))
    return RawHead(images, bases, tuple(made)), feeds


def run_selection(
    levels: list[Arrays], strides: list[int], input_hw: tuple[int, int], spec: ModelSpec, opset: int = 17
) -> list[Arrays]:
    """Selection, suppression and the gathered top features, one dict per image, filled slots only."""
    head, feeds = head_of(levels, strides, input_hw)
    names = tuple(f"class {i}" for i in range(head.num_classes))
    spec = replace(spec, class_names=names, input_hw=input_hw, strides=tuple(strides))
    graph = gs.Graph(opset=opset, inputs=[gs.Variable(k, v.dtype, v.shape) for k, v in feeds.items()])
    by_name = {t.name: t for lv in head.levels for t in (lv.logits, lv.bbox_reg, lv.centerness, lv.top_feats)}
    graph.inputs = [by_name[name] for name in feeds]
    kept = append_nms(graph, append_selection(graph, head, spec), spec)
    attention = append_dense_top(graph, head, kept.locations)
    outputs = {"valid": kept.valid, "boxes": kept.boxes, "scores": kept.scores, "classes": kept.classes}
    got = run_graph(graph, {**outputs, "locations": kept.locations, "top": attention}, feeds)
    got["top"] = got["top"].reshape(head.batch, spec.max_detections, -1)
    result = []
    for n in range(head.batch):
        filled = got["valid"][n]
        count = int(filled.sum())
        assert filled[:count].all(), "empty slots come last"
        result.append({name: values[n][:count] for name, values in got.items()})
    return result


def run_tail(
    bases: np.ndarray, boxes: np.ndarray, attention: np.ndarray, spec: ModelSpec, opset: int = 17
) -> np.ndarray:
    """Masks [N * D, R, R] of `bases` [N, K, Hb, Wb], `boxes` [N, D, 4], `attention` [N * D, K*M*M]."""
    feeds = {"bases": bases, "boxes": boxes, "attention": attention}
    tensors = {name: variable(name, values) for name, values in feeds.items()}
    graph = gs.Graph(opset=opset, inputs=list(tensors.values()))
    masks = append_tail(graph, tensors["bases"], tensors["boxes"], tensors["attention"], boxes.shape[1], spec)
    return np.asarray(run_graph(graph, {"masks": masks}, feeds)["masks"])
