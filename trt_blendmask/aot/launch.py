"""How masks are cut into blocks: `cut`, `choose` and the launch of plugins/roi_align_blend_kernel.cu in Python.

A block makes a band of rows of one detection's mask; its threads lie along x as the columns do, each with a run of
rows. plugins/roi_align_blend_kernel.cuh says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trt_blendmask.aot.params import BYTES, MOST_THREADS, BlendParams

MOST_BASES = 8  # that a thread keeps in registers
LONGEST_RUN = 8
MOST_SHARED_BYTES = 48 << 10
TAP_BYTES = 16


@dataclass(frozen=True)
class Launch:
    """One launch, and which of the kernels it is.

    Attributes:
        grid, block: x, y, z. shared_bytes: of dynamic shared memory.
        run: rows of a thread. rows: rows of a block. attention_bytes: what the attention takes of the shared memory.
        register_bases: K, or 0 for the kernel that takes any. packed: whether one load brings a pixel's K bases.
    """

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int
    run: int
    rows: int
    attention_bytes: int
    register_bases: int
    packed: bool


def plan(params: BlendParams, multiprocessors: int) -> Launch:
    """The launch of `params` on a device of so many multiprocessors."""
    p, r = params, params.mask_size
    k = p.num_bases if p.num_bases <= MOST_BASES else 0
    run, rows = _band(p, multiprocessors * _resident_blocks(k, BYTES[p.bases_type]))
    attention_bytes = _round_up(_attention_rows(p, rows) * p.attention_size * p.num_bases * 4, 16) if k else 0
    other_bytes = (rows + r) * (p.sampling_ratio + 1) * TAP_BYTES + _round_up(rows * r * BYTES[p.masks_type] + 15, 16)
    if attention_bytes + other_bytes > MOST_SHARED_BYTES:
        attention_bytes = 0
    k = k if attention_bytes else 0
    pack = next((n for n in (1, 2, 4, 8) if k <= n), 1)
    return Launch(
        grid=(-(-r // rows), p.detections, p.batch),
        block=(r, rows // run, 1),
        shared_bytes=attention_bytes + other_bytes,
        run=run,
        rows=rows,
        attention_bytes=attention_bytes,
        register_bases=k,
        packed=bool(k and p.pixel_channels and p.pixel_channels % pack == 0),
    )


def attention_scale(params: BlendParams) -> Any:
    """float32 cells of the attention per cell of the mask."""
    return np.float32(params.attention_size) / np.float32(params.mask_size)


def _resident_blocks(k: int, bases_bytes: int) -> int:
    if k < 4 or (k == 4 and bases_bytes == 2):
        return 4
    return 3 if k == 4 else 2


def _band(p: BlendParams, resident: int) -> tuple[int, int]:
    """Rows of a thread and of a block: the shortest run that lets all blocks be resident at once, if any does."""
    r = p.mask_size
    for run in range(1, LONGEST_RUN + 1):
        rows = run * min(MOST_THREADS // r, -(-r // run))
        if p.batch * p.detections * -(-r // rows) <= resident:
            break
    return run, rows


def _attention_rows(p: BlendParams, rows: int) -> int:
    """The most rows of the attention that a band needs; in float32, as the kernel computes them."""
    cells, scale, last = np.arange(p.mask_size, dtype=np.float32), attention_scale(p), p.attention_size - 1
    if p.attention_interpolation == "nearest":
        low = high = np.minimum((cells * scale).astype(np.int64), last)
    else:
        position = np.maximum((cells + np.float32(0.5)) * scale - np.float32(0.5), np.float32(0))
        low = np.minimum(position.astype(np.int64), last)
        high = np.minimum(low + 1, last)
    firsts = range(0, p.mask_size, rows)
    return max(int(high[min(first + rows, p.mask_size) - 1] + 1 - low[first]) for first in firsts)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
