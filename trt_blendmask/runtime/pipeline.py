"""`run`: sources through the model into videos and JSON lines. `predict` (pictures) is in `predict.py`.

reader per source      network threads                          sink thread   thread per output
decode ──▶ Frame ────▶ crop ─▶ letterbox ─▶ network ─▶ Detections ──▶ overlay ─▶ encode, JSON lines, ...

Several frames are in the network at a time, each on few cores: threads that share one small network wait for each other
more than they work as soon as the decoder and the encoder want the cores, too. What waits, waits in `flow`; the main
thread only looks at the clock: see `job`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from trt_blendmask.backends.onnxruntime import available_cores
from trt_blendmask.errors import SourceUnavailableError, UsageError
from trt_blendmask.layout import counted
from trt_blendmask.runtime.choice import GpuOptions, model_files
from trt_blendmask.runtime.controls import Controls, Settings
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.job import Job
from trt_blendmask.runtime.model import Model, load
from trt_blendmask.runtime.options import RunOptions
from trt_blendmask.runtime.overlay import check_choices
from trt_blendmask.runtime.preview import Preview, Serving
from trt_blendmask.runtime.progress import spell
from trt_blendmask.runtime.recording import Recording
from trt_blendmask.runtime.recording.switched import Switched
from trt_blendmask.runtime.sinks import Sinks
from trt_blendmask.runtime.sources import LiveOptions, Source, open_source
from trt_blendmask.runtime.stop import StopSignals
from trt_blendmask.runtime.tracking import check_tracking

_MOST_NAMES = 6  # of outputs in a summary
MAX_ABREAST = 4  # frames in the network at a time; each needs its own activations


@dataclass(frozen=True)
class RunReport:
    """What a run did.

    Attributes:
        frames, detections: how many went through, how many instances were found.
        seconds: wall time from the first frame's decoding to the last frame's writing.
        stage_ms: mean milliseconds per frame of each stage; stages overlap, so their sum may exceed 1000 / fps.
        corrupt: frames that were damaged: shown as far as they could be decoded, or left out.
        dropped: frames of a live source that made place for newer ones.
        stopped: True where Ctrl-C ended it early.
        outputs: the files and folders that were written.
        failures: why outputs were stopped before the end, a sentence each.
        how: what ran the network and why, in words.
        age_ms: of live frames, from capture to the end of their writing: the median and the 99th percentile.
        broken: frames for which the network gave something that is no number.
        cut_short: which recordings were over before their own end, a sentence each.
    """

    frames: int
    detections: int
    seconds: float
    stage_ms: dict[str, float]
    corrupt: int
    stopped: bool
    outputs: tuple[Path, ...] = ()
    how: str = ""
    dropped: int = 0
    failures: tuple[str, ...] = ()
    age_ms: tuple[float, float] | None = None
    broken: int = 0
    cut_short: tuple[str, ...] = ()

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def summary(self) -> str:
        """One line for a person."""
        stages = f" ({spell(self.stage_ms)})" if self.stage_ms else ""
        text = f"{counted(self.frames, 'frame')} in {self.seconds:.1f} s, {self.fps:.1f} FPS{stages}"
        text += f", {counted(self.detections, 'detection')}"
        text += f", {self.age_ms[0]:.0f} ms old (99 %: {self.age_ms[1]:.0f})" if self.age_ms else ""
        text += f", {counted(self.corrupt, 'corrupt frame')}" if self.corrupt else ""
        text += f", {self.dropped} dropped for newer ones" if self.dropped else ""
        text += f", {self.broken} with outputs that are no numbers" if self.broken else ""
        text += f", sources ended early: {len(self.cut_short)}" if self.cut_short else ""
        text += ", stopped early" if self.stopped else ""
        text += f", outputs stopped by errors: {len(self.failures)}" if self.failures else ""
        names = [str(path) for path in self.outputs]
        if len(names) > _MOST_NAMES:
            names[2:-1] = [f"{len(names) - 3} more"]
        return text + (f": wrote {', '.join(names)}" if names else "")


def run(
    model: str | os.PathLike[str],
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    save: Path | None = None,
    json: Path | None = None,
    score: float | None = None,
    max_frames: int | None = None,
    progress: bool = False,
    paste: str = "exact",
    colour_by: str = "class",
    device: str = "auto",
    gpu: GpuOptions | None = None,
    live: LiveOptions | None = None,
    events: Events | None = None,
    recording: Recording | None = None,
    options: RunOptions | None = None,
    serve: Serving | None = None,
) -> RunReport:
    """Find the instances in every frame of `source`.

    Args:
        model: a deployable ONNX or an engine. device, gpu: see `trt_blendmask.load`.
        source: a file, folder, camera or address, as `trt_blendmask.runtime.sources.grammar.TAKES` says; or several,
            which then take turns. They share the JSON lines, and have videos and pictures of their own.
        save: overlay video to write (.mp4 or .mkv). json: file with one line per frame, "-" for standard output.
        score: leave out what scores less. max_frames: stop after so many.
        progress: show a bar on standard error.
        paste: "exact" or "reference", see `trt_blendmask.paste`. colour_by: "class" or "instance".
        live: how a source that may break is treated. events: told when it breaks and comes back, and what outputs do.
        recording: more about what is kept; `save` and `json` go before its own.
        options: what is looked at, and what happens when the machine is too slow.
        serve: show the run in a browser, where it can be controlled, too; its address is an event.

    Ctrl-C ends the run early, but cleanly; a second one ends the program at once (130), files as they are. Whatever
    ends it, the outputs hold what was done so far; before the first frame none is touched. One that fails is left out,
    see `RunReport.failures`, and the run goes on.

    Raises:
        UsageError, InputMissingError, DataError: options, files or their contents that do not do.
        OutputError: the preview's address is taken, no output can be written from the start, or one failed and
            `recording` says to end then.
        TrtBlendMaskError: the network hangs, or gives no numbers any more.
    """
    recording, options, events = recording or Recording(), options or RunOptions(), events or Events()
    recording = replace(recording, save=save or recording.save, json=json or recording.json)
    names = _names(source)
    models = [*model_files(model), *([] if options.fallback is None else model_files(options.fallback))]
    for name in names:
        for part in recording.parts(len(names)):
            part.check(models, name)
    check_choices(paste, colour_by)
    if options.track:
        check_tracking()
    least = 0.0 if score is None else score
    controls = Controls(Settings(score=least, classes=options.classes))
    with ExitStack() as stack, ExitStack() as networks:
        preview = Preview(serve, controls, events, len(names)) if serve else None
        if preview:
            stack.callback(preview.end)
        teams = load_teams(networks, model, options, device, gpu)
        loaded = teams[0][0]
        controls.class_names = loaded.spec.class_names
        events.publish("model", loaded.how)
        opened = stack.enter_context(ExitStack())
        sources: list[Source] = []
        for name in names:
            taken = [one.name for one in sources]
            sources.append(opened.enter_context(closing(open_source(name, live, events, taken))))
        for one in sources:
            options.check_live(one.live)
        with closing(recording.open(events, sources, controls, [preview] if preview else [])) as sinks:
            job = Job(teams, sources, sinks, events, options, controls, max_frames, paste, colour_by)
            if preview:
                preview.begin(sources, job.dropped, loaded.how, can_record=lambda: sinks.has(Switched))
            signals = stack.enter_context(StopSignals())
            opened.pop_all()  # the job closes them, all at a time
            try:
                seconds, stopped = job.work(signals, progress)
            finally:
                if job.hangs:
                    networks.pop_all()  # to free what a thread is inside of would wait for it, or crash
    return _report(job, sources, sinks, seconds, stopped, loaded.how)


def _report(job: Job, sources: Sequence[Source], sinks: Sinks, seconds: float, stopped: bool, how: str) -> RunReport:
    tally = job.tally
    return RunReport(
        frames=tally.frames,
        detections=tally.detections,
        seconds=seconds,
        stage_ms=job.clock.mean_ms(tally.frames),
        corrupt=sum(one.corrupt for one in sources),
        stopped=stopped,
        outputs=sinks.written,
        how=how,
        dropped=sum(job.dropped(number) for number in range(len(sources))),
        failures=tuple(sinks.failures),
        age_ms=tally.age_ms(),
        broken=tally.broken,
        cut_short=tuple(one.cut_short for one in sources if one.cut_short),
    )


def _names(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    names = [os.fspath(one) for one in ([source] if isinstance(source, (str, os.PathLike)) else source)]
    if not names:
        raise UsageError("Expected at least one source, got none.")
    return names


def load_teams(
    networks: ExitStack, path: str | os.PathLike[str], options: RunOptions, device: str, gpu: GpuOptions | None
) -> list[list[Model]]:
    """The models, one per thread, and after them those of the fallback; closed with `networks`."""
    cores = available_cores()
    threads = cores // min(cores, MAX_ABREAST)
    loaded = networks.enter_context(load(path, device, threads, gpu))
    options.check_classes(loaded.spec.class_names)
    teams = [_twins(loaded)]
    if options.fallback is not None:
        smaller = networks.enter_context(load(options.fallback, device, threads, gpu))
        teams.append(_substitutes(smaller, teams[0]))
    return teams


def _twins(model: Model) -> list[Model]:
    """The model and as many twins as are of use, or for as many as the GPU has the memory."""
    models = [model]
    with suppress(SourceUnavailableError):
        while len(models) < min(model.abreast, MAX_ABREAST):
            models.append(model.twin())
    return models


def _substitutes(smaller: Model, models: list[Model]) -> list[Model]:
    """One for each of `models`.

    Raises:
        UsageError: it knows other classes, or is the larger one.
    """
    spec, given = models[0].spec, smaller.spec
    if given.class_names != spec.class_names:
        raise UsageError("Expected a fallback with the same classes as the model, in the same order, got others.")
    (height, width), (h, w) = spec.input_hw, given.input_hw
    if h * w > height * width:
        raise UsageError(
            f"Expected a fallback of at most the model's {width} x {height} pixels, got {w} x {h}: exchange the two."
        )
    return [smaller, *(smaller.twin() for _ in models[1:])]
