"""A frame into the network's input: scaled to fit, anchored top-left, padded with the mean colour."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from trt_blendmask.structures import U8, Letterbox, ModelSpec


class Letterboxer:
    """Writes frame after frame into one input buffer.

    Enlarging is bilinear, which agrees with AdelaiDet's PIL bilinear within one grey level; shrinking is area
    averaging, because PIL's bilinear averages too when it shrinks and OpenCV's does not. Of the fast resizers it comes
    closest (mean difference at a factor of 2: 1.4 grey levels against 4.7 for plain bilinear).
    """

    def __init__(self, spec: ModelSpec, buffer: npt.NDArray[Any] | None = None) -> None:
        """`buffer`: memory of the network's input to write into, default our own."""
        height, width = spec.input_hw
        self._input_hw = spec.input_hw
        self._mean = np.array(spec.pixel_mean, dtype=np.float32)
        self._std = np.array(spec.pixel_std, dtype=np.float32)
        self._scaled_wh: tuple[int, int] | None = None  # of the picture that is in the buffer, where that is known
        self._float = spec.input_dtype == "float32"
        shape = (1, 3, height, width) if self._float else (1, height, width, 3)
        self._buffer = np.zeros(shape, np.float32 if self._float else np.uint8) if buffer is None else buffer
        self._canvas: U8 = np.empty((height, width, 3), dtype=np.uint8) if self._float else self._buffer[0]

    def __call__(self, image: U8) -> tuple[npt.NDArray[Any], Letterbox]:
        """Fill the buffer with `image` (uint8 [H, W, 3] BGR).

        Returns:
            The buffer, valid until the next call: uint8 [1, H, W, 3] BGR, or float32 [1, 3, H, W] normalised, as the
            model takes it; and the map from its pixels to the frame's.
        """
        box = Letterbox((image.shape[1], image.shape[0]), self._input_hw)
        self._pad_for(box.scaled_wh)
        width, height = box.scaled_wh
        target = self._canvas[:height, :width]
        target[:] = resize(image, box.scaled_wh)
        if self._float:
            normalised = (target.astype(np.float32) - self._mean) / self._std
            self._buffer[0, :, :height, :width] = normalised.transpose(2, 0, 1)
        return self._buffer, box

    def blank(self) -> None:
        """No picture, only padding; costs nothing where that is so already."""
        self._pad_for((0, 0))

    def forget(self) -> None:
        """Others wrote into the buffer: the next frame pads it anew."""
        self._scaled_wh = None

    def _pad_for(self, scaled_wh: tuple[int, int]) -> None:
        if scaled_wh != self._scaled_wh:
            self._scaled_wh = scaled_wh
            self._canvas[:] = np.rint(self._mean).astype(np.uint8)
            if self._float:
                self._buffer[:] = 0  # exactly what normalising the exact mean gives


def resize(image: U8, wh: tuple[int, int]) -> U8:
    """`image` at the size `wh`, the same array where it has that size already."""
    if (image.shape[1], image.shape[0]) == wh:
        return image
    shrinks = wh[0] < image.shape[1] or wh[1] < image.shape[0]
    return np.asarray(cv2.resize(image, wh, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8)
