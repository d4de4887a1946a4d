"""Build an engine from a deployable ONNX: checks, one build at a time, a process for it, passport, publication."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import onnx

from trt_blendmask.cache import cache_folder
from trt_blendmask.engines import child, parity
from trt_blendmask.engines.build import BuildRefusedError
from trt_blendmask.engines.complaints import explain, no_gpu, refuse_plugin
from trt_blendmask.engines.device import Device, find_device
from trt_blendmask.engines.flavor import Flavor, find
from trt_blendmask.engines.lock import hold, locked, sweep
from trt_blendmask.engines.options import BuildOptions
from trt_blendmask.engines.passport import amend, as_recorded, matching_passport, passport_path, publish
from trt_blendmask.engines.plugin import Plugin, find_plugin
from trt_blendmask.engines.progress import BuildTimes, Progress
from trt_blendmask.engines.source import Source, read_source
from trt_blendmask.engines.tail_check import tail_alone
from trt_blendmask.errors import TrtBlendMaskError, UsageError
from trt_blendmask.files import check_outputs, file_sha256, temporary_beside
from trt_blendmask.structures import EngineInfo

Listener = Callable[[Progress], None]


def prepare(options: BuildOptions) -> tuple[Flavor, Device | None]:
    """The TensorRT and the GPU that a build will use: all that can be in its way and is known without a model.

    Raises:
        UsageError, SourceUnavailableError: as `build`.
    """
    flavor, device = find(options.flavor), find_device()
    options.check(flavor)
    if flavor.name == "tensorrt" and device is None:
        raise no_gpu(flavor)
    if options.compute_capability == ("current",) and device is None:
        raise UsageError(
            "--compute-capability current needs a GPU, and the driver shows none: name it by number, as 8.6."
        )
    return flavor, device


def build(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    options: BuildOptions | None = None,
    progress: Listener | None = None,
) -> EngineInfo:
    """Build the engine of the deployable ONNX `model` and write it with its passport, both or neither.

    One build at a time: others of this user wait, and take what was built meanwhile if it is the same.

    Args:
        output: the engine; default: beside the model, as MODEL.engine.
        progress: is called a few times a second, and for what the user should know.

    Raises:
        InputMissingError, DataError: the model or the plugin is not there, not what it should be, or does not build.
        UsageError: options that do not fit. SourceUnavailableError: no TensorRT, no GPU or no memory for this.
        OutputError: the engine cannot be written. NotTrustedError: others could have written the plugin.
        KeyboardInterrupt: it was stopped; an older engine is still there.
    """
    given = options or BuildOptions()
    source = read_source(Path(model))
    engine = Path(output) if output is not None else Path(model).with_suffix(".engine")
    inputs = [source.path, *(p for p in (given.plugin, given.seed_from) if p)]
    check_outputs([engine, passport_path(engine), *([given.timing_cache] if given.timing_cache else [])], inputs)
    run = _Build(source, engine, given, *prepare(given), progress or (lambda _: None))
    run.check()
    with hold(cache_folder() / "build.lock", run.wait) as waited:
        ready = run.built_meanwhile() if waited else None
        return ready or run.build()


class _Build:
    """One build: what it needs, found and checked."""

    def __init__(
        self,
        source: Source,
        engine: Path,
        options: BuildOptions,
        flavor: Flavor,
        device: Device | None,
        progress: Listener,
    ) -> None:
        self.source, self.engine, self.options, self.flavor, self.device = source, engine, options, flavor, device
        self.progress = progress
        self.plugin: Plugin | None = None
        self.began = time.monotonic()

    def check(self) -> None:
        """What the model and the options ask for, before the wait for others."""
        source, options = self.source, self.options
        if source.tail != "native" and self.flavor.name == "rtx":
            raise refuse_plugin(self.flavor, source.path, source.tail)
        if source.tail != "plugin" and (options.embed_plugin or options.plugin):
            option = "--embed-plugin" if options.embed_plugin else "--plugin"
            raise UsageError(f"{option} is for surgery --tail plugin, but '{source.path}' has no plugin: leave it out.")
        if source.tail == "plugin":
            self.plugin = find_plugin(options.plugin)

    def wait(self) -> None:
        self._note("Another build is running: waiting for its end.")

    def built_meanwhile(self) -> EngineInfo | None:
        """What another process has just built, if it is what this one would."""
        real = Path(os.path.realpath(self.engine))
        try:
            info = matching_passport(real, file_sha256(real)) if real.is_file() else None
        except (TrtBlendMaskError, OSError):
            return None
        if info is None or not self._is_same(info):
            return None
        self._note("That build made this very engine: taken as it is.")
        return info

    def build(self) -> EngineInfo:
        """Build, and put engine and passport in place."""
        times = BuildTimes(cache_folder() / "build-times.json", self._key())
        expected = times.expected(self.source.sha256, len(self.source.model.graph.node))
        sweep(self.engine, passport_path(self.engine))
        with temporary_beside(self.engine) as plan, locked(plan):
            if self.options.tail_check:
                self._check_tail(plan)
            task = self._task(plan, self.source.path, self.source.sha256)
            outcome = self._run(task, self.source.model, expected)
            info = self._passport(outcome, plan)
            publish(plan, info, self.engine)
        times.remember(self.source.sha256, len(self.source.model.graph.node), outcome.seconds)
        return self._compared(info)

    def _compared(self, info: EngineInfo) -> EngineInfo:
        """With the result of a comparison in the passport, where a GPU and ONNX Runtime can run the two."""
        if self.device is None or self.source.tail != "native":
            return info
        try:
            info = replace(info, parity=parity.measure(self.engine, self.source.path))
        except TrtBlendMaskError as error:
            self._note(f"The engine was not compared with its ONNX: {error}")
            return info
        amend(info, self.engine)
        self._note(info.parity)
        return info

    def _check_tail(self, plan: Path) -> None:
        model = tail_alone(onnx.load(self.source.path), self.source.path)
        with temporary_beside(self.engine) as file, locked(file):  # swept like a plan, if it stays
            content = model.SerializeToString()
            file.write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            outcome = self._run(self._task(plan, file, sha256), model, None, "the tail")
        self._note(f"The tail alone builds: {outcome.layers} layers, {outcome.seconds:.1f} s.")

    def _task(self, plan: Path, onnx_file: Path, sha256: str) -> child.Task:
        timings = self.options.timing_cache
        if timings is None and (self.flavor.name == "tensorrt" or self.options.seed_from):
            timings = cache_folder() / "timings.cache"
        kept = None if timings is None else (timings, self._key())
        return child.Task(onnx_file, sha256, plan, self.flavor.name, self.options, self.source.tail, self.plugin, kept)

    def _run(self, task: child.Task, model: onnx.ModelProto, expected: float | None, what: str = "") -> child.Outcome:
        began = time.monotonic()

        def hear(told: dict[str, Any]) -> None:
            seconds = time.monotonic() - began
            if "note" in told:
                self._note(told["note"])
            elif "log" in told:
                self.progress(Progress("", seconds=seconds, log=told["log"]))
            else:
                where = told["phase"], told["done"], told["steps"]
                self.progress(Progress(*where, seconds, expected, told["peak_mib"]))

        try:
            outcome = child.run(task, hear)
        except (BuildRefusedError, child.ChildDiedError) as problem:
            raise explain(problem, self.flavor, model, self.source.path, what) from problem
        self.progress(Progress("done", seconds=time.monotonic() - began, peak_mib=outcome.peak_mib))
        return outcome

    def _passport(self, outcome: child.Outcome, plan: Path) -> EngineInfo:
        device = self.device
        return EngineInfo(
            plan_sha256=file_sha256(plan),
            plan_bytes=plan.stat().st_size,
            onnx_sha256=self.source.sha256,
            onnx_path=as_recorded(self.source.path, self.engine),
            plugin_sha256=self.plugin.sha256 if self.plugin else "",
            table_sha256=self.source.table_sha256,
            flavor=self.flavor.name,
            tensorrt_version=self.flavor.version_text,
            compute_capability=self._capability(),
            device_name=device.name if device else "",
            driver=device.driver if device else "",
            cuda_version=device.cuda_version if device else "",
            options=self.options.recorded(),
            inputs=outcome.inputs,
            outputs=outcome.outputs,
            spec=self.source.spec,
            built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            build_seconds=round(outcome.seconds, 3),
        )

    def _is_same(self, info: EngineInfo) -> bool:
        mine = (
            self.source.sha256,
            self.plugin.sha256 if self.plugin else "",
            self.flavor.name,
            self.flavor.version_text,
            self.options.recorded(),
            self._capability(),
            self.device.name if self.device else "",
        )
        made = (info.onnx_sha256, info.plugin_sha256, info.flavor, info.tensorrt_version, info.options)
        return mine == (*made, info.compute_capability, info.device_name)

    def _capability(self) -> str:
        """Of the one kind of GPU that the engine is for; "" where it is for several."""
        targets = self.options.compute_capability
        if self.device is not None and (self.flavor.name == "tensorrt" or targets == ("current",)):
            return self.device.compute_capability
        return targets[0] if len(targets) == 1 else ""

    def _key(self) -> str:
        """What times depend on: those of kernels, and those of builds."""
        gpu = f"{self.device.name} {self.device.compute_capability}" if self.device else "no GPU"
        return f"{self.flavor.title}, {gpu}"

    def _note(self, text: str) -> None:
        self.progress(Progress("", seconds=time.monotonic() - self.began, note=text))
