"""`profile`: several models side by side, the same pictures through all of them in turn."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from trt_blendmask.doctor.machine import Machine
from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.profiler import verdicts
from trt_blendmask.profiler.differences import compare_times, noise_of
from trt_blendmask.profiler.environment import look_round, missing
from trt_blendmask.profiler.readings import GPU_POWER, Watcher
from trt_blendmask.profiler.report import Comparison, Environment, ModelProfile, ProfileReport
from trt_blendmask.profiler.steps import ProfileOptions, Steps, Tick
from trt_blendmask.profiler.times import Runner
from trt_blendmask.profiler.trtexec import read_trtexec
from trt_blendmask.profiler.words import untimed

METRICS = ("network", "host", "gpu")
_USUAL = ProfileOptions()
_NOISE = "The pictures are noise: what comes after the network, NMS above all, takes another time than of real ones."


def profile(
    models: Sequence[Path],
    options: ProfileOptions = _USUAL,
    command: str = "",
    tick: Tick = lambda _words, _share: None,
    machine: Machine | None = None,
) -> ProfileReport:
    """Time deployable ONNX models and engines of any input sizes side by side.

    First what they find is compared with what the first one finds; one that finds other things is not timed, see
    `ModelProfile.error`. Ctrl-C ends the measuring, not the report: what was measured until then is in it, and
    `stopped` is True.

    Args:
        command: as typed, for the report. tick: told what is being done, and what share of it is.
        machine: where to look for sensors.

    Raises:
        UsageError, InputMissingError, DataError: as `trt_blendmask.load` and `open_source`.
        KeyboardInterrupt: Ctrl-C before anything was measured.
    """
    if not models:
        raise UsageError("Expected at least one model to profile, got none. Type: trt-blendmask profile model.onnx")
    machine, when = machine or Machine(), _now()
    with ExitStack() as stack:
        steps, stopped = Steps(stack, models, options, tick), False
        environment = look_round(machine)
        with Watcher(machine) as watcher:
            try:
                steps.take()
            except KeyboardInterrupt:
                if not any(runner.times for runner in steps.runners):
                    raise
                stopped = True
    pairs = zip(steps.runners, steps.models, strict=True)
    found = tuple(_result(runner, model, watcher, stopped) for runner, model in pairs)
    readings = watcher.readings()
    environment = replace(environment, missing=missing(environment, readings, watcher))
    warnings = (*([_NOISE] if options.random else []), *steps.warnings)
    return ProfileReport(
        command=command,
        when=when,
        environment=environment,
        source=steps.source,
        models=found,
        comparisons=_comparisons(found),
        noise=_noise(found),
        readings=readings,
        pipeline=tuple(steps.pipeline),
        percentiles=options.percentiles,
        warnings=(*warnings, *verdicts.of_machine(environment, watcher, found)),
        stopped=stopped,
    )


def report_of_trtexec(files: Sequence[Path], percentiles: tuple[float, ...], command: str) -> ProfileReport:
    """What trtexec measured, see `read_trtexec`; of the machine its files tell nothing.

    Raises:
        as `read_trtexec`.
    """
    model = read_trtexec(files)
    model = replace(model, warnings=(*model.warnings, *verdicts.of_model(model)))
    unknown = Environment(
        missing=("the machine: trtexec's files do not tell",),
    )
    source = f"trtexec's {' and '.join(map(str, files))}"
    return ProfileReport(command, _now(), unknown, source, (model,), noise=_noise([model]), percentiles=percentiles)


def require(report: ProfileReport) -> None:
    """Refuse a report with a model that was not timed, or not to the end.

    Raises:
        DataError: there is one.
    """
    wrong = [f"'{model.path}' was {untimed(model)}: {model.error}." for model in report.models if model.error]
    if wrong and not report.stopped:
        raise DataError(" ".join(wrong))


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _result(runner: Runner, model: ModelProfile, watcher: Watcher, stopped: bool) -> ModelProfile:
    error = runner.error or ("stopped by Ctrl-C before it was timed" if stopped and not runner.times else "")
    busy = [*runner.turns, runner.in_flight] if runner.in_flight else runner.turns
    model = replace(
        model,
        times=runner.times,
        rounds=runner.rounds,
        throughput=runner.throughput,
        error=error,
        conditions=watcher.spans(busy),
        mj_per_frame=_energy(runner, watcher),
    )
    return replace(model, warnings=(*model.warnings, *verdicts.of_model(model)))


def _energy(runner: Runner, watcher: Watcher) -> float | None:
    """Of the frames in flight: no other model ran at that time, and sensors that lag have time to settle."""
    power = watcher.readings().power
    if runner.throughput is None or runner.in_flight is None or (power == GPU_POWER and "gpu" not in runner.times):
        return None
    watts = watcher.spans([runner.in_flight]).get(power)
    return 1e3 * watts.mean / runner.throughput.frames_per_s if watts else None


def _comparisons(models: Sequence[ModelProfile]) -> tuple[Comparison, ...]:
    """Of all pairs, by every kind of time that both have."""
    pairs = (compare_times(one, other, metric) for metric in METRICS for one, other in combinations(models, 2))
    return tuple(pair for pair in pairs if pair is not None)


def _noise(models: Sequence[ModelProfile]) -> dict[str, float]:
    """The most of the models, by kind of time."""
    noises = {metric: [noise_of(model, metric) for model in models] for metric in METRICS}
    return {metric: max(known) for metric, seen in noises.items() if (known := [n for n in seen if n is not None])}
