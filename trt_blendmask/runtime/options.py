"""What a run looks at, and what it does when the machine is too slow."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace

import numpy as np

from trt_blendmask.errors import UsageError
from trt_blendmask.structures import U8, Detections


@dataclass(frozen=True)
class RunOptions:
    """Of `trt_blendmask.runtime.pipeline.run`.

    Attributes:
        every: look at one frame in so many; the others are not in the outputs.
        roi: (x, y, width, height): look only at this part of each frame, in its pixels; what is found stays in the
            pixels of the whole frame.
        classes: keep only detections of these, by name; None: of all.
        deadline_s: a live frame's results are to be out so many seconds after it was captured. Held by dropping
            frames that would come too late, then by keeping only the best detections, then by `fallback`.
        fallback: a smaller model of the same classes, deployable ONNX or engine.
        track: number the objects, the same one in each frame; needs the package trackers.
        hung_s: where a frame stays for so long, something hangs: the network, which ends the run, or an output.
    """

    every: int = 1
    roi: tuple[int, int, int, int] | None = None
    classes: tuple[str, ...] | None = None
    deadline_s: float | None = None
    fallback: str | os.PathLike[str] | None = None
    track: bool = False
    hung_s: float = 10.0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"Expected to look at one frame in 1 or more, got {self.every}: --every 1")
        if self.roi is not None and (min(self.roi[:2]) < 0 or min(self.roi[2:]) < 1):
            raise UsageError(f"Expected a part of the frame as x,y,w,h with w and h above 0, got {self.roi}.")
        if self.classes is not None and not self.classes:
            raise UsageError("Expected one class or more to look for, got none: leave out --classes to find all.")
        if self.fallback is not None and self.deadline_s is None:
            raise UsageError("Expected a deadline for the fallback, got none: add --deadline 50ms")

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Refuse what the model does not know.

        Raises:
            UsageError: one of `classes` is not in `class_names`.
        """
        for name in self.classes or ():
            if name not in class_names:
                near = difflib.get_close_matches(name, class_names, 1)
                hint = f"; did you mean '{near[0]}'?" if near else "."
                known = ", ".join(class_names[:12]) + (", ..." if len(class_names) > 12 else "")
                raise UsageError(f"Expected classes of the model ({known}), got '{name:.80}'{hint}")

    def check_live(self, live: bool) -> None:
        """Refuse a deadline for a source that is not live.

        Raises:
            UsageError: that is so.
        """
        if self.deadline_s is not None and not live:
            raise UsageError(
                "Expected a live source for a deadline, got a recording, of which no frame is ever dropped: leave out "
                "--deadline."
            )

    def crop(self, image: U8) -> U8:
        """The part of `image` [H, W, 3] to look at.

        Raises:
            UsageError: it is outside.
        """
        if self.roi is None:
            return image
        x, y, width, height = self.roi
        part = image[y : y + height, x : x + width]
        if part.size == 0:
            frame = f"{image.shape[1]} x {image.shape[0]}"
            raise UsageError(
                f"Expected --roi x,y,w,h within the frame of {frame} pixels, got {x},{y},{width},{height}."
            )
        return np.ascontiguousarray(part)

    def uncrop(self, found: Detections, frame_wh: tuple[int, int]) -> Detections:
        """What was found in `crop`, in the pixels of the whole frame."""
        if self.roi is None:
            return found
        x, y = self.roi[:2]
        return replace(found, xyxy=found.xyxy + np.array([x, y, x, y], np.float32), frame_wh=frame_wh)
