"""Detections in the forms of other tools: COCO results (compressed RLE, without pycocotools) and supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trt_blendmask.errors import UsageError
from trt_blendmask.paste import Patch, clip_boxes, paste, paste_full, visible
from trt_blendmask.structures import Detections

if TYPE_CHECKING:
    import supervision


def to_coco(detections: Detections, mode: str = "exact", with_masks: bool = True) -> list[dict[str, Any]]:
    """One dict per object: `bbox` [x, y, w, h] clipped to the frame, `score`, `category_id` (class index + 1),
    `category_name` and, `with_masks`, `segmentation` {"size": [h, w], "counts": compressed RLE}, all in frame pixels.

    Objects without area inside the frame are left out. `mode` as in `trt_blendmask.paste`.
    """
    detections = detections.keep(visible(detections))
    clipped = clip_boxes(detections.xyxy, detections.frame_wh)
    results: list[dict[str, Any]] = []
    for i, class_index in enumerate(detections.classes.tolist()):
        x1, y1, x2, y2 = clipped[i].tolist()
        results.append(
            {
                "category_id": class_index + 1,
                "category_name": class_name(detections, class_index),
                "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(float(detections.scores[i]), 6),
            }
        )
    if detections.track_ids is not None:
        for result, number in zip(results, detections.track_ids.tolist(), strict=True):
            if number >= 0:
                result["track_id"] = number
    if with_masks:
        for result, patch in zip(results, paste(detections, mode), strict=True):
            if patch is not None:  # it never is: all are visible
                result["segmentation"] = encode_rle(patch, detections.frame_wh)
    return results


def class_name(detections: Detections, class_index: int) -> str:
    """The name of a class, or "class 7" where the model has none for it."""
    names = detections.class_names
    return names[class_index] if 0 <= class_index < len(names) else f"class {class_index}"


def encode_rle(patch: Patch, frame_wh: tuple[int, int]) -> dict[str, Any]:
    """COCO's compressed run-length encoding of a patch as a mask of the whole frame, which is never built.

    Returns:
        {"size": [h, w], "counts": text}, equal to pycocotools' `mask.encode` of the full-frame mask.
    """
    width, height = frame_wh
    return {"size": [height, width], "counts": compress_counts(run_lengths(patch, frame_wh))}


def run_lengths(patch: Patch, frame_wh: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Lengths of the runs of 0, 1, 0, ... in column-major order over the whole frame."""
    width, height = frame_wh
    rows, columns = patch.mask.shape
    padded = np.zeros((columns, rows + 2), dtype=np.int8)
    padded[:, 1:-1] = patch.mask.T
    column, row = np.nonzero(padded[:, 1:] != padded[:, :-1])  # each run's start, then the pixel after its end
    edges = (patch.x + column.astype(np.int64)) * height + patch.y + row
    if edges.size:
        # A run down to the frame's last row goes on where the next column starts in its first row.
        joined = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1
        edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    counts = np.diff(edges, prepend=0, append=width * height)
    return counts[:-1] if counts[-1] == 0 else counts


def compress_counts(counts: npt.NDArray[np.int64]) -> str:
    """COCO's text form: differences to the run two before, in groups of five bits, lowest first."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    characters = np.zeros((len(values), 13), dtype=np.uint8)  # 13 groups hold any int64
    active = np.ones(len(values), dtype=np.bool_)
    for group in range(characters.shape[1]):
        bits = values & 0x1F
        values = values >> 5
        more = active & np.where(bits & 0x10, values != -1, values != 0)
        characters[active, group] = (bits + 0x20 * more + 48)[active].astype(np.uint8)
        active = more
        if not active.any():
            break
    return characters[characters > 0].tobytes().decode("ascii")


def decompress_counts(text: str) -> list[int]:
    """The runs that `compress_counts` wrote.

    Raises:
        ValueError: no such text, or cut short.
    """
    counts: list[int] = []
    value = shift = 0
    for code in text.encode("ascii"):
        bits = code - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"not run lengths: {text:.40}")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            signed = value - (1 << shift) if bits & 0x10 else value
            counts.append(signed + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError(f"run lengths that are cut short: {text:.40}")
    return counts


def to_supervision(detections: Detections) -> supervision.Detections:
    """`supervision.Detections` with dense full-frame masks (exact paste) and the names in `data["class_name"]`.

    Raises:
        UsageError: the package supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise UsageError("to_supervision() needs the package supervision: pip install supervision.") from error
    names = [class_name(detections, int(c)) for c in detections.classes]
    return supervision.Detections(
        xyxy=detections.xyxy.astype(np.float32),
        mask=paste_full(detections),
        confidence=detections.scores.copy(),
        class_id=detections.classes.astype(int),
        data={"class_name": np.array(names, dtype=str)},
    )
