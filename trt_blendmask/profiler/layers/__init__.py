"""Layer by layer: how long each took, what it did, and of which part of BlendMask it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from trt_blendmask.profiler.report import Layer, LayerProfile, ModelProfile, Roof

_SURE_MS = 0.1  # of shorter layers, what the profiler itself costs makes the rate unsure


def profile_of(
    tool: str, runs: int, whole_ms: float, layers: Sequence[Layer], profiled_ms: float | None = None, note: str = ""
) -> LayerProfile:
    """The layers with their shares, their sum, and what of `whole_ms` they leave unexplained."""
    total = sum(layer.ms for layer in layers)
    shared = tuple(replace(layer, share=layer.ms / total if total > 0 else 0.0) for layer in layers)
    gap = (whole_ms - total) / whole_ms if whole_ms > 0 else 0.0
    return LayerProfile(tool, runs, whole_ms, total, gap, shared, profiled_ms=profiled_ms, note=note)


def sentence(profile: LayerProfile) -> str:
    """Sum, whole, gap, and what reformats take."""
    reformats = sum(layer.ms for layer in profile.layers if layer.is_reformat)
    whole = f" of {profile.whole_ms:.2f} ms (gap {profile.gap:+.1%})" if profile.whole_ms else " ms"
    return f"{len(profile.layers)} layers take {profile.sum_ms:.2f}{whole}, reformats {reformats:.2f} ms"


def under_one_roof(models: Sequence[ModelProfile], roof: Roof) -> list[ModelProfile]:
    """All of them, those that ONNX Runtime ran `under_roof`: raised where the fastest layer of any model beat it."""
    inside = {k: one.layers for k, one in enumerate(models) if one.layers and one.layers.tool == "ONNX Runtime"}
    top = _raised(roof, (layer for profile in inside.values() for layer in profile.layers))
    return [
        replace(model, layers=under_roof(inside[k], top)) if k in inside else model for k, model in enumerate(models)
    ]


def under_roof(profile: LayerProfile, roof: Roof) -> LayerProfile:
    """The same with each layer's share of the roof: the least time that its work takes on this device / its own."""
    return replace(profile, roof=roof, layers=tuple(_under(layer, roof) for layer in profile.layers))


def _raised(roof: Roof, layers: Iterable[Layer]) -> Roof:
    peaks = dict(roof.gmacs_per_s)
    for layer in layers:
        if layer.precision in peaks and layer.ms >= _SURE_MS:
            peaks[layer.precision] = max(peaks[layer.precision], layer.macs / layer.ms / 1e6)
    beaten = " and ".join(name for name, peak in peaks.items() if peak > roof.gmacs_per_s[name])
    how = f"{roof.how}; in {beaten} the fastest layer, as it beat these" if beaten else roof.how
    return replace(roof, gmacs_per_s=peaks, how=how)


def _under(layer: Layer, roof: Roof) -> Layer:
    peak = roof.gmacs_per_s.get(layer.precision, 0.0) * 1e6  # multiply-adds in a millisecond
    least = layer.bytes / (roof.gbytes_per_s * 1e6) if roof.gbytes_per_s > 0 else 0.0
    if layer.macs and peak <= 0:
        return layer
    least = max(least, layer.macs / peak if layer.macs else 0.0)
    # What fits into the caches may be faster than memory: it is at the roof, not above.
    return replace(layer, roof_share=min(1.0, least / layer.ms) if layer.ms > 0 and least > 0 else None)
