"""A clock that only moves when told to, and sessions that take as long by it as a test wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.cuda.fake_engine import IMAGES, OUTPUTS, SPEC
from trt_blendmask.backends.lane import FrameTimes
from trt_blendmask.backends.tensorrt import TensorRtSession
from trt_blendmask.profiler import times
from trt_blendmask.profiler.times import Runner
from trt_blendmask.runtime.model import Model
from trt_blendmask.structures import U8, ModelSpec, TensorSpec

Seconds = Callable[[int], float]  # of the n-th frame of a session


def find(images: Any) -> dict[str, Any]:
    """As many objects as the first byte says, of 10 x 10 pixels in rows of 7, of two classes in turn."""
    count, slots = int(images[0, 0, 0, 0]), np.arange(100)
    corners = np.stack([slots % 7, slots // 7], axis=1) * 12.0
    filled = slots < count
    return {
        "count": np.array([count], np.int32),
        "boxes": (np.concatenate([corners, corners + 10], axis=1) * filled[:, None]).astype(np.float32)[None],
        "scores": (filled * (0.95 - 0.001 * slots)).astype(np.float32)[None],
        "classes": np.where(filled, slots % 2, -1).astype(np.int32)[None],
        "masks": np.broadcast_to(filled[:, None, None], (100, 8, 8)).astype(np.float32)[None],
    }


class Clock:
    """Seconds, in place of `time` in the module that times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(times, "time", SimpleNamespace(perf_counter=lambda: self.now))


class Session:
    """`trt_blendmask.backends.Session`: takes `seconds(n)` for its n-th frame, and finds what `finds` says.

    Attributes:
        frames: how many it has run. order: shared by sessions, the path of each frame's session.
        raises: what the next frame raises, None: nothing.
    """

    inputs: tuple[TensorSpec, ...] = (IMAGES,)
    outputs: tuple[TensorSpec, ...] = OUTPUTS
    how = "a double"
    abreast = 1

    def __init__(
        self,
        clock: Clock,
        seconds: Seconds,
        path: Path = Path("model.onnx"),
        spec: ModelSpec = SPEC,
        finds: Callable[[Any], dict[str, Any]] = find,
        order: list[str] | None = None,
    ) -> None:
        self.path, self.metadata = path, spec.to_json()
        self._clock, self._seconds, self._finds = clock, seconds, finds
        self.order = [] if order is None else order
        self.frames = 0
        self.raises: BaseException | None = None

    def input_buffer(self) -> Any:
        return np.zeros(IMAGES.shape, np.uint8)

    def run(self, images: Any) -> dict[str, Any]:
        if self.raises is not None:
            raise self.raises
        self._clock.now += self._seconds(self.frames)
        self.frames += 1
        self.order.append(str(self.path))
        return self._finds(images)

    def twin(self) -> Session:
        return self

    def close(self) -> None:
        pass


class GpuSession(Session, TensorRtSession):  # which it is for who asks; all that it does is a double's
    """One that tells how long the parts of a frame take; frames of their own, three times as long together."""

    def times(self) -> FrameTimes:
        self._clock.now += 3 * self._seconds(self.frames)
        return FrameTimes(upload=0.5, compute=4.0, download=0.25, launch=0.125, frame=4.75)


def runner(label: str, session: Session) -> Runner:
    return Runner(label, Model(session, ModelSpec.from_json(session.metadata)), session)


def pictures(count: int = 4) -> list[U8]:
    """In which `find` finds some objects more each time."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(count)]
    for k, image in enumerate(images):
        image[0, 0] = 7 + k
    return images
