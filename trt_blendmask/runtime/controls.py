"""What a person may change while frames run; whoever works on a frame asks for it anew."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from trt_blendmask.errors import UsageError
from trt_blendmask.runtime.overlay import FILL
from trt_blendmask.structures import Detections


@dataclass(frozen=True)
class Settings:
    """How the next frame is treated.

    Attributes:
        score: leave out what scores less, 0 to 1.
        classes: names of those that are kept; None: all.
        opacity: of the masks, 0 to 1.
        paused: no frame is taken from the source.
        recording: whether the overlay video gets the frame, where one is written at all.
    """

    score: float = 0.0
    classes: tuple[str, ...] | None = None
    opacity: float = FILL
    paused: bool = False
    recording: bool = True

    def keep(self, found: Detections) -> Detections:
        """What of `found` scores enough and is of the wanted classes."""
        wanted = found.scores >= self.score
        if self.classes is not None:
            indices = [i for i, name in enumerate(found.class_names) if name in self.classes]
            wanted &= np.isin(found.classes, indices)
        return found.keep(wanted)


class Controls:
    """The settings, changed by some threads and read by others.

    Attributes:
        class_names: of the model, once it is loaded: what `classes` may name.
        stop_asked: whether somebody wants the run to end.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.class_names: tuple[str, ...] = ()
        self.stop_asked = False
        self._lock = threading.Lock()
        self._settings = settings or Settings()
        self._running = threading.Event()
        self._running.set()

    @property
    def settings(self) -> Settings:
        return self._settings  # one reference, replaced as a whole: nobody sees half a change

    def change(self, wishes: Mapping[str, Any]) -> Settings:
        """Change what `wishes` names, all of it or nothing; the settings afterwards.

        Raises:
            UsageError: an unknown name or a value out of range.
        """
        with self._lock:
            if unknown := sorted(set(wishes) - set(asdict(self._settings))):
                raise UsageError(f"Expected {', '.join(asdict(self._settings))}, got {str(unknown[0])[:40]!r}.")
            self._settings = replace(self._settings, **{name: self._checked(name, wishes[name]) for name in wishes})
            if self._settings.paused:
                self._running.clear()
            else:
                self._running.set()
            return self._settings

    def ask_to_stop(self) -> None:
        """End the run as the first Ctrl-C does."""
        self.stop_asked = True

    def wait_while_paused(self, seconds: float) -> bool:
        """Wait for the end of a pause, at most so long; whether frames are to run."""
        return self._running.wait(seconds)

    def _checked(self, name: str, value: Any) -> Any:
        if name in ("paused", "recording"):
            if isinstance(value, bool):
                return value
            raise UsageError(f"Expected true or false for '{name}', got {value!r:.40}.")
        if name == "classes":
            return self._checked_classes(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:  # NaN is not
            return float(value)
        raise UsageError(f"Expected a number from 0 to 1 for '{name}', got {value!r:.40}.")

    def _checked_classes(self, value: Any) -> tuple[str, ...] | None:
        if value is None:
            return None
        if isinstance(value, (list, tuple)) and all(
            isinstance(name, str) and name in self.class_names for name in value
        ):
            return tuple(name for name in self.class_names if name in value)
        raise UsageError(f"Expected a list of this model's class names, or null for all, got {value!r:.40}.")
