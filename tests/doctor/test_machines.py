"""Four machines as they should be told; see `trees.py` for where their text comes from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.trees import CPU, GIB, ORIN, PYTHON, RTX, THOR, Tree, echo, gpus, libraries, loads
from trt_blendmask.doctor import examine
from trt_blendmask.doctor.report import Report


def codes(report: Report, level: str) -> set[str]:
    return {finding.code for finding in report.findings if finding.level == level}


def with_answers(tree: Tree, **changed: list[dict[str, Any]]) -> Tree:
    return replace(tree, answers={**tree.answers, **changed})


def with_files(tree: Tree, **changed: str) -> Tree:
    return replace(
        tree, files={**tree.files, **{f"/{name.replace('__', '/')}": text for name, text in changed.items()}}
    )


def test_orin_with_jetpack_6_2(tmp_path: Path) -> None:
    report = examine(ORIN.plant(tmp_path))
    facts = report.facts
    assert facts.jetson is not None
    assert (facts.jetson.jetpack, facts.jetson.l4t) == ("6.2", "36.4.3")
    assert facts.jetson.model == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert "libnvinfer8" not in facts.jetson.packages
    assert (facts.system.name, facts.system.architecture, facts.system.cores) == ("Ubuntu 22.04.5 LTS", "aarch64", 6)
    assert facts.system.memory_bytes == 7_802_912 * 1024
    assert (facts.driver.gpus[0].name, facts.driver.gpus[0].compute_capability) == ("Orin", "8.7")
    assert (facts.driver.cuda, facts.driver.toolkit, facts.driver.problem) == ("12.6", "12.6", "")
    assert (facts.tensorrt[0].version, facts.tensorrt[0].plugin) == ("10.3.0", "loads")
    assert (facts.power.mode, facts.power.governor) == ("25W", "schedutil")
    clocks = [(clock.unit, clock.now_mhz, clock.lowest_mhz, clock.highest_mhz) for clock in facts.power.clocks]
    assert clocks == [("GPU", 306, 306, 1020), ("CPU", 729.6, 729.6, 1728)]
    assert codes(report, "stops") == set()
    assert codes(report, "risk") == {"tensorrt-cve", "power-mode", "clocks"}
    told = next(finding for finding in report.findings if finding.code == "tensorrt-cve").what
    for number in ("24188", "24268", "24238", "24272", "24227"):
        assert f"CVE-2026-{number}" in told


def test_thor_with_jetpack_7_1(tmp_path: Path) -> None:
    report = examine(THOR.plant(tmp_path))
    facts = report.facts
    assert facts.jetson is not None
    assert (facts.jetson.jetpack, facts.jetson.l4t) == ("7.1", "38.4.0")  # no package nvidia-jetpack: from Jetson Linux
    assert facts.driver.version == "580.00"
    assert facts.driver.gpus[0].compute_capability == "11.0"
    assert facts.power.mode == "MAXN"
    assert facts.power.clocks[0].locked
    assert codes(report, "stops") == {"opencv-without-gstreamer"}
    assert codes(report, "risk") == {"tensorrt-cve", "opencv-4.11"}


def test_desktop_with_an_rtx_gpu(tmp_path: Path) -> None:
    report = examine(RTX.plant(tmp_path))
    facts = report.facts
    assert facts.jetson is None
    assert facts.system.cores == 20
    assert facts.driver.version == "580.95.05"
    assert [flavor.version for flavor in facts.tensorrt] == ["11.4.1.5", "1.7.1.116"]
    assert facts.power.limit_w == 450
    assert (facts.power.clocks[0].now_mhz, facts.power.clocks[0].highest_mhz) == (210, 3105)
    assert report.findings == ()
    assert report.lines(80)[-1] == "Found nothing that will not work here."


def test_container_without_a_gpu(tmp_path: Path) -> None:
    report = examine(CPU.plant(tmp_path))
    system = report.facts.system
    assert system.container
    assert system.cores == 2  # the container's quota, rounded down
    assert (system.memory_bytes, system.memory_free_bytes) == (4 * GIB, 3 * GIB)
    assert codes(report, "stops") == {"no-gpu"}
    assert codes(report, "risk") == set()  # RTX builds without a GPU, and its engines have no plugin layers
    assert "--gpus all" in next(finding.mend for finding in report.findings)


@pytest.mark.parametrize(
    "tree",
    [ORIN, THOR, RTX, CPU, Tree(answers={name: [] for name in libraries()})],
    ids=["orin", "thor", "rtx", "cpu", "nothing"],
)
@pytest.mark.parametrize("width", [0, 80, 120])
def test_lines_keep_to_the_width_and_json_to_its_keys(tree: Tree, width: int, tmp_path: Path) -> None:
    report = examine(tree.plant(tmp_path))
    lines = report.lines(width)
    assert all(len(line) <= width for line in lines) or not width
    assert all(line.isprintable() for line in lines)
    values = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert list(values) == [
        "schema", "version", "system", "disks", "python", "jetson", "driver", "tensorrt", "cuda_python", "onnxruntime",
        "opencv", "pyav", "power", "findings",
    ]  # fmt: skip
    assert all(set(finding) == {"code", "level", "what", "mend"} for finding in values["findings"])
    text = " ".join(" ".join(report.lines(width)).split())
    assert all(finding.what in text for finding in report.findings)


STOPPING = {
    "mismatch": (
        replace(
            RTX, programs={"nvidia-smi": "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18"}
        ),
        {"driver": [{"problem": "CUDA error 803: system has unsupported display driver / cuda driver combination"}]},
        "driver-mismatch",
    ),
    "no CUDA in the container": (RTX, {"driver": [{"problem": "libcuda.so.1 is not there"}]}, "no-libcuda"),
    "hidden by the environment": (
        RTX,
        {"driver": [{"cuda": "13.0"}, {"problem": "CUDA error 100: no CUDA-capable device is detected"}]},
        "no-gpu",
    ),
    "not in the group": (ORIN, {"driver": [{"cuda": "12.6"}, {"problem": "CUDA error 999: unknown error"}]}, "no-gpu"),
    "Volta": (RTX, {"driver": gpus("12.8", "Tesla V100", "7.0", 16 * GIB)}, "gpu-too-old"),
    "driver for CUDA 12": (RTX, {"driver": gpus("12.8", "NVIDIA L4", "8.9", 24 * GIB)}, "driver-too-old"),
    "venv without the system's": (
        ORIN,
        {"tensorrt": [{"version": "", "installed": False, "problem": "not installed"}]},
        "tensorrt-hidden",
    ),
    "TensorRT 8": (
        RTX,
        {"tensorrt": [{"version": "8.6.1", "installed": True, "problem": "Expected TensorRT 10 or newer, got 8.6.1."}]},
        "tensorrt-broken",
    ),
    "Orin on 10.13": (ORIN, {"tensorrt": loads("10.13.3.9")}, "no-sm87"),
    "plugin crashes": (RTX, {"tensorrt": loads("11.4.1")[:2]}, "plugin-broken"),
    "no CUDA for Python": (RTX, {"cuda_python": [{}]}, "no-cuda-python"),
    "NumPy 2 with JetPack's OpenCV": (
        ORIN,
        {"opencv": [{"problem": "cannot be loaded: ImportError: numpy.core.multiarray failed to import"}]},
        "no-opencv",
    ),
    "no ONNX Runtime": (CPU, {"onnxruntime": [{"problem": "is not installed"}]}, "no-onnxruntime"),
    "no PyAV": (CPU, {"pyav": [{"problem": "is not installed"}]}, "no-pyav"),
    "nothing to build with": (CPU, {"rtx": libraries()["rtx"]}, "no-tensorrt"),
    "TensorRT without a GPU": (CPU, {"rtx": libraries()["rtx"], "tensorrt": loads("10.16.1")}, "tensorrt-without-gpu"),
}


@pytest.mark.parametrize("name", STOPPING)
def test_what_stops_is_told_with_its_mend(name: str, tmp_path: Path) -> None:
    tree, answers, code = STOPPING[name]
    report = examine(with_answers(tree, **answers).plant(tmp_path))
    assert code in codes(report, "stops")
    found = next(finding for finding in report.findings if finding.code == code)
    assert found.what.endswith(".")
    assert found.mend or "Expected" in found.what
    assert "\n" not in found.what + found.mend


@pytest.mark.parametrize(
    ("release", "jetpack"), [("R35 (release), REVISION: 4.1", "5"), ("R36 (release), REVISION: 3.0", "6.0")]
)
def test_old_jetpacks_are_too_old(release: str, jetpack: str, tmp_path: Path) -> None:
    tree = replace(with_files(ORIN, etc__nv_tegra_release=f"# {release}, GCID: 1"), programs={})
    report = examine(tree.plant(tmp_path))
    assert report.facts.jetson is not None
    assert report.facts.jetson.jetpack == jetpack
    assert "jetpack-too-old" in codes(report, "stops")


@pytest.mark.parametrize(
    ("version", "holes"), [("10.3.0", 5), ("10.16.0.9", 5), ("10.16.1.11", 4), ("11.0.0.114", 0), ("11.4.1", 0)]
)
def test_holes_by_version(version: str, holes: int, tmp_path: Path) -> None:
    report = examine(with_answers(RTX, tensorrt=loads(version)).plant(tmp_path))
    told = [finding.what for finding in report.findings if finding.code == "tensorrt-cve"]
    assert sum(text.count("CVE-") for text in told) == holes


@pytest.mark.parametrize(("version", "told"), [("4.8.0.76", True), ("4.8.1.78", False), ("4.12.0.88", False)])
def test_wheels_of_opencv_with_a_hole(version: str, told: bool, tmp_path: Path) -> None:
    packages = {**PYTHON, "opencv-python": version}
    tree = with_answers(CPU, python=[{"version": "3.12.3", "venv": True, "packages": packages}])
    assert ("opencv-cve" in codes(examine(tree.plant(tmp_path)), "risk")) is told


def test_little_room_is_told(tmp_path: Path) -> None:
    tree = with_answers(CPU, disk=[{"/data": {"free_bytes": 10**9, "total_bytes": 10**11}}])
    report = examine(with_files(tree, sys__fs__cgroup__memory_max="").plant(tmp_path))
    assert codes(report, "risk") == {"disk-full"}
    small = with_files(tree, proc__meminfo="MemTotal: 2000000 kB\nMemFree: 9 kB\n")
    assert codes(examine(small.plant(tmp_path / "small")), "risk") == {"disk-full", "little-memory"}


def test_clocks_that_only_jetson_clocks_shows(tmp_path: Path) -> None:
    shown = "GPU MinFreq=306000000 MaxFreq=1300500000 CurrentFreq=510000000\nEMC MinFreq=204000000 MaxFreq=3199000000 "
    files = {place: text for place, text in ORIN.files.items() if not place.startswith("/sys/")}
    tree = replace(ORIN, files=files, programs={"jetson_clocks": echo(shown + "CurrentFreq=2133000000 FreqOverride=0")})
    clocks = examine(tree.plant(tmp_path)).facts.power.clocks
    assert [(clock.unit, clock.now_mhz, clock.highest_mhz) for clock in clocks] == [
        ("GPU", 510, 1300.5),
        ("EMC", 2133, 3199),
    ]
