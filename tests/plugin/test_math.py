"""roi_align_blend_math.h, compiled by g++, against AdelaiDet's blender, a float64 oracle and the native tail."""

from __future__ import annotations

import ctypes
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.plugin import oracle
from tests.plugin.cases import NOWHERE, ODD_BOXES, random_case, spoiled_at_the_edge
from tests.plugin.twins import ROOT, Case, Twin
from tests.surgery.graphs import SPEC, run_tail

EXACT = 1e-5  # float32, of a probability
HALF = 4e-3
FLIPPED = 1e-4  # of all pixels, at 0.5


def error(got: Any, wanted: Any, case: Case) -> float:
    """The largest difference, rounding's own decisions left out."""
    return float(np.where(oracle.decided_by_rounding(case), 0, np.abs(got - wanted)).max(initial=0))


def reference_cases(reference: Path) -> list[tuple[str, Case, Any, Any]]:
    """Name, call, masks and the cells to leave out, one slot per box."""
    found = []
    for file in sorted((reference / "blender").glob("*.npz")):
        data, facts = np.load(file), json.loads(file.with_suffix(".json").read_text())
        slots = [np.flatnonzero(data["batch_index"] == n) for n in range(len(data["bases"]))]
        count = np.array([len(s) for s in slots], np.int32)
        boxes = np.zeros((len(slots), max(count.max(), 1), 4), np.float32)
        attention = np.zeros((*boxes.shape[:2], data["attn"].shape[1]), np.float32)
        wanted = np.zeros((*boxes.shape[:2], facts["R"], facts["R"]), np.float32)
        fragile = np.zeros(wanted.shape, bool)
        for n, rows in enumerate(slots):
            filled = (n, slice(0, len(rows)))
            boxes[filled], attention[filled] = data["boxes"][rows], data["attn"][rows]
            if len(rows):
                wanted[filled], fragile[filled] = data["masks"][rows, 0], data["fragile"][rows].astype(bool)
        case = Case(
            *(data["bases"].astype(np.float32), boxes, attention, facts["R"], count),
            spatial_scale=facts["spatial_scale"],
            sampling_ratio=facts["sampling_ratio"],
            aligned=facts["aligned"],
            nearest=facts["top_interp"] == "nearest",
        )
        found.append((file.stem, case, wanted, fragile))
    assert len(found) >= 7
    return found


def test_like_adelaidet(host: Twin, reference: Path) -> None:
    for name, case, wanted, fragile in reference_cases(reference):
        got = host(case)
        assert np.where(fragile, 0, np.abs(got - wanted)).max(initial=0) <= EXACT, name
        half = replace(case, bases_type=np.float16, attention_type=np.float16, masks_type=np.float16)
        got, wanted = host(half).astype(np.float32), np.where(fragile, 0, oracle.masks(half.rounded()))
        assert error(np.where(fragile, 0, got), wanted, half) <= HALF, name


def test_the_oracle_is_like_adelaidet(reference: Path) -> None:
    for name, case, wanted, fragile in reference_cases(reference):
        assert np.where(fragile, 0, np.abs(oracle.masks(case) - wanted)).max(initial=0) <= EXACT, name


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 12),
    m=st.integers(1, 16),
    r=st.integers(1, 20),
    n=st.integers(1, 2),
    bases_hw=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    sampling_ratio=st.integers(1, 2),
    aligned=st.booleans(),
    nearest=st.booleans(),
    sigmoid=st.booleans(),
)
def test_like_the_oracle(host: Twin, seed: int, sigmoid: bool, **options: Any) -> None:
    case = random_case(seed, d=4, sigmoid=sigmoid, **options)
    bound = EXACT if sigmoid else EXACT * np.abs(case.bases).max(initial=1)
    assert error(host(case), oracle.masks(case), case) <= bound


@pytest.mark.parametrize("bases_hw", [(144, 144), (200, 336)])
def test_large_bases(host: Twin, bases_hw: tuple[int, int]) -> None:
    """Far from the origin float32 rounds where a sample lies, AdelaiDet's as ours; nothing else is lost."""
    case = random_case(0, m=14, r=56, d=20, bases_hw=bases_hw, sampling_ratio=2)
    got = host(case)
    assert error(got, oracle.masks(case, coordinates=np.float32), case) <= EXACT / 10
    steepest = max(np.abs(np.diff(case.bases, axis=axis)).max() for axis in (2, 3))
    assert error(got, oracle.masks(case), case) <= np.spacing(np.float32(max(bases_hw))) * steepest / 4  # sigmoid


@pytest.mark.parametrize("sampling_ratio", [1, 2])
@pytest.mark.parametrize("name", ODD_BOXES)
def test_odd_boxes(host: Twin, name: str, sampling_ratio: int) -> None:
    case = random_case(8, d=2, sampling_ratio=sampling_ratio)
    case = replace(case, boxes=np.tile(np.array(ODD_BOXES[name], np.float32), (1, 2, 1)))
    masks = host(case)
    assert np.isfinite(masks).all()
    assert ((masks >= 0) & (masks <= 1)).all()
    if name in NOWHERE:
        assert (masks == 0.5).all()
    elif np.abs(case.boxes).max() < 1e4:
        assert error(masks, oracle.masks(case), case) <= EXACT


@pytest.mark.parametrize(
    ("centre", "counts"), [(-2, True), (-2.001, False), (30 * 4 + 2, True), (30 * 4 + 2.001, False)]
)
def test_edges_to_the_letter(host: Twin, centre: float, counts: bool) -> None:
    """A sample at -1 and one at the size take the outermost pixel; beyond, it is 0."""
    bases, attention = np.full((1, 1, 30, 30), 3, np.float32), np.ones((1, 2, 1), np.float32)
    across, along = (centre - 2, 48, centre + 2, 52), (48, centre - 2, 52, centre + 2)
    case = Case(bases, np.array([[across, along]], np.float32), attention, 1, sigmoid=False)
    assert host(case).ravel().tolist() == [3.0 * counts] * 2


def test_what_does_not_count_is_not_multiplied(host: Twin) -> None:
    """Samples outside the bases are 0 though their taps name a pixel that is not finite."""
    case, spoiled = spoiled_at_the_edge()
    np.testing.assert_array_equal(host(spoiled), host(case))


def test_extreme_attention(host: Twin) -> None:
    case = random_case(9)
    case = replace(case, attention=case.attention * 2000)
    masks = host(case)
    assert np.isfinite(masks).all()
    rounding = np.spacing(np.float32(8 * 2000))  # of an interpolated attention, which the softmax passes on
    assert error(masks, oracle.masks(case), case) <= np.abs(case.bases).max() * rounding


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize(
    ("k", "m", "r", "sampling_ratio"), [(4, 14, 56, 1), (4, 7, 28, 2), (3, 12, 6, 1), (9, 3, 10, 1)]
)
def test_like_the_native_tail(host: Twin, k: int, m: int, r: int, sampling_ratio: int, nearest: bool) -> None:
    case = random_case(3, k, m, r, n=2, d=5, sampling_ratio=sampling_ratio, nearest=nearest, count=[5, 5])
    spec = replace(
        SPEC,
        num_bases=k,
        attention_size=m,
        mask_size=r,
        sampling_ratio=sampling_ratio,
        attention_interpolation="nearest" if nearest else "bilinear",
    )
    native = run_tail(case.bases, case.boxes, case.attention.reshape(10, -1), spec).reshape(2, 5, r, r)
    assert error(host(case), native, case) <= EXACT


@pytest.mark.parametrize("masks_type", [np.float16, np.uint8])
@pytest.mark.parametrize("inputs_type", [np.float32, np.float16])
def test_narrow_types(host: Twin, masks_type: Any, inputs_type: Any) -> None:
    types = {"bases_type": inputs_type, "attention_type": inputs_type, "masks_type": masks_type}
    case = random_case(4, m=14, r=56, d=40, **types)
    case = replace(case, bases=3 * case.bases).rounded()  # masks mostly know their mind
    got, wanted = host(case), oracle.masks(case)
    scale, half = (255, 127.5) if masks_type is np.uint8 else (1, 0.5)
    assert error(got / scale, wanted, case) <= (0.5 / 255 + EXACT if masks_type is np.uint8 else HALF)
    flipped = ((got >= half) != (wanted >= 0.5)) & ~oracle.decided_by_rounding(case)
    undecided = np.abs(wanted - 0.5) < 2.5e-4  # a float16 has nothing between 0.4998 and 0.5
    assert (flipped & ~undecided).sum() == 0
    assert flipped.mean() <= FLIPPED


def test_uint8_is_rounded_half_to_even(host: Twin) -> None:
    """Without a sigmoid, and with cells on pixels, a flat base is the mask."""
    levels = np.array([0, 0.5, 1.5, 2.5, 126.5, 254.5, 255, 300, -7], np.float32) / np.float32(255)
    for level in [*levels, np.nan]:
        case = Case(np.full((1, 1, 4, 4), level), np.array([[[0, 0, 16, 16]]]), np.ones((1, 1, 1)), 4)
        wanted = 0 if np.isnan(level) else np.clip(np.rint(np.float32(255) * level), 0, 255)
        assert (host(replace(case, sigmoid=False, masks_type=np.uint8)) == wanted).all()


@pytest.mark.parametrize("count", [-3, 0, 2, 9])
def test_empty_slots_are_zero(host: Twin, count: int) -> None:
    masks = host(random_case(6, d=4, count=[count]))
    filled = min(max(count, 0), 4)
    assert (masks[0, filled:] == 0).all()
    assert (masks[0, :filled] > 0).all()


@pytest.mark.parametrize(
    "mistake",
    [
        {"shift": 0.5},
        {"aligned": False},
        {"swap_xy": True},
        {"softmax_axis": 1},
        {"softmax_axis": 2},
        {"softmax_first": True},
        {"clip": True},
        {"attention_order": "yxk"},
        {"attention_order": "kxy"},
    ],
    ids=str,
)
def test_mistakes_would_be_noticed(host: Twin, mistake: dict[str, Any]) -> None:
    case = random_case(2)
    got = host(case)
    assert error(got, oracle.masks(case), case) <= EXACT
    assert error(got, oracle.masks(case, **mistake), case) > 1000 * EXACT


def patched_header(folder: Path, changes: dict[str, str]) -> Twin:
    """The host twin, made from another roi_align_blend_math.h."""
    plugins = folder / "plugins"
    (plugins / "tests").mkdir(parents=True)
    for name in ("roi_align_blend_math.h", "roi_align_blend_kernel.h", "tests/twin.h", "tests/host_twin.cpp"):
        (plugins / name).write_text((ROOT / "plugins" / name).read_text())
    header = plugins / "roi_align_blend_math.h"
    text = header.read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    header.write_text(text)
    include = f"-I{ROOT / 'plugins' / 'tests' / 'pretend_cuda'}"
    source, library = plugins / "tests" / "host_twin.cpp", folder / "twin.so"
    subprocess.run(["g++", "-std=c++17", "-O1", "-fPIC", "-shared", include, source, "-o", library], check=True)
    return Twin(library)


@pytest.mark.parametrize("sign", ["+", "-"])
def test_quick_device_functions_are_good_enough(tmp_path: Path, reference: Path, sign: str) -> None:
    """With __expf and __fdividef as wrong as CUDA's programming guide lets them be, in turns or all the same way."""
    ulp = "1.1920929e-7f"
    off = f"{sign} (n++ % 2 ? 1 : -1) * (2 + floorf(1.173f * fabsf(x))) * {ulp}"
    worst = f"static int n = 0; return expf(x) * (1.0f {off});"
    twin = patched_header(
        tmp_path, {"  return expf(x);": worst, "  return a / b;": f"  return a / b * (1.0f {sign} 2 * {ulp});"}
    )
    for name, case, wanted, fragile in reference_cases(reference):
        assert np.where(fragile, 0, np.abs(twin(case) - wanted)).max(initial=0) <= EXACT, name
    case = random_case(12, k=8, m=14, r=28, d=12)
    assert error(twin(case), oracle.masks(case), case) <= EXACT


@pytest.mark.parametrize(
    "change",
    [
        {"? 0.5f : 0.0f;\n  const float start": "? 0.0f : 0.5f;\n  const float start"},
        {"position >= -1.0f &&": "position >= 0.0f &&"},
        {"(static_cast<float>(sample) + 0.5f, span": "(static_cast<float>(sample), span"},
        {"    total += weight;\n": ""},
    ],
    ids=["aligned", "edge", "sample", "softmax"],
)
def test_a_wrong_header_would_be_noticed(tmp_path: Path, change: dict[str, str]) -> None:
    case = random_case(2, d=30)
    assert not error(patched_header(tmp_path, change)(case), oracle.masks(case), case) <= 1000 * EXACT


def test_structures_are_as_in_the_header(host: Twin) -> None:
    """ctypes and the compiler agree on the layout: a field in the wrong place would read as another value."""
    case = random_case(1, k=3, m=5, r=6, n=2, d=3, channels=4, masks_type=np.float16)
    assert ctypes.sizeof(case.params()) == 68
    assert error(host(case), oracle.masks(case), case) <= HALF
