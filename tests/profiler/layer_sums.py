"""What tests add up of layers."""

from __future__ import annotations

from collections import Counter

from trt_blendmask.profiler.report import LayerProfile


def macs_by_part(profile: LayerProfile) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for layer in profile.layers:
        sums[layer.part.split(".")[0]] += layer.macs
    return {part: macs for part, macs in sums.items() if macs}
