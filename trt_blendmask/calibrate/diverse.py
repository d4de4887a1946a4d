"""Which of many pictures differ most: a small descriptor of each, and again and again the farthest from those chosen.

The descriptor is what a person sees at a glance: 12 x 8 cells, in each the mean colour and how much edge there is. An
empty belt looks the same in every frame however its texture moves, so one or two of its frames are chosen and then none
before everything else has been.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from trt_blendmask.structures import U8

CELLS_WH = (12, 8)
SAME = 3.0  # grey levels, root mean square: two frames of a belt that differ by less show the same parts
MOST_CANDIDATES = 20_000


def describe(image: U8) -> npt.NDArray[np.uint8]:
    """Descriptor of a picture, uint8 [384]: of the cells the mean B, G, R and the mean strength of edges."""
    small = cv2.resize(image, (16 * CELLS_WH[0], 16 * CELLS_WH[1]), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    edges = cv2.convertScaleAbs(cv2.Laplacian(grey, cv2.CV_16S))
    cells = cv2.resize(cv2.merge((small, edges)), CELLS_WH, interpolation=cv2.INTER_AREA)
    return np.asarray(cells, np.uint8).reshape(-1)


def farthest(descriptors: npt.NDArray[np.uint8], n: int, at_least: int) -> list[int]:
    """Rows of `descriptors` (uint8 [pictures, values]), at most `n` of them, the one farthest from the mean first.

    Stops where what is left differs from a chosen one by less than `SAME`, but not before `at_least`. Whole numbers
    throughout: the same rows on any machine.
    """
    points = descriptors.astype(np.float64)
    squares = (points * points).sum(axis=1)
    start = np.rint(points.mean(axis=0))
    distance = squares - 2 * (points @ start) + start @ start  # to the nearest chosen one; first to the mean
    chosen: list[int] = []
    while len(chosen) < min(n, len(points)):
        row = int(distance.argmax())
        if len(chosen) >= at_least and distance[row] < SAME**2 * points.shape[1]:
            break
        chosen.append(row)
        from_row = squares - 2 * (points @ points[row]) + squares[row]
        distance = from_row if len(chosen) == 1 else np.minimum(distance, from_row)
        distance[row] = -1
    return chosen
