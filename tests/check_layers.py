"""Who may know whom in plugins/ (`make lint` runs it): arithmetic knows the C++ standard library, the kernel knows CUDA
and the arithmetic, the plugin knows TensorRT and the kernel's header and does no arithmetic.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PLUGINS = Path(__file__).resolve().parent.parent / "plugins"
SUFFIXES = (".h", ".cuh", ".cu", ".cpp")
STANDARD = r"[a-z_]+"
MATH = r"roi_align_blend_math\.h"
KERNEL = r"roi_align_blend_kernel\.(h|cuh)"
GLUE = r"(abi/)?[a-z_]+\.h"

# Layer: its files, what it may include in <> and in "", and words that it must not hold.
LAYERS = {
    "arithmetic": (MATH, STANDARD, r"$", r"\bcuda[A-Z_]|\bnvinfer1\b|\b__half\b"),
    "kernel": (r"roi_align_blend_kernel\.(h|cuh|cu)", rf"{STANDARD}|cuda_\w+\.h", rf"{MATH}|{KERNEL}", r"\bnvinfer1\b"),
    "plugin": (
        r"(abi/)?[a-z_]+\.(h|cpp)",
        rf"{STANDARD}|cuda_runtime_api\.h|NvInferRuntime\.h|(cxxabi|dlfcn|link)\.h",
        rf"(?!.*_math\.h)(?!.*\.cuh){GLUE}",
        r"\b(expf?|sqrtf?|fmaf?|roundf?|floorf?|nearbyintf?|interpolate|box_span|roi_tap|attention_tap|SoftmaxSum)\(|<<<",
    ),
}
ONE_SWITCH = "abi/tensorrt.h"  # the one file that includes TensorRT's headers


def problems_of(path: Path) -> list[str]:
    name = path.relative_to(PLUGINS).as_posix()
    layer = next((layer for layer, (files, *_) in LAYERS.items() if re.fullmatch(files, name)), None)
    if layer is None:
        return [f"plugins/{name}: belongs to no layer; see tests/check_layers.py"]
    _, system, own, words = LAYERS[layer]
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        code = line.split("//")[0]
        if match := re.match(r'\s*#\s*include\s*(?:<(?P<system>[^>]+)>|"(?P<own>[^"]+)")', code):
            allowed = re.fullmatch(system, match["system"]) if match["system"] else re.fullmatch(own, match["own"])
            if not allowed or (match["system"] == "NvInferRuntime.h" and name != ONE_SWITCH):
                found.append(f"plugins/{name}:{number}: the {layer} may not include {match['system'] or match['own']}")
        elif word := re.search(words, code):
            found.append(f"plugins/{name}:{number}: the {layer} may not say {word[0]}")
    return found


def main() -> int:
    files = [path for path in PLUGINS.rglob("*") if path.suffix in SUFFIXES and PLUGINS / "tests" not in path.parents]
    problems = [problem for path in sorted(files) for problem in problems_of(path)]
    print("\n".join(problems) or f"layers: {len(files)} files of plugins/ keep to theirs")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
