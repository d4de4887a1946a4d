"""Numbers that stay with an object from frame to frame: ByteTrack, of the package trackers."""

from __future__ import annotations

import numpy as np

from trt_blendmask.errors import UsageError
from trt_blendmask.structures import I32, Detections

_LEAST_SCORE = 0.5  # what scores less is followed where it was seen before, but begins no track


def check_tracking() -> None:
    """Refuse to track without the package for it.

    Raises:
        UsageError: the package trackers is not installed.
    """
    try:
        import supervision  # noqa: F401
        import trackers  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "Expected the package trackers for --track, and it is not installed: pip install 'trt-blendmask[track]'"
        ) from error


class Tracking:
    """The tracks of one source; to be given its frames in order."""

    def __init__(self, fps: float) -> None:
        """For so many frames a second."""
        import supervision
        from trackers import ByteTrackTracker

        self._boxes, self._wh = supervision.Detections, (0, 0)
        self._tracker = ByteTrackTracker(
            frame_rate=fps, track_activation_threshold=_LEAST_SCORE, high_conf_det_threshold=_LEAST_SCORE
        )

    def ids(self, found: Detections, time_s: float) -> I32:
        """A number >= 0 for each that is followed, int32 [n]; -1 for one that was not seen often enough yet."""
        if found.frame_wh != self._wh:  # their boxes are of another picture; the numbers go on
            self._tracker.tracks.clear()
            self._wh = found.frame_wh
        ids = np.full(len(found), -1, np.int32)
        boxes = self._boxes(found.xyxy, None, found.scores, found.classes, data={"rank": np.arange(len(found))})
        tracked = self._tracker.update(boxes, timestamp=time_s)
        if len(tracked):  # in an order of its own
            ids[tracked.data["rank"]] = tracked.tracker_id
        return ids
