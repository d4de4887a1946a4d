"""The process that builds: TensorRT's parser can end the process it runs in, and then only this one is gone.

Parent and child speak JSON, a line each: the child's standard input has the job, then "stop", then its end (the parent
is gone: the child ends itself); the child's standard output has what it is doing and what came of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from trt_blendmask import errors
from trt_blendmask.engines.build import BuildRefusedError, Built, Job, ParserComplaint, build_plan
from trt_blendmask.engines.flavor import find
from trt_blendmask.engines.options import BuildOptions
from trt_blendmask.engines.plugin import Plugin
from trt_blendmask.engines.progress import BuildState
from trt_blendmask.engines.timing_cache import TimingCache
from trt_blendmask.structures import TensorSpec

PATIENCE = 5.0  # seconds that a stopped build may take to come to a step's end
_EVERY = 0.25  # seconds between two reports
# Isolated: neither the working folder nor variables of Python's decide what is imported, only the parent's own path.
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from trt_blendmask.engines.child import main; main()"


@dataclass(frozen=True)
class Task:
    """What the child is given: the model and its hash, the flavor by name, and the file for the plan, which exists."""

    onnx: Path
    onnx_sha256: str
    plan: Path
    flavor: str
    options: BuildOptions
    tail: str
    plugin: Plugin | None
    timings: tuple[Path, str] | None  # file and key


@dataclass(frozen=True)
class Outcome:
    """What the child made.

    Attributes:
        seconds: of parsing and building. peak_mib: most memory it held.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: int
    seconds: float
    peak_mib: int


class ChildDiedError(Exception):
    """The child ended without a word of its own.

    Attributes:
        code: its return code, negative for a signal. phase: what it was doing. words: the end of its error output.
    """

    def __init__(self, code: int, phase: str, words: str, log: list[str]) -> None:
        super().__init__(code)
        self.code, self.phase, self.words, self.log = code, phase, words, log


def run(task: Task, hear: Callable[[dict[str, Any]], None]) -> Outcome:
    """Build in a child process; the plan is in `task.plan` when this returns.

    Args:
        hear: gets {"phase", "done", "steps", "peak_mib"}, {"note"} for the user, {"log"} of TensorRT's.

    Raises:
        BuildRefusedError: TensorRT does not build it. ChildDiedError: the process ended.
        TrtBlendMaskError: what the child raised on purpose. KeyboardInterrupt: and the child is gone.
    """
    with tempfile.TemporaryFile() as noise:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, json.dumps([str(place) for place in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # a terminal's Ctrl-C is for us, and we tell the child
        )
        try:
            return _listen(process, task, hear, noise)
        except KeyboardInterrupt:
            with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
                process.communicate("stop\n", timeout=PATIENCE)  # what it has timed so far is kept
            raise
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # it is gone with what we had to say
                    if pipe is not None:
                        pipe.close()


def _listen(
    process: subprocess.Popen[str], task: Task, hear: Callable[[dict[str, Any]], None], noise: IO[bytes]
) -> Outcome:
    assert process.stdin is not None
    assert process.stdout is not None
    phase, log = "starting", []
    with contextlib.suppress(BrokenPipeError):  # it died at once: said below
        process.stdin.write(json.dumps(_as_json(task)) + "\n")
        process.stdin.flush()
    for line in process.stdout:
        told = json.loads(line)
        if "built" in told:
            return _outcome(told["built"])
        if "refused" in told:
            refused = told["refused"]
            complaints = [ParserComplaint(**complaint) for complaint in refused["complaints"]]
            raise BuildRefusedError(refused["stage"], complaints, refused["log"], refused["stopped"])
        if "error" in told:
            kind = getattr(errors, told["error"]["kind"], errors.TrtBlendMaskError)
            raise kind(told["error"]["text"])
        phase = told.get("phase") or phase
        log += [told["log"]] if "log" in told else []
        hear(told)
    code = process.wait()
    noise.seek(0, os.SEEK_END)
    noise.seek(max(0, noise.tell() - 4000))
    raise ChildDiedError(code, phase, noise.read().decode(errors="replace"), log[-3:])


def main() -> None:
    """The child's side."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the dump of a TensorRT that aborts helps nobody
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    speaking = threading.Lock()

    def tell(**what: Any) -> None:
        with speaking, contextlib.suppress(OSError):
            print(json.dumps(what), file=answers, flush=True)

    task = _task(json.loads(sys.stdin.readline()))
    state = BuildState(lambda text: tell(note=text), lambda text: tell(log=text))
    threading.Thread(target=_obey, args=(state,), daemon=True).start()
    threading.Thread(target=_report, args=(state, tell), daemon=True).start()
    began = time.monotonic()
    try:
        built = _build(task, state)
        task.plan.write_bytes(built.plan)
        seconds = time.monotonic() - began
        ends = {"inputs": [asdict(s) for s in built.inputs], "outputs": [asdict(s) for s in built.outputs]}
        tell(built={**ends, "layers": built.layers, "seconds": seconds, "peak_mib": _peak_mib()})
    except BuildRefusedError as refused:
        complaints = [asdict(complaint) for complaint in refused.complaints]
        stopped, log = refused.stopped, refused.log
        tell(refused={"stage": refused.stage, "complaints": complaints, "log": log, "stopped": stopped})
    except errors.TrtBlendMaskError as error:
        tell(error={"kind": type(error).__name__, "text": str(error)})
    except OSError as error:  # of the plan
        tell(
            error={
                "kind": "OutputError",
                "text": f"Cannot write the engine: {error.strerror or error}. Name another place.",
            }
        )
    # TensorRT's own end is skipped: without a GPU it may crash there, with all work done.
    os._exit(0)


def _build(task: Task, state: BuildState) -> Built:
    timings = None
    if task.timings is not None:
        path, key = task.timings
        timings = TimingCache(path, key, task.options.seed_from, state.note)
    job = Job(task.options, task.tail, task.plugin, timings)
    try:
        content = task.onnx.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise errors.InputMissingError(
            f"Expected to read '{task.onnx}' once more, but got: {reason}. Check the disk, and who may read the file."
        ) from error
    if hashlib.sha256(content).hexdigest() != task.onnx_sha256:
        raise errors.DataError(f"Expected '{task.onnx}' to stay as it is, but it was changed. Type the same again.")
    return build_plan(find(task.flavor), content, job, state)


def _obey(state: BuildState) -> None:
    for line in sys.stdin:
        if line.strip() == "stop":
            state.stop.set()
            time.sleep(2 * PATIENCE)  # the parent ends us before that, if it is still there
    os.kill(os.getpid(), signal.SIGKILL)  # the parent is gone: nobody wants this plan


def _report(state: BuildState, tell: Callable[..., None]) -> None:
    while True:
        phase, done, steps = state.now()
        tell(phase=phase, done=done, steps=steps, peak_mib=_peak_mib())
        time.sleep(_EVERY)


def _peak_mib() -> int:
    try:  # getrusage would count what the parent held when it made this process
        match = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        match = None
    return int(match[1]) >> 10 if match else 0


def _as_json(task: Task) -> dict[str, Any]:
    plugin = None if task.plugin is None else [str(task.plugin.path), task.plugin.sha256]
    timings = None if task.timings is None else [str(task.timings[0]), task.timings[1]]
    plain = {"onnx": str(task.onnx), "onnx_sha256": task.onnx_sha256, "plan": str(task.plan)}
    plain |= {"flavor": task.flavor, "tail": task.tail}
    return {**plain, "options": task.options.to_json(), "plugin": plugin, "timings": timings}


def _task(values: dict[str, Any]) -> Task:
    plugin, timings = values["plugin"], values["timings"]
    return Task(
        Path(values["onnx"]),
        values["onnx_sha256"],
        Path(values["plan"]),
        values["flavor"],
        BuildOptions.from_json(values["options"]),
        values["tail"],
        None if plugin is None else Plugin(Path(plugin[0]), plugin[1]),
        None if timings is None else (Path(timings[0]), timings[1]),
    )


def _outcome(values: dict[str, Any]) -> Outcome:
    def specs(rows: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(row["name"], row["dtype"], tuple(row["shape"])) for row in rows)

    ends = specs(values["inputs"]), specs(values["outputs"])
    return Outcome(*ends, values["layers"], values["seconds"], values["peak_mib"])
