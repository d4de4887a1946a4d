"""What becomes of results: video that survives a power cut, JSON lines, a folder of pictures, MQTT, a window."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trt_blendmask.errors import UsageError
from trt_blendmask.files import check_outputs
from trt_blendmask.runtime.controls import Controls
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.recording.broker import Broker
from trt_blendmask.runtime.recording.lines import MASKS, STANDARD_OUTPUT, JsonLines
from trt_blendmask.runtime.recording.mqtt import Mqtt
from trt_blendmask.runtime.recording.pictures import FORMATS, Pictures
from trt_blendmask.runtime.recording.recorder import Recorder
from trt_blendmask.runtime.recording.switched import Switched
from trt_blendmask.runtime.recording.video import check_video_name
from trt_blendmask.runtime.sinks import OfOneSource, Sink, Sinks
from trt_blendmask.runtime.sources import Source
from trt_blendmask.runtime.window import Window

ON_FULL = ("stop-output", "exit")


@dataclass(frozen=True)
class Recording:
    """What is kept of a run.

    Attributes:
        save: overlay video, .mp4 or .mkv. json: a file with one line per frame; "-" is standard output.
        frames: folder for one overlay picture per frame.
        json_masks: "rle", "polygons" or "none", in these and in MQTT messages. picture_format: "jpg" or "png".
        segment_s: begin a new video after so many seconds; the name then has the time in it.
        keep_bytes: delete this recording's oldest segments where all are larger than that.
        mqtt: broker that gets a message per frame, and events. show: results in a window.
        on_full: "stop-output" goes on without an output that fails, "exit" ends the run.
    """

    save: Path | None = None
    json: Path | None = None
    frames: Path | None = None
    json_masks: str = "rle"
    picture_format: str = "jpg"
    segment_s: float | None = None
    keep_bytes: int | None = None
    on_full: str = ON_FULL[0]
    mqtt: Broker | None = None
    show: bool = False

    def __post_init__(self) -> None:
        for value, allowed, what in (
            (self.json_masks, MASKS, "Masks in JSON lines"),
            (self.picture_format, FORMATS, "Pictures of frames"),
            (self.on_full, ON_FULL, "What happens when a disk is full"),
        ):
            if value not in allowed:
                raise UsageError(f"{what} must be one of {', '.join(allowed)}, got '{value}'.")
        if self.save is not None:
            check_video_name(self.save)
        if self.segment_s is not None and self.save is None:
            raise UsageError("Segments are of a video: add --save F.mp4.")
        if self.keep_bytes is not None and self.segment_s is None:
            raise UsageError("Only segments can be deleted to make room: add --segment 10m.")

    def check(self, model: str | os.PathLike[str], source: str | os.PathLike[str]) -> None:
        """Refuse, before any work, to write over an input or two outputs into one file.

        Raises:
            UsageError: that would happen.
        """
        outputs = [self.save, None if self.json == STANDARD_OUTPUT else self.json, self.frames]
        inputs = [model, source]
        if Path(source).suffix.lower() == f".{self.picture_format}":
            inputs.append(Path(source).parent)  # its pictures have the names that ours get, if they were ours
        check_outputs([path for path in outputs if path is not None], inputs)

    def parts(self, sources: int) -> list[Recording]:
        """What is kept of each of several sources: videos belt-1.mp4, belt-2.mp4, ... and folders frames/1, frames/2;
        the JSON lines are those of all."""
        if sources == 1:
            return [self]
        numbers = range(1, sources + 1)
        saves = [self.save and self.save.with_stem(f"{self.save.stem}-{number}") for number in numbers]
        folders = [self.frames and self.frames / str(number) for number in numbers]
        return [replace(self, save=save, frames=frames) for save, frames in zip(saves, folders, strict=True)]

    def open(self, events: Events, sources: Sequence[Source], controls: Controls, more: Iterable[Sink] = ()) -> Sinks:
        """The sinks and after them `more`; `controls` switch videos off and on. No file is touched before the first
        frame.

        Raises:
            OutputError: not one of them has a place to write to.
            SourceUnavailableError: a library that one of them needs is not installed, or there is no screen.
        """
        parts = list(enumerate(zip(self.parts(len(sources)), sources, strict=True)))
        sinks: list[Sink] = [
            OfOneSource(
                Switched(Recorder(part.save, source.fps, events, self.segment_s, self.keep_bytes), controls, events),
                number,
            )
            for number, (part, source) in parts
            if part.save is not None
        ]
        if self.json is not None:
            sinks.append(JsonLines(self.json, self.json_masks))
        sinks += [
            OfOneSource(Pictures(part.frames, self.picture_format), number)
            for number, (part, _) in parts
            if part.frames is not None
        ]
        if self.show:
            sinks.append(Window(controls, events))
        if self.mqtt is not None:
            sinks.append(Mqtt(self.mqtt, self.json_masks, events, waits=not any(source.live for source in sources)))
        return Sinks([*sinks, *more], events, self.on_full == "exit")
