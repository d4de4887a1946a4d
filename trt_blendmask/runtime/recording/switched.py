"""A video that a person switches off and on while frames run."""

from __future__ import annotations

from pathlib import Path

from trt_blendmask.runtime.controls import Controls
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.recording.recorder import Recorder
from trt_blendmask.runtime.result import FrameResult


class Switched:
    """Finishes the file when recording is switched off; the next frame after that begins another part."""

    def __init__(self, recorder: Recorder, controls: Controls, events: Events) -> None:
        self._recorder, self._controls, self._events = recorder, controls, events
        self._was_on = True
        self.name = recorder.name

    @property
    def draws(self) -> bool:
        return self._controls.settings.recording

    @property
    def written(self) -> list[Path]:
        return self._recorder.written

    def check(self) -> None:
        self._recorder.check()

    def write(self, result: FrameResult) -> None:
        was_on, self._was_on = self._was_on, self._controls.settings.recording
        if was_on and not self._was_on:
            self._recorder.close()
        if self._was_on:
            self._recorder.write(result)
        if was_on != self._was_on:
            kind, words = ("recording_started", "recording") if self._was_on else ("recording_stopped", "not recording")
            last = self.written[-1] if self.written else self.name
            self._events.publish(kind, f"{self.name}: {words}, by the preview page", {"output": str(last)})

    def close(self) -> None:
        self._recorder.close()
