"""Machines to examine: their files, what their programs print, what their libraries answer.

None of these was recorded by us on the machine that it stands for: we have none of them. They are written after public
documentation (NVIDIA's Jetson Linux developer guide and release notes, nvidia-smi's and nvpmodel's manuals) and after
outputs that users of such machines published. They prove how such text is read, not that a board prints it.
"""

from __future__ import annotations

import json
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trt_blendmask.doctor.child import MARK
from trt_blendmask.doctor.machine import Machine

GIB = 1 << 30
UBUNTU = 'PRETTY_NAME="Ubuntu {}"\nNAME="Ubuntu"\nID=ubuntu\n'
STATUS = "Name:\tcat\nCpus_allowed:\tff\nCpus_allowed_list:\t{}\n"
PYTHON = {"trt-blendmask": "0.1.0", "numpy": "1.26.4", "onnx": "1.21.0", "onnxruntime": "1.23.0", "av": "14.0.0"}


def meminfo(total_kib: int, free_kib: int, swap_kib: int = 0) -> str:
    return f"MemTotal: {total_kib:>15} kB\nMemAvailable: {free_kib:>11} kB\nSwapTotal: {swap_kib:>14} kB\n"


@dataclass(frozen=True)
class Tree:
    """Files by absolute path, shell scripts by the program's name, answers by the probe's name (several: one each)."""

    files: dict[str, str] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def plant(self, folder: Path, command_s: float = 5.0, library_s: float = 5.0) -> Machine:
        """Write it all below `folder`; what `answers` leaves out is asked of this Python's own libraries."""
        for place, text in self.files.items():
            path = folder / "root" / place.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (folder / "root").mkdir(exist_ok=True)
        script(folder / "bin" / "uname", 'echo "Linux 6.1.0 x86_64"')
        for name, body in self.programs.items():
            script(folder / "bin" / name, body)
        lines = []
        for name, facts in self.answers.items():
            said = "\n".join(MARK + json.dumps(fact) for fact in facts)
            lines.append(f"{name}) cat <<'END'\n{said}\nEND\n;;")
        lines.append(f'*) exec {sys.executable} "$@";;')
        python = script(folder / "python", 'for last; do :; done\ncase "$last" in\n' + "\n".join(lines) + "\nesac")
        return Machine(folder / "root", f"{folder / 'bin'}:/usr/bin:/bin", str(python), command_s, library_s)


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def echo(text: str) -> str:
    return f"cat <<'END'\n{text}\nEND"


def libraries(**changed: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Answers of a machine that has all libraries and no GPU."""
    return {
        "python": [{"version": "3.10.12", "venv": True, "packages": PYTHON}],
        "driver": [{"problem": "libcuda.so.1 is not there"}],
        "tensorrt": [{"version": "", "installed": False, "problem": "Expected TensorRT, but it is not installed."}],
        "rtx": [{"version": "", "installed": False, "problem": "Expected TensorRT-RTX, but it is not installed."}],
        "opencv": [{"version": "4.10.0", "features": {"FFMPEG": True, "GStreamer": False}, "place": "/venv/cv2"}],
        "pyav": [{"version": "14.0.0", "libavcodec": "61.19.100", "h264": True}],
        "onnxruntime": [{"version": "1.23.0", "providers": ["CPUExecutionProvider"]}],
        "cuda_python": [],
        "disk": [{"/home/user": {"free_bytes": 50 * GIB, "total_bytes": 100 * GIB}}],
        **changed,
    }


def gpus(cuda: str, name: str, capability: str, size: int) -> list[dict[str, Any]]:
    gpu = {"name": name, "compute_capability": capability, "memory_bytes": size}
    return [{"cuda": cuda}, {"gpus": [gpu]}]


def loads(version: str) -> list[dict[str, Any]]:
    """A flavor that works and loads the plugin."""
    return [
        {"version": version, "installed": True, "problem": ""},
        {"plugin": "crashes", "library": "/x/libtrt_blendmask.so"},
        {"plugin": "loads"},
    ]


ORIN_CLOCKS = {
    "/sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    "/sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "/sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
    "/sys/class/devfreq/154c0000.nvenc/cur_freq": "1\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "729600\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "729600\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1728000\n",
}

ORIN = Tree(
    files={
        "/etc/os-release": UBUNTU.format("22.04.5 LTS"),
        "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
        "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n",
        "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
        "/proc/meminfo": meminfo(7_802_912, 5_902_912, 3_901_440),
        "/proc/self/status": STATUS.format("0-5"),
        **ORIN_CLOCKS,
    },
    programs={
        "uname": 'echo "Linux 5.15.148-tegra aarch64"',
        "nvpmodel": echo("NV Power Mode: 25W\n1"),
        "jetson_clocks": "echo 'Error: run as root' >&2; exit 1",
        "dpkg-query": echo(
            "nvidia-jetpack\t6.2+b77\tinstalled\nnvidia-l4t-core\t36.4.3-20250107174145\tinstalled\n"
            "libnvinfer10\t10.3.0.30-1+cuda12.5\tinstalled\npython3-libnvinfer\t10.3.0.30-1+cuda12.5\tinstalled\n"
            "libnvinfer8\t\tnot-installed"
        )
        + "\nexit 1",
        "nvcc": echo("nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 12.6, V12.6.68"),
        "nvidia-smi": echo("Orin (nvgpu), [N/A], 540.4.0, [N/A], [N/A], [N/A], [N/A]"),
    },
    answers=libraries(
        driver=gpus("12.6", "Orin", "8.7", 7_990_181_888),
        tensorrt=loads("10.3.0"),
        opencv=[{"version": "4.8.0", "features": {"FFMPEG": True, "GStreamer": True}, "place": "/usr/lib/python3/cv2"}],
        cuda_python=[{"cuda.core": "0.3.2"}],
    ),
)

THOR = Tree(
    files={
        "/etc/os-release": UBUNTU.format("24.04.3 LTS"),
        "/etc/nv_tegra_release": "# R38 (release), REVISION: 4.0, GCID: 43443517, BOARD: generic, EABI: aarch64, DATE: "
        "Wed Dec 31 22:40:42 UTC 2025\n# KERNEL_VARIANT: oot\n",
        "/proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
        "/proc/meminfo": meminfo(128_830_508, 120_830_508),
        "/proc/self/status": STATUS.format("0-13"),
        "/sys/class/devfreq/gpu-gpc-0/cur_freq": "1575000000\n",
        "/sys/class/devfreq/gpu-gpc-0/min_freq": "1575000000\n",
        "/sys/class/devfreq/gpu-gpc-0/max_freq": "1575000000\n",
        "/sys/class/devfreq/gpu-nvd-0/cur_freq": "1692000000\n",
        "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.00  Release\n",
    },
    programs={
        "uname": 'echo "Linux 6.8.12-tegra aarch64"',
        "nvpmodel": echo("NV Power Mode: MAXN\n0"),
        "dpkg-query": echo("nvidia-l4t-core\t38.4.0-20251230160601\tinstalled\nlibnvinfer10\t10.13.3.9\tinstalled"),
        "nvidia-smi": echo("NVIDIA Thor, 11.0, 580.00, [N/A], [N/A], 1575, 1575"),
    },
    answers=libraries(
        python=[{"version": "3.12.3", "venv": True, "packages": {**PYTHON, "opencv-python-headless": "4.11.0.86"}}],
        driver=gpus("13.0", "NVIDIA Thor", "11.0", 128 * GIB),
        tensorrt=loads("10.13.3.9"),
        opencv=[{"version": "4.11.0", "features": {"FFMPEG": True, "GStreamer": False}, "place": "/venv/cv2"}],
        cuda_python=[{"pycuda.driver": "2026.1"}],
    ),
)

RTX = Tree(
    files={
        "/etc/os-release": UBUNTU.format("24.04.3 LTS"),
        "/proc/meminfo": meminfo(65_700_000, 50_000_000, 8_000_000),
        "/proc/self/status": STATUS.format("0-15,20-23"),
        "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 2025\n",
    },
    programs={
        "nvidia-smi": echo("NVIDIA GeForce RTX 4090, 8.9, 580.95.05, 24564, 450.00, 210, 3105"),
        "nvcc": echo("Cuda compilation tools, release 13.0, V13.0.88"),
    },
    answers=libraries(
        python=[{"version": "3.12.3", "venv": True, "packages": {**PYTHON, "tensorrt_rtx_cu13": "1.7.1.116"}}],
        driver=gpus("13.0", "NVIDIA GeForce RTX 4090", "8.9", 25_289_687_040),
        tensorrt=loads("11.4.1.5"),
        rtx=loads("1.7.1.116"),
        cuda_python=[{"cuda.core": "1.2.0"}],
    ),
)

CPU = Tree(
    files={
        "/etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        "/.dockerenv": "",
        "/proc/meminfo": meminfo(16_000_000, 15_000_000),
        "/proc/self/status": STATUS.format("0-7"),
        "/sys/fs/cgroup/memory.max": "4294967296\n",
        "/sys/fs/cgroup/memory.current": "1073741824\n",
        "/sys/fs/cgroup/cpu.max": "250000 100000\n",
    },
    answers=libraries(rtx=[{"version": "1.7.1.116", "installed": True, "problem": ""}, {"plugin": "missing"}]),
)
