"""Rules about engines: the GPU, its driver, TensorRT, the plugin. Each tells what will not work and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trt_blendmask.doctor.facts import Facts, Finding, Gpu, risk, stops
from trt_blendmask.engines.flavor import OLDEST

SM_OLDEST = 7.5  # of TensorRT-RTX, and what the plugin is compiled for
JETPACK_61 = (36, 4)  # as Jetson Linux: the first with TensorRT 10
_CANNOT_RUN, _CANNOT_BUILD = "Engines cannot run", "Engines cannot be built"
_RTX = "pip install 'trt-blendmask[rtx]'"
# By the first release of TensorRT that is not affected: NVIDIA's security bulletins of 2026.
TENSORRT_CVES = (
    ((10, 16, 1), "CVE-2026-24188 (8.2, writes out of bounds)"),
    ((11, 0), "CVE-2026-24268, CVE-2026-24238, CVE-2026-24272 (7.8, code execution), CVE-2026-24227 (5.3)"),
)


def gpu(facts: Facts) -> Iterator[Finding]:
    """Why there is none to use."""
    driver, problem, container = facts.driver, facts.driver.problem, facts.system.container
    if not problem:
        return
    if "mismatch" in f"{problem} {driver.nvidia_smi_problem}":
        yield stops("driver-mismatch", f"{_CANNOT_RUN}: the driver was updated under the kernel.", "sudo reboot")
    elif driver.gpus and "libcuda" in problem:
        mend = "Start the container with --gpus all." if container else "Install the driver's CUDA part (libcuda1)."
        yield stops("no-libcuda", f"{_CANNOT_RUN}: there is a GPU, but {problem}.", mend)
    elif facts.jetson is not None:
        mend = "Be of the groups that may use it, and log in again: sudo usermod -aG video,render $USER"
        mend = "Start the container with --runtime nvidia." if container else mend
        yield stops("no-gpu", f"{_CANNOT_RUN}: CUDA does not start on this board ({problem}).", mend)
    elif driver.version or driver.cuda:
        mend = "See nvidia-smi and CUDA_VISIBLE_DEVICES; update the driver."
        yield stops("no-gpu", f"{_CANNOT_RUN}: there is a driver, but no GPU that CUDA can use ({problem}).", mend)
    else:
        mend = "Everything else runs on the CPU."
        mend = f"If the host has one, start the container with --gpus all. {mend}" if container else mend
        yield stops("no-gpu", f"{_CANNOT_RUN}: there is no NVIDIA GPU, or no driver.", mend)


def nvidia_smi(facts: Facts) -> Iterator[Finding]:
    problem = facts.driver.nvidia_smi_problem
    if "did not answer" in problem:
        mend = "sudo reboot; if it happens again, look at: sudo dmesg | grep -i xid"
        yield risk("nvidia-smi-hangs", f"The driver seems to hang: nvidia-smi {problem}.", mend)


def compute_capability(facts: Facts) -> Iterator[Finding]:
    for gpu in facts.driver.gpus:
        if 0 < _sm(gpu) < SM_OLDEST:
            what = (
                f"{_CANNOT_RUN} on {gpu.name}: its compute capability is {gpu.compute_capability}, below {SM_OLDEST}."
            )
            yield stops("gpu-too-old", what, "Use a GPU of Turing or newer, or the CPU.")


def jetpack(facts: Facts) -> Iterator[Finding]:
    board = facts.jetson
    if board is not None and board.l4t and numbers(board.l4t) < JETPACK_61:
        carries = "8.6" if board.l4t.startswith("36.") else "8.5" if board.l4t.startswith("35.") else "8.2 or older"
        what = f"{_CANNOT_BUILD}: JetPack {board.jetpack} carries TensorRT {carries}, and {OLDEST} is the oldest."
        yield stops("jetpack-too-old", what, "Flash JetPack 6.2 or newer (Orin; older boards have none).")


def tensorrt(facts: Facts) -> Iterator[Finding]:
    """Why there is none to use; what a flavor says of itself is told as it is."""
    for flavor in facts.tensorrt:
        if flavor.installed and flavor.problem:
            told = f"{flavor.title} cannot be used: {flavor.problem.rstrip('.')}."
            yield stops(f"{flavor.flavor}-broken", told, "" if "Expected" in told else "Install it again.")
    if any(flavor.installed for flavor in facts.tensorrt):
        return
    board = facts.jetson
    if board is not None and any("libnvinfer" in name for name in board.packages):
        what = (
            f"{_CANNOT_BUILD}: JetPack's TensorRT is there, but this Python ({facts.python.version}) does not see it."
        )
        mend = (
            "sudo apt install python3-libnvinfer, and python3 -m venv --system-site-packages with the system's python3"
        )
        yield stops("tensorrt-hidden", what, mend)
    elif board is not None:
        yield stops("no-tensorrt", f"{_CANNOT_BUILD}: TensorRT is not installed.", "sudo apt install nvidia-jetpack")
    else:
        mend = f"{_RTX} (builds without a GPU, runs on RTX GPUs), or pip install 'trt-blendmask[tensorrt]'"
        yield stops("no-tensorrt", f"{_CANNOT_BUILD}: neither TensorRT nor TensorRT-RTX is installed.", mend)


def builder(facts: Facts) -> Iterator[Finding]:
    full, rtx = facts.tensorrt
    if facts.driver.problem and full.usable and not rtx.usable:
        what = f"{_CANNOT_BUILD}: TensorRT builds on the GPU that the engine is for, and there is none."
        yield stops("tensorrt-without-gpu", what, f"Build on that machine, or for RTX GPUs: {_RTX}")


def cuda_of_wheels(facts: Facts) -> Iterator[Finding]:
    """A wheel for CUDA 13 needs a driver of CUDA 13."""
    runs = numbers(facts.driver.cuda)[:1]
    wheels = (re.fullmatch(r"(tensorrt(?:[-_]rtx)?)[-_]cu(\d+)", name) for name in facts.python.packages)
    for wheel in filter(None, wheels):
        if runs and runs < (int(wheel[2]),):
            what = f"{wheel[0]} is for CUDA {wheel[2]}, and this driver runs CUDA up to {facts.driver.cuda}."
            newer = "Update the driver to 580 or newer" if wheel[2] == "13" else "Update the driver"
            yield stops("driver-too-old", what, f"{newer}, or: pip install {wheel[1].replace('_', '-')}-cu{runs[0]}")


def sm87(facts: Facts) -> Iterator[Finding]:
    is_orin = any(gpu.compute_capability == "8.7" for gpu in facts.driver.gpus)
    if is_orin and numbers(facts.tensorrt[0].version)[:2] == (10, 13):
        what = f"{_CANNOT_BUILD}: TensorRT 10.13 does not know the GPU of Orin (SM 87)."
        yield stops("no-sm87", what, "Update to JetPack 7.2, or stay on 6.2.")


def plugin(facts: Facts) -> Iterator[Finding]:
    full = facts.tensorrt[0]
    needed = "Only 'surgery --tail plugin' needs it; --tail native does without."
    if not full.usable:
        return
    if full.plugin == "missing":
        yield risk(
            "no-plugin", "Graphs with our layer cannot be built: its library is not there.", f"make plugin. {needed}"
        )
    elif full.plugin in ("fails", "crashes"):
        how = "crashes TensorRT" if full.plugin == "crashes" else "cannot be used"
        yield stops("plugin-broken", f"The plugin {how}: {full.plugin_problem.rstrip('.')}.", f"make plugin. {needed}")


def cves(facts: Facts) -> Iterator[Finding]:
    version = facts.tensorrt[0].version
    holes = [words for fixed, words in TENSORRT_CVES if version and numbers(version) < fixed]
    if holes:
        mend = "Load only engines that you built" + ("." if facts.jetson else ", or: pip install -U tensorrt")
        yield risk("tensorrt-cve", f"TensorRT {version} has known holes, closed in 11.0: {'; '.join(holes)}.", mend)


def cuda_python(facts: Facts) -> Iterator[Finding]:
    can_run = not facts.driver.problem and any(flavor.usable for flavor in facts.tensorrt)
    works = [name for name, version in facts.cuda_python.items() if not version.startswith("cannot")]
    if can_run and not works:
        told = "; ".join(f"{name} {why}" for name, why in facts.cuda_python.items())
        what = f"{_CANNOT_RUN} from Python: {told or 'neither cuda-core nor PyCUDA is installed'}."
        yield stops("no-cuda-python", what, "pip install 'trt-blendmask[cuda]'")


RULES = (
    gpu,
    nvidia_smi,
    compute_capability,
    jetpack,
    tensorrt,
    builder,
    cuda_of_wheels,
    sm87,
    plugin,
    cuda_python,
    cves,
)


def numbers(version: str) -> tuple[int, ...]:
    """(10, 3, 0, 26) of "10.3.0.26+cuda12"."""
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])))


def _sm(gpu: Gpu) -> float:
    return float(gpu.compute_capability) if re.fullmatch(r"\d+\.\d+", gpu.compute_capability) else 0.0
