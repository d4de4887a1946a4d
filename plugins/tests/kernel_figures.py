"""The kernel's registers, and what it spills, for every GPU that the plugin is compiled for, as ptxas tells them.

    python plugins/tests/kernel_figures.py [--archs 75 80 ...] [--nvcc nvcc]

Prints a table in Markdown; ends with 1 if a kernel spills or uses local memory.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PLUGINS = Path(__file__).resolve().parent.parent
ARCHS = ("75", "80", "86", "87", "89", "90", "100", "110", "120")
ENTRY = re.compile(
    r"entry function '\w*roi_align_blend_kernelI(?P<type>6__half|f)Li(?P<k>\d+)ELb(?P<packed>[01])\w*'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


@dataclass(frozen=True)
class Figures:
    """One kernel: type of the bases, K (0: any), whether it loads a pixel at once, and what it takes."""

    half: bool
    num_bases: int
    packed: bool
    registers: int
    local_bytes: int


def figures(arch: str, nvcc: str) -> list[Figures]:
    """All kernels' of one architecture."""
    command = [nvcc, "-std=c++17", "-O3", f"-arch=sm_{arch}", "-Xptxas", "-v", "-cubin", "-o", "/dev/null"]
    done = subprocess.run(
        [*command, PLUGINS / "roi_align_blend_kernel.cu"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(done.stderr)
    return [
        Figures(
            half=m["type"] != "f",
            num_bases=int(m["k"]),
            packed=m["packed"] == "1",
            registers=int(m["registers"]),
            local_bytes=int(m["stack"]) + int(m["stores"]) + int(m["loads"]),
        )
        for m in ENTRY.finditer(done.stderr + done.stdout)
    ]


def row(arch: str, kernels: list[Figures]) -> str:
    of_four = {(f.half, f.packed): f.registers for f in kernels if f.num_bases == 4}
    cells = [of_four[True, True], of_four[True, False], of_four[False, True], of_four[False, False]]
    cells += [
        max(f.registers for f in kernels if f.num_bases == 8),
        max(f.registers for f in kernels if not f.num_bases),
    ]
    cells += [sum(f.local_bytes for f in kernels)]
    return f"| sm_{arch} | " + " | ".join(map(str, cells)) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", nargs="+", default=ARCHS)
    parser.add_argument("--nvcc", default="nvcc")
    args = parser.parse_args()
    print("| registers | K 4: float16 pixels | planes | float32 pixels | planes | K 8 | any K | local memory, bytes |")
    print("|---|---|---|---|---|---|---|---|")
    local = 0
    for arch in args.archs:
        kernels = figures(arch, args.nvcc)
        local += sum(f.local_bytes for f in kernels)
        print(row(arch, kernels), flush=True)
    return 1 if local else 0


if __name__ == "__main__":
    sys.exit(main())
