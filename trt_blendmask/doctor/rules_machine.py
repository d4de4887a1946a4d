"""Rules about the rest of the machine: libraries, cameras, room, clocks."""

from __future__ import annotations

from collections.abc import Iterator

from trt_blendmask.doctor.facts import Facts, Finding, risk, stops
from trt_blendmask.doctor.rules_engines import numbers

MIN_FREE_BYTES = 2_000_000_000  # an engine, its ONNX files and a recording
MIN_MEMORY_BYTES = 3_500_000_000  # less than what a board of 4 GB has
ONNX_OLDEST, OPENCV_OLDEST = (1, 21), (4, 8, 1, 78)
_SYSTEMS = "python3 -m venv --system-site-packages"


def libraries(facts: Facts) -> Iterator[Finding]:
    for code, name, library, what in (
        ("onnxruntime", "ONNX Runtime", facts.onnxruntime, "Nothing runs on the CPU"),
        ("opencv", "OpenCV", facts.opencv, "Pictures cannot be read or drawn"),
        ("pyav", "PyAV", facts.pyav, "Videos cannot be read or written"),
    ):
        if not library.problem:
            continue
        mend = "pip install -U trt-blendmask"
        if "numpy" in library.problem.lower():
            mend = "pip install 'numpy<2', which it was made for"
        elif facts.jetson is not None and code == "opencv":
            mend = f"sudo apt install python3-opencv, in an environment that sees it: {_SYSTEMS}"
        yield stops(f"no-{code}", f"{what}: {name} {library.problem.rstrip('.')}.", mend)


def opencv(facts: Facts) -> Iterator[Finding]:
    wheels = {n: version for n, version in facts.python.packages.items() if n.lower().startswith("opencv-")}
    if facts.jetson is not None and not facts.opencv.problem and not facts.opencv.features.get("GStreamer"):
        mend = f"pip uninstall {' '.join(wheels)}" if wheels else "sudo apt install nvidia-opencv"
        what = "Cameras on the CSI port cannot be opened through OpenCV: this build has no GStreamer."
        yield stops("opencv-without-gstreamer", what, f"{mend}, in an environment that sees JetPack's: {_SYSTEMS}")
    for name, version in wheels.items():
        if numbers(version)[:3] == (4, 11, 0):
            what = f"{name} {version} ignores options of FFmpeg: RTSP cameras may fail."
            yield risk("opencv-4.11", what, f"pip install -U {name}")
        if numbers(version) < OPENCV_OLDEST:
            what = f"{name} {version} brings a libwebp with a known hole (CVE-2023-4863)."
            yield risk("opencv-cve", what, f"pip install -U {name}, or read no pictures of others")


def onnx(facts: Facts) -> Iterator[Finding]:
    version = facts.python.packages.get("onnx", "")
    if version and numbers(version)[:2] < ONNX_OLDEST:
        what = f"onnx {version} follows links out of a model's folder (CVE-2026-27489)."
        yield risk("onnx-cve", what, "pip install -U 'onnx>=1.21'")


def room(facts: Facts) -> Iterator[Finding]:
    for disk in facts.disks:
        if disk.free_bytes < MIN_FREE_BYTES:
            what = f"Engines and videos may not fit: {disk.free_bytes / 1e9:.1f} GB are free in {disk.folder}."
            yield risk("disk-full", what, "Make room, or write elsewhere (-o, XDG_CACHE_HOME).")
    system = facts.system
    if 0 < system.memory_bytes < MIN_MEMORY_BYTES and not system.swap_bytes:
        what = f"Builds may be killed: {system.memory_bytes / 1e9:.1f} GB of memory, and no swap."
        yield risk("little-memory", what, "build with --workspace 512, or add swap.")


def power(facts: Facts) -> Iterator[Finding]:
    mode = facts.power.mode
    if mode and not mode.upper().startswith("MAXN"):
        what = f"The board does not run as fast as it can: its power mode is {mode}."
        yield risk("power-mode", what, "sudo nvpmodel -m 0 (/etc/nvpmodel.conf lists the modes)")
    gpu = next((clock for clock in facts.power.clocks if clock.unit == "GPU"), None)
    if facts.jetson is not None and gpu is not None and not gpu.locked:
        what = f"Measured times will vary: the GPU's clock goes from {gpu.lowest_mhz:.0f} to {gpu.highest_mhz:.0f} MHz."
        yield risk("clocks", what, "While measuring: sudo jetson_clocks")


RULES = (libraries, opencv, onnx, room, power)
