"""What one frame came to: the item that the sinks get."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from trt_blendmask.runtime.overlay import FILL, draw, outlines
from trt_blendmask.runtime.sources import SourceState
from trt_blendmask.structures import F32, U8, Detections, Frame


@dataclass(frozen=True)
class FrameResult:
    """One frame and what was found in it.

    Attributes:
        frame: as it was captured.
        detections: in its pixels.
        source: how its source was doing when the frame was done.
        stage_ms: milliseconds that this frame spent in each stage.
        paste, colour_by, opacity: how `picture` is drawn, see `trt_blendmask.runtime.overlay`.
        source_number: which of the run's sources it is of, from 0 on.
        taken_s: `time.monotonic` when work on it began.
        broken: whether the network gave something that is no number, which is left out.
    """

    frame: Frame
    detections: Detections
    source: SourceState
    stage_ms: dict[str, float] = field(default_factory=dict)
    paste: str = "exact"
    colour_by: str = "class"
    opacity: float = FILL
    source_number: int = 0
    taken_s: float = 0.0
    broken: bool = False

    @cached_property
    def outlined(self) -> list[list[F32]]:
        """The contours of each object's mask in the frame, as `trt_blendmask.runtime.overlay.outlines` gives them."""
        return outlines(self.detections, self.paste)

    @cached_property
    def picture(self) -> U8:
        """uint8 [H, W, 3] BGR: the frame with the overlay, drawn when it is first asked for; do not draw on it."""
        image = self.frame.image.copy()
        draw(image, self.detections, self.outlined, self.colour_by, opacity=self.opacity)
        return image
