"""The kernel on a GPU: what tests/plugin/test_kernel.py shows on a pretended one, and what only a GPU can show."""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.plugin import oracle
from tests.plugin.cases import ODD_BOXES, random_boxes, random_case
from tests.plugin.test_kernel import difference, sanitizer_cases, steps
from tests.plugin.twins import BUILT, Case, Twin, build, device_twin

EXACT = 1e-5
HALF = 4e-3
FLIPPED = 1e-4
TYPES = [np.float32, np.float16]


@pytest.fixture(scope="module")
def device() -> Twin:
    return device_twin()


def agree(got: Any, wanted: Any, bound: float = EXACT) -> None:
    """To `bound`, or to one step of a narrower type."""
    if got.dtype == np.float32:
        assert difference(got, wanted) <= bound
    else:
        assert steps(got, wanted) <= 1


@pytest.mark.needs("nvcc")
def test_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GPU or without; a warning is an error."""
    monkeypatch.setenv("ARCH", "sm_87")
    build("device", BUILT.parent / "twins_sm_87")


@pytest.mark.needs("gpu", "nvcc")
@pytest.mark.parametrize("masks_type", [np.float32, np.float16, np.uint8])
@pytest.mark.parametrize("attention_type", TYPES)
@pytest.mark.parametrize("bases_type", TYPES)
@pytest.mark.parametrize("channels", [0, 4, 5, 8])
def test_every_type_and_layout(
    host: Twin, device: Twin, channels: int, bases_type: Any, attention_type: Any, masks_type: Any
) -> None:
    types = {"bases_type": bases_type, "attention_type": attention_type, "masks_type": masks_type}
    for ratio, n in ((1, 1), (2, 4)):
        case = random_case(7, m=14, r=28, n=n, d=9, channels=channels, sampling_ratio=ratio, **types)
        agree(device(case), host(case))


@pytest.mark.needs("gpu", "nvcc")
@pytest.mark.parametrize("channels", [0, 16])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 7, 8, 9, 12])
def test_every_number_of_bases(host: Twin, device: Twin, k: int, channels: int) -> None:
    for r, m, ratio in ((1, 3, 1), (13, 5, 2), (56, 14, 1), (256, 2, 1)):
        case = random_case(k + r, k, m, r, d=4, channels=channels, sampling_ratio=ratio)
        agree(device(case), host(case))


@pytest.mark.needs("gpu", "nvcc")
@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("d", [1, 2, 7, 100, 300])
def test_every_number_of_detections(host: Twin, device: Twin, d: int, n: int) -> None:
    """The cut of the masks depends on how many there are."""
    for masks_type in (np.float32, np.uint8):
        case = random_case(d + n, m=7, r=14, n=n, d=d, count=[d, 0, d // 2, d + 3][:n], masks_type=masks_type)
        agree(device(case), host(case))


def many_boxes(seed: int) -> Case:
    """2500 boxes, a hundred odd ones among them."""
    boxes = random_boxes(np.random.default_rng(seed), 1, 2500, (40, 50))
    boxes[0, :96] = np.tile(np.array(list(ODD_BOXES.values()), np.float32), (8, 1))
    return replace(random_case(seed, m=7, r=14, d=2500, bases_hw=(40, 50)), boxes=boxes, count=None)


@pytest.mark.needs("gpu", "nvcc")
@pytest.mark.parametrize("sampling_ratio", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_ten_thousand_boxes(host: Twin, device: Twin, seed: int, sampling_ratio: int) -> None:
    case = replace(many_boxes(seed), sampling_ratio=sampling_ratio)
    got = device(case)
    agree(got, host(case))
    near = np.abs(case.boxes).max(axis=2) < 1e4  # beyond, float32 itself is coarser than a pixel; NaN is not near
    judged = replace(case, boxes=case.boxes[near][None], attention=case.attention[near][None])
    wanted = oracle.masks(judged, coordinates=np.float32)
    assert np.where(oracle.decided_by_rounding(judged), 0, np.abs(got[near][None] - wanted)).max() <= EXACT


@pytest.mark.needs("gpu", "nvcc")
def test_more_cells_than_32_bits_count(host: Twin, device: Twin) -> None:
    """2.2 GB of masks: the first, the last, and an empty slot behind it."""
    case = random_case(3, k=1, m=1, r=182, d=65535, masks_type=np.uint8)
    got = device(case)
    for slot in (0, -2):
        one = replace(case, boxes=case.boxes[:, [slot]], attention=case.attention[:, [slot]], count=None)
        agree(got[:, [slot]], host(one))
    assert not got[:, -1].any()


@pytest.mark.needs("gpu", "nvcc")
@pytest.mark.parametrize("sampling_ratio", [1, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_coordinates_are_the_hosts_to_the_last_bit(
    pretend: Twin, device: Twin, aligned: bool, sampling_ratio: int
) -> None:
    for seed in range(4):
        case = replace(many_boxes(seed), aligned=aligned, sampling_ratio=sampling_ratio)
        np.testing.assert_array_equal(device.coordinates(case), pretend.coordinates(case))


@pytest.mark.needs("gpu", "nvcc")
def test_float16_is_close_to_the_oracle(device: Twin) -> None:
    types = {"bases_type": np.float16, "attention_type": np.float16, "masks_type": np.float16, "channels": 4}
    case = random_case(11, m=14, r=56, d=100, **types)
    case = replace(case, bases=3 * case.bases).rounded()
    got, wanted = device(case), oracle.masks(case)
    sure = ~oracle.decided_by_rounding(case)
    assert np.abs(got - wanted)[sure].max() <= HALF
    assert ((got >= 0.5) != (wanted >= 0.5))[sure].mean() <= FLIPPED


@pytest.mark.needs("gpu", "nvcc")
@pytest.mark.parametrize("function", ["blend_in_graph", "blend_in_two_streams"])
def test_graphs_and_streams(device: Twin, function: str) -> None:
    """A graph's replay reads what its inputs hold by then; two streams do not meet."""
    case = random_case(13, m=14, r=56, d=100, channels=4, bases_type=np.float16, masks_type=np.float16)
    other = replace(case, boxes=random_boxes(np.random.default_rng(14), 1, 100, (25, 30)))
    masks = np.concatenate([case.empty_masks(), case.empty_masks()])
    device.call(function, case, *case.arrays(), other.arrays()[1], ctypes.c_int(50), masks)
    np.testing.assert_array_equal(masks[:1], device(case))
    np.testing.assert_array_equal(masks[1:], device(other))


@pytest.mark.needs("gpu", "nvcc", "compute-sanitizer")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer_has_nothing_to_say(device: Twin, tmp_path: Path, tool: str) -> None:
    cases = sanitizer_cases()
    files = [case.file(tmp_path / str(i)) for i, case in enumerate(cases)]
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", build("device") / "device", *files]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    for case, file in zip(cases, files, strict=True):
        masks = np.fromfile(f"{file}.masks", case.masks_type).reshape(case.empty_masks().shape)
        np.testing.assert_array_equal(masks, device(case))
