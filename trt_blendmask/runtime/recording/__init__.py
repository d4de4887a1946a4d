"""What becomes of results: video that survives a power cut, JSON lines, a folder of pictures, MQTT, a window."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from trt_blendmask.errors import UsageError
from trt_blendmask.files import check_outputs
from trt_blendmask.runtime.controls import Controls
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.recording import segments
from trt_blendmask.runtime.recording.broker import Broker
from trt_blendmask.runtime.recording.lines import MASKS, STANDARD_OUTPUT, JsonLines
from trt_blendmask.runtime.recording.mqtt import Mqtt
from trt_blendmask.runtime.recording.pictures import FORMATS, Pictures
from trt_blendmask.runtime.recording.recorder import Recorder
from trt_blendmask.runtime.recording.switched import Switched
from trt_blendmask.runtime.recording.video import check_video_name
from trt_blendmask.runtime.sinks import OfOneSource, Sink, Sinks
from trt_blendmask.runtime.sources import Source
from trt_blendmask.runtime.sources.grammar import fitting, is_pattern, parse
from trt_blendmask.runtime.window import Window

ON_FULL = ("stop-output", "exit")
_ADDRESS = r"((?:gst|https?|mqtts?|rtsps?):|[A-Za-z][\w+.-]+:(?=/))"  # one slash: a path has made it of two


@dataclass(frozen=True)
class Recording:
    """What is kept of a run.

    Attributes:
        save: overlay video, .mp4 or .mkv. json: a file with one line per frame; "-" is standard output.
        frames: folder for one overlay picture per frame.
        json_masks: "rle", "polygons" or "none", in these and in MQTT messages. picture_format: "jpg" or "png".
        segment_s: begin a new video after so many seconds; the name then has the time in it.
        keep_bytes: delete this recording's oldest segments where all, those of several sources together, are larger
            than that.
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
        for value, allowed, option in (
            (self.json_masks, MASKS, "--json-masks"),
            (self.picture_format, FORMATS, "--frames-format"),
            (self.on_full, ON_FULL, "--on-full"),
        ):
            if value not in allowed:
                raise UsageError(f"Expected {option} {' or '.join(allowed)}, got '{value}': {option} {allowed[0]}")
        if self.save is not None:
            check_video_name(self.save)
        if self.segment_s is not None and self.save is None:
            raise UsageError("Expected a video for segments, got none: add --save F.mp4")
        if self.keep_bytes is not None and self.segment_s is None:
            raise UsageError("Expected segments, the oldest to be deleted to make room, got none: add --segment 10m")

    def check(self, models: Iterable[str | os.PathLike[str]], source: str | os.PathLike[str]) -> None:
        """Refuse, before any work, to write over an input or two outputs into one file, to delete the source to make
        room, and an address in the place of a file.

        Raises:
            UsageError: that would happen.
        """
        named = [self.save, None if self.json == STANDARD_OUTPUT else self.json, self.frames]
        outputs, inputs = [path for path in named if path is not None], [*models, source]
        for path in outputs:
            if address := re.match(_ADDRESS, str(path)):
                raise UsageError(
                    f"Expected a file or folder to write to, got an address that begins with '{address[1]}': a "
                    "broker is named with --mqtt, a camera as SOURCE."
                )
        if _may_be_ours(os.fspath(source), self.picture_format):
            inputs += [folder for folder in fitting(os.fspath(Path(source).parent)) if folder.is_dir()]
        check_outputs(outputs, inputs)
        if self.save is not None and self.keep_bytes is not None:
            with suppress(OSError):  # there is no such folder yet, or it may not be read
                if os.path.realpath(source) in map(os.path.realpath, segments.segments(self.save)):
                    raise UsageError(
                        f"The source '{source}' is a segment of the recording '{self.save}', which --keep deletes to "
                        "make room: give --save another name."
                    )

    def parts(self, sources: int) -> list[Recording]:
        """What is kept of each of several sources: videos belt-1.mp4, belt-2.mp4, ... and folders frames/1, frames/2;
        the JSON lines are those of all. Each may keep its share of `keep_bytes`."""
        if sources == 1:
            return [self]
        numbers = range(1, sources + 1)
        saves = [self.save and self.save.with_stem(f"{self.save.stem}-{number}") for number in numbers]
        folders = [self.frames and self.frames / str(number) for number in numbers]
        keep_bytes = self.keep_bytes and self.keep_bytes // sources
        return [
            replace(self, save=save, frames=frames, keep_bytes=keep_bytes)
            for save, frames in zip(saves, folders, strict=True)
        ]

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
                Switched(
                    Recorder(part.save, partial(getattr, source, "fps"), events, self.segment_s, self.keep_bytes),
                    controls,
                    events,
                ),
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
            sinks.append(Mqtt(self.mqtt, self.json_masks, events, lambda: not any(source.live for source in sources)))
        return Sinks([*sinks, *more], events, self.on_full == "exit")


def _may_be_ours(source: str, picture_format: str) -> bool:
    """Whether the pictures of this source may have the names that ours get."""
    suffix = Path(source).suffix.lower()
    if parse(source).kind != "pictures":  # an address may have a question mark, too
        return False
    return suffix == f".{picture_format}" or (is_pattern(source) and not suffix[1:].isalnum())
