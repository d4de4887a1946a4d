"""What a reader of the figures must know: warnings, as trtexec gives them and some more."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from trt_blendmask.backends.onnxruntime import available_cores
from trt_blendmask.profiler.readings import Watcher
from trt_blendmask.profiler.report import Environment, ModelProfile, Span

_UNSTABLE_GPU = 0.025  # coefficient of variation; trtexec's bound
_UNSTABLE_CPU = 0.10  # other processes and the host's own housekeeping get in between
_ENQUEUE = 0.8  # of the GPU's time; trtexec's bound
_OTHERS = 0.05  # of the cores
_STOLEN = 0.02
_CLOCK = 0.05  # that a clock moved
_GAP = 0.05  # of the whole: a layers' sum that is farther from it is told
_TO_STEADY_IT = "close other programs, lock the clocks, or measure for longer with --duration 30s"


def of_model(model: ModelProfile) -> tuple[str, ...]:
    """Of the figures of one model, without its name."""
    warnings = []
    key, bound = ("gpu", _UNSTABLE_GPU) if model.times.get("gpu") else ("network", _UNSTABLE_CPU)
    seen = model.distribution(key)
    if seen and seen.cov > bound:
        warnings.append(
            f"Unstable: the {key} times scatter by {seen.cov:.1%} (standard deviation / mean; more "
            f"than {bound:.1%}); {_TO_STEADY_IT}."
        )
    medians = {name: statistics.median(times) for name, times in model.times.items() if times}
    if "gpu" in medians and "enqueue" in medians and medians["enqueue"] > _ENQUEUE * medians["gpu"]:
        warnings.append(
            f"Waits for the CPU: to hand a frame over takes {medians['enqueue']:.3f} ms of "
            f"{medians['gpu']:.3f} ms on the GPU."
        )
    if "compute" in medians and medians["h2d"] + medians["d2h"] >= medians["compute"]:
        warnings.append(
            f"Waits for transfers: {medians['h2d']:.3f} ms to the GPU and {medians['d2h']:.3f} ms back, "
            f"{medians['compute']:.3f} ms of computing."
        )
    if model.layers and model.layers.tool == "ONNX Runtime" and abs(model.layers.gap) > _GAP:
        warnings.append(
            f"The layers' sum is {abs(model.layers.gap):.1%} {'below' if model.layers.gap > 0 else 'above'} the whole: "
            f"what else the machine did is in them, above all in the small ones; {_TO_STEADY_IT}."
        )
    for name, span in model.conditions.items():
        used = name != "GPU MHz" or "gpu" in model.times
        if used and name.endswith(" MHz") and span.high > 0 and (span.high - span.low) / span.high > _CLOCK:
            warnings.append(_moved(name, span))
    return tuple(warnings)


def of_machine(environment: Environment, watcher: Watcher, models: Sequence[ModelProfile]) -> tuple[str, ...]:
    """Of all figures."""
    warnings = [f"The machine was slowed down by {words} meanwhile." for words in sorted(watcher.slowed_by)]
    others, stolen, cores = watcher.others_cores, watcher.stolen_cores, available_cores()
    if others is not None and others > _OTHERS * cores:
        warnings.append(f"Other processes used {others:.2f} of {cores} cores meanwhile: close them and profile again.")
    if stolen is not None and stolen > _STOLEN * cores:
        warnings.append(f"The host of this virtual machine took {stolen:.2f} of {cores} cores away meanwhile.")
    if environment.governor not in ("", "performance"):
        warnings.append(
            f"The CPU governor is '{environment.governor}', which changes the clock; for steady figures type: "
            "sudo cpupower frequency-set -g performance"
        )
    vacuous = [model.label for model in models if model.agreement and not model.agreement.get("objects")]
    if vacuous:
        warnings.append(
            "Nothing is found in the pictures above the score that counts, so the agreement says little: name pictures "
            "of what the models were trained on, with --images DIR."
        )
    return tuple(warnings)


def _moved(name: str, span: Span) -> str:
    unit = name.removesuffix(" MHz")
    mend = (
        "sudo jetson_clocks, or sudo nvidia-smi -lgc" if unit == "GPU" else "sudo cpupower frequency-set -g performance"
    )
    return f"The {unit} clock moved from {span.low:.0f} to {span.high:.0f} MHz meanwhile; to lock it type: {mend}"
