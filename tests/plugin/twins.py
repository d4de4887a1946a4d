"""The twins of the plugin's kernel, built by plugins/tests/Makefile and called through ctypes.

`host`: plain loops over roi_align_blend_math.h. `pretend`: roi_align_blend_kernel.cu itself, compiled by g++ for a
device that is only pretended. `device`: the same by nvcc, for a GPU.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "plugins" / "tests"
BUILT = ROOT / "build" / "twins"
TYPES: list[Any] = [np.float32, np.float16, np.uint8]  # in the order of ElementType


class Geometry(ctypes.Structure):
    """BlendGeometry."""

    _fields_ = (
        ("num_bases", ctypes.c_int32),
        ("bases_h", ctypes.c_int32),
        ("bases_w", ctypes.c_int32),
        ("mask_size", ctypes.c_int32),
        ("attention_size", ctypes.c_int32),
        ("spatial_scale", ctypes.c_float),
        ("sampling_ratio", ctypes.c_int32),
        ("aligned", ctypes.c_bool),
        ("attention_interpolation", ctypes.c_int32),
        ("activation", ctypes.c_int32),
    )


class Params(ctypes.Structure):
    """RoiAlignBlendParams."""

    _fields_ = (
        ("geometry", Geometry),
        ("batch", ctypes.c_int32),
        ("detections", ctypes.c_int32),
        ("bases_type", ctypes.c_int32),
        ("bases_layout", ctypes.c_int32),
        ("bases_channels", ctypes.c_int32),
        ("attention_type", ctypes.c_int32),
        ("masks_type", ctypes.c_int32),
    )


@dataclass(frozen=True)
class Case:
    """One call: bases [N, K, Hb, Wb], boxes [N, D, 4], attention [N, D, K*M*M] as float32, count int32 [N]."""

    bases: Any
    boxes: Any
    attention: Any
    mask_size: int
    count: Any = None  # None: all slots are filled
    spatial_scale: float = 0.25
    sampling_ratio: int = 1
    aligned: bool = True
    nearest: bool = False
    sigmoid: bool = True
    bases_type: Any = np.float32
    attention_type: Any = np.float32
    masks_type: Any = np.float32
    channels: int = 0  # of a pixel, where the bases lie pixel by pixel; 0: plane by plane
    filled: Any = field(init=False)

    def __post_init__(self) -> None:
        everywhere = np.full(len(self.bases), self.boxes.shape[1], np.int32)
        object.__setattr__(self, "filled", everywhere if self.count is None else np.asarray(self.count, np.int32))

    @property
    def num_bases(self) -> int:
        return int(self.bases.shape[1])

    @property
    def attention_size(self) -> int:
        return round(float(np.sqrt(self.attention.shape[2] / self.num_bases)))

    def rounded(self) -> Case:
        """With values that the types of the inputs can hold."""
        bases, attention = self.bases.astype(self.bases_type), self.attention.astype(self.attention_type)
        return replace(self, bases=bases.astype(np.float32), attention=attention.astype(np.float32))

    def params(self) -> Params:
        h, w = self.bases.shape[2:]
        geometry = Geometry(
            *(self.num_bases, h, w, self.mask_size, self.attention_size, self.spatial_scale, self.sampling_ratio),
            *(self.aligned, int(self.nearest), int(not self.sigmoid)),
        )
        types = [TYPES.index(t) for t in (self.bases_type, self.attention_type, self.masks_type)]
        layout, channels = int(self.channels > 0), self.channels or self.num_bases
        return Params(geometry, len(self.bases), self.boxes.shape[1], types[0], layout, channels, types[1], types[2])

    def arrays(self) -> list[Any]:
        """Bases, boxes, attention and count as they lie in memory."""
        bases = self.bases
        if self.channels:  # slots beyond K hold what must not matter
            n, k, h, w = bases.shape
            bases = np.concatenate([bases, np.full((n, self.channels - k, h, w), np.nan)], axis=1).transpose(0, 2, 3, 1)
        arrays = [bases.astype(self.bases_type), self.boxes.astype(np.float32)]
        arrays += [self.attention.astype(self.attention_type), self.filled]
        return [np.ascontiguousarray(a) for a in arrays]

    def empty_masks(self) -> Any:
        return np.full((*self.boxes.shape[:2], self.mask_size, self.mask_size), 77, self.masks_type)

    def file(self, path: Path) -> Path:
        """What plugins/tests/run_case.cpp reads."""
        path.write_bytes(bytes(self.params()) + b"".join(a.tobytes() for a in self.arrays()))
        return path


def build(what: str, folder: Path = BUILT) -> Path:
    """Make `what` of plugins/tests/Makefile in `folder`; without a compiler the test fails, and does not skip."""
    if shutil.which("make") is None or (what != "device" and shutil.which(os.environ.get("CXX", "g++")) is None):
        pytest.fail("The kernel's twins need make and g++: install build-essential.")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # several workers may want it
        fcntl.flock(lock, fcntl.LOCK_EX)
        alone = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        command = ["make", "-C", str(SOURCES), what, f"TWINS={folder}"]
        made = subprocess.run(command, capture_output=True, text=True, check=False, env=alone)
    assert made.returncode == 0, made.stderr
    return folder


class Twin:
    """A twin's library."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))

    def __call__(self, case: Case) -> Any:
        """Masks [N, D, R, R]."""
        masks = case.empty_masks()
        self.call("blend", case, *case.arrays(), masks)
        return masks

    def call(self, function: str, case: Case, *arguments: Any) -> None:
        pointers = [a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else a for a in arguments]
        error = getattr(self.library, function)(ctypes.byref(case.params()), *pointers)
        assert error == 0, f"{function}: CUDA error {error}"

    def coordinates(self, case: Case) -> Any:
        """The samples' taps [D, R, 2, sampling_ratio, 4] of the first image's boxes, as bits."""
        taps = np.zeros((case.boxes.shape[1], case.mask_size, 2, case.sampling_ratio, 4), np.int32)
        self.call("coordinates", case, np.ascontiguousarray(case.boxes[0], np.float32), taps)
        return taps

    def refusal(self, params: Params) -> str | None:
        self.library.refusal.restype = ctypes.c_char_p
        sentence = self.library.refusal(ctypes.byref(params))
        return None if sentence is None else str(sentence.decode())


def host_twin() -> Twin:
    return Twin(build("host") / "libhost.so")


def pretend_twin() -> Twin:
    return Twin(build("pretend") / "libpretend.so")


def device_twin() -> Twin:
    return Twin(build("device") / "libdevice.so")
