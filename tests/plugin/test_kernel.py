"""roi_align_blend_kernel.cu on a pretended device, against the host twin: every type, layout, K and cut of masks."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.plugin.cases import ODD_BOXES, random_case, spoiled_at_the_edge
from tests.plugin.twins import Case, Twin, build

ROUNDING = 2e-6  # of a probability: sums are taken in another order
LARGE, SMALL = 10**6, 0  # multiprocessors of a device: rows of a thread become 1, or 8


def difference(got: Any, wanted: Any) -> float:
    return float(np.abs(got.astype(np.float64) - wanted).max())


def steps(got: Any, wanted: Any) -> int:
    """The largest difference, in steps of the type; half a step of rounding makes one."""
    bits = np.uint16 if got.dtype == np.float16 else np.uint8
    return int(np.abs(got.view(bits).astype(int) - wanted.view(bits)).max())


@pytest.mark.parametrize("size", [LARGE, SMALL])
@pytest.mark.parametrize("layout", ["planes", "packed", "odd"])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 7, 8, 9, 12])
def test_every_number_of_bases(
    host: Twin, pretend: Twin, monkeypatch: pytest.MonkeyPatch, k: int, layout: str, size: int
) -> None:
    monkeypatch.setenv("PRETEND_MULTIPROCESSORS", str(size))
    channels = {"planes": 0, "packed": (k + 7) // 8 * 8, "odd": k + 1 + k % 2}[layout]
    inputs = np.float16 if (k + len(layout)) % 2 else np.float32
    for ratio, r in ((1, 12), (2, 9)):
        types = {"bases_type": inputs, "attention_type": np.float16 if k % 3 else np.float32}
        case = random_case(k, k, 5, r, n=2, d=3, sampling_ratio=ratio, channels=channels, **types)
        assert difference(pretend(case), host(case)) <= ROUNDING


@pytest.mark.parametrize("masks_type", [np.float32, np.float16, np.uint8])
@pytest.mark.parametrize(("r", "m"), [(1, 3), (2, 9), (7, 7), (14, 28), (28, 14), (56, 14), (61, 4), (256, 2)])
def test_every_mask_size(
    host: Twin, pretend: Twin, monkeypatch: pytest.MonkeyPatch, r: int, m: int, masks_type: Any
) -> None:
    """Sizes that are and are not multiples of 16 bytes; nothing is written beside the masks."""
    for size in (LARGE, SMALL) if r < 100 else (SMALL,):
        monkeypatch.setenv("PRETEND_MULTIPROCESSORS", str(size))
        case = random_case(r, 2, m, r, d=3, masks_type=masks_type, nearest=r % 2 == 0)
        got, wanted = pretend(case), host(case)
        if masks_type is np.float32:
            assert difference(got, wanted) <= ROUNDING
        else:
            assert steps(got, wanted) <= 1


@pytest.mark.parametrize("d", range(1, 17))
def test_masks_end_anywhere_in_16_bytes(host: Twin, pretend: Twin, d: int) -> None:
    for count in ([d], [0]):
        case = random_case(d, 1, 1, 5, d=d, count=count, masks_type=np.uint8)
        assert steps(pretend(case), host(case)) <= 1


def test_attention_too_large_for_shared_memory(host: Twin, pretend: Twin) -> None:
    case = random_case(1, 4, 70, 8, d=2)
    assert difference(pretend(case), host(case)) <= ROUNDING


@pytest.mark.parametrize("count", [[-3, 0], [2, 9]])
def test_empty_slots(host: Twin, pretend: Twin, count: list[int]) -> None:
    for masks_type in (np.float32, np.uint8):
        case = random_case(3, r=10, n=2, d=3, count=count, masks_type=masks_type)
        assert difference(pretend(case), host(case)) <= (ROUNDING if masks_type is np.float32 else 1)


@pytest.mark.parametrize("sampling_ratio", [1, 2])
def test_odd_boxes(host: Twin, pretend: Twin, sampling_ratio: int) -> None:
    boxes = np.array([list(ODD_BOXES.values())], np.float32)
    case = replace(random_case(5, d=len(ODD_BOXES), sampling_ratio=sampling_ratio), boxes=boxes, count=None)
    assert difference(pretend(case), host(case)) <= ROUNDING
    assert difference(pretend(replace(case, sigmoid=False)), host(replace(case, sigmoid=False))) <= 10 * ROUNDING


@pytest.mark.parametrize("sampling_ratio", [1, 2])
@pytest.mark.parametrize(("k", "channels"), [(4, 0), (4, 4), (9, 0)])
def test_what_does_not_count_is_not_multiplied(pretend: Twin, k: int, channels: int, sampling_ratio: int) -> None:
    case, spoiled = spoiled_at_the_edge(k=k, channels=channels, sampling_ratio=sampling_ratio)
    np.testing.assert_array_equal(pretend(spoiled), pretend(case))


@pytest.mark.parametrize("k", [4, 9])
def test_extreme_attention(host: Twin, pretend: Twin, k: int) -> None:
    """Its exponentials are no float32; at the attention's own cells nothing is rounded."""
    case = random_case(9, k, m=14, r=14)
    case = replace(case, attention=2000 * case.attention)
    assert difference(pretend(case), host(case)) <= ROUNDING


def test_whole_pixels_beyond_k_do_not_matter(pretend: Twin) -> None:
    """Slots that pad a pixel hold NaN here (cases are written so)."""
    assert np.isfinite(pretend(random_case(1, 3, channels=4))).all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mask_size": 0}, "mask_size is 0, expected 1 to 256"),
        ({"mask_size": 257}, "mask_size is 257, expected 1 to 256"),
        ({"attention_size": 0}, "attention_size is 0, expected 1 to 256"),
        ({"num_bases": 0}, "num_bases is 0, expected 1 to 1024"),
        ({"sampling_ratio": 3}, "sampling_ratio is 3, expected 1 to 2"),
        ({"bases_h": 0}, "height of the bases is 0, expected 1 to 32768"),
        ({"spatial_scale": 0.0}, "spatial_scale is 0, expected a positive number"),
        ({"spatial_scale": float("nan")}, "spatial_scale is nan, expected a positive number"),
        ({"activation": 2}, "activation is 2, expected 0 to 1"),
        ({"batch": 0}, "batch is 0, expected 1 to 65535"),
        ({"detections": 65536}, "detections is 65536, expected 1 to 65535"),
        ({"bases_type": 2}, "type of the bases is 2, expected 0 to 1"),
        ({"masks_type": 3}, "type of the masks is 3, expected 0 to 2"),
        ({"bases_layout": 1, "bases_channels": 3}, "bases_channels is 3, expected 4 to 32768"),
        (
            {"bases_h": 32768, "bases_w": 32768},
            "an image's bases have 4294967296 elements, expected at most 2147483647",
        ),
    ],
    ids=str,
)
def test_refusals(pretend: Twin, changes: dict[str, Any], sentence: str) -> None:
    params = random_case(1).params()
    assert pretend.refusal(params) is None
    for name, value in changes.items():
        setattr(params.geometry if hasattr(params.geometry, name) else params, name, value)
    assert pretend.refusal(params) == sentence


def sanitizer_cases() -> list[Case]:
    cases = [
        random_case(
            i, k, m, r, d=3, sampling_ratio=1 + i % 2, channels=c, masks_type=t, nearest=i % 3 == 0, n=1 + i % 2
        )
        for i, (k, m, r, c, t) in enumerate(
            [
                (4, 14, 56, 4, np.float16),
                (4, 7, 28, 0, np.float32),
                (3, 28, 14, 4, np.uint8),
                (9, 3, 7, 0, np.float16),
                (8, 5, 13, 8, np.uint8),
                (3, 4, 6, 3, np.float32),  # pixels that one load would read across
            ]
        )
    ]
    boxes = np.array([list(ODD_BOXES.values())], np.float32)
    return [*cases, replace(random_case(9, d=len(ODD_BOXES), bases_hw=(1, 1)), boxes=boxes, count=None)]


@pytest.mark.parametrize("program", ["host_sanitized", "pretend_sanitized", "pretend_races"])
def test_sanitizers_have_nothing_to_say(
    program: str, host: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AddressSanitizer and UBSan over the arithmetic and the kernel, ThreadSanitizer over the kernel's threads."""
    monkeypatch.setenv("PRETEND_MULTIPROCESSORS", str(SMALL))
    cases = sanitizer_cases()
    files = [case.file(tmp_path / str(i)) for i, case in enumerate(cases)]
    run = subprocess.run([build(program) / program, *files], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    for case, file in zip(cases, files, strict=True):
        masks = np.fromfile(f"{file}.masks", case.masks_type).reshape(case.empty_masks().shape)
        if case.masks_type is np.float32:
            assert difference(masks, host(case)) <= ROUNDING
        else:
            assert steps(masks, host(case)) <= 1
