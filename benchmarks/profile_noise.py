"""Whether `profile` may be believed: false alarms of a model against itself, planted slow-downs, its own overhead.

    python benchmarks/profile_noise.py [--model F] [--repeats 100] [--planted 40] [--duration 3] [--json F]

Each repeat loads the model twice, makes the second one slower by nothing, 1 % or 10 % (it spins on after each frame),
and profiles both as the command does. The bars: at most 5 % of the repeats call a difference where there is none or
1 %, at least 95 % find the 10 %, and frames take at most 1 % longer while they are profiled (per-layer off). The same
with a network that only spins for 5 ms, whose times scatter least, for a third of the duration.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from trt_blendmask.backends import Array, Session
from trt_blendmask.backends.onnxruntime import OnnxRuntimeSession, available_cores
from trt_blendmask.bundled import bundled_model
from trt_blendmask.profiler.differences import compare_times
from trt_blendmask.profiler.pictures import DEFAULT, of_source
from trt_blendmask.profiler.readings import Watcher
from trt_blendmask.profiler.report import Comparison, ModelProfile
from trt_blendmask.profiler.times import Runner, take_turns
from trt_blendmask.runtime.model import Model, checked_spec
from trt_blendmask.structures import U8

PLANTED = (1.0, 1.01, 1.10)
SPIN_S = 5e-3
BLOCKS, BLOCK_S = 160, 0.5  # of frames, for the overhead; sensors are read ten times a second


class Slower:
    """A session that takes `factor` times as long, by spinning; `spin_s`: in place of running the network."""

    def __init__(self, session: Session, factor: float, spin_s: float = 0.0) -> None:
        self.path, self.inputs, self.outputs = session.path, session.inputs, session.outputs
        self.metadata, self.how, self.abreast = session.metadata, session.how, session.abreast
        self._session, self._factor, self._spin_s = session, factor, spin_s
        self._last: dict[str, Array] = session.run(session.input_buffer()) if spin_s else {}

    def input_buffer(self) -> Array:
        return self._session.input_buffer()

    def run(self, images: Array) -> dict[str, Array]:
        began = time.perf_counter()
        found = self._last if self._spin_s else self._session.run(images)
        end = began + self._factor * (self._spin_s or time.perf_counter() - began)
        while time.perf_counter() < end:
            pass
        return found

    def twin(self) -> Session:
        return self

    def close(self) -> None:
        self._session.close()


def once(
    open_session: Callable[[], Session], factor: float, spin_s: float, images: Sequence[U8], duration: float
) -> Comparison:
    """The model against itself, made slower."""
    with ExitStack() as stack:
        runners = []
        for label, slower in (("one", 1.0), ("other", factor)):
            session = open_session()
            stack.callback(session.close)
            wrapped = Slower(session, slower, spin_s)
            runners.append(Runner(label, Model(wrapped, checked_spec(wrapped)), wrapped))
        with Watcher():
            take_turns(runners, images, duration, 0.1, lambda _words, _share: None)
    found = compare_times(profile_of(runners[0]), profile_of(runners[1]), "network")
    assert found is not None
    return found


def profile_of(runner: Runner) -> ModelProfile:
    return ModelProfile(runner.label, "", "", "", "", (1, 1), None, 0, runner.times, runner.rounds)


def overhead(session: Session, images: Sequence[U8]) -> Comparison:
    """Milliseconds of a frame in a bare loop, and as it is profiled, in turns."""
    model = Model(session, checked_spec(session))
    runners = [Runner(label, model, session) for label in ("bare", "profiled")]
    frames = max(1, round(BLOCK_S / runners[0].warm_up(images, 1.0)))
    for number in range(BLOCKS):
        for k in (0, 1) if number % 2 else (1, 0):
            one = Runner("", model, session)
            if k:
                with Watcher():
                    began = time.perf_counter()
                    for frame in range(frames):
                        one.turn(images, frame, 1, number)
                    spent = time.perf_counter() - began
            else:
                began = time.perf_counter()
                for frame in range(frames):
                    model(images[frame % len(images)])
                spent = time.perf_counter() - began
            runners[k].times.setdefault("host", []).append(1e3 * spent / frames)
            runners[k].rounds.setdefault("host", []).append(number)
    found = compare_times(profile_of(runners[0]), profile_of(runners[1]), "host")
    assert found is not None
    return found


def summed_up(found: Sequence[Comparison]) -> dict[str, Any]:
    ratios = [one.ratio for one in found]
    return {
        "repeats": len(found),
        "called": sum(one.differs for one in found),
        "ratio": {"median": float(np.median(ratios)), "least": min(ratios), "most": max(ratios)},
        "interval_half_width_median": float(np.median([(one.high - one.low) / 2 for one in found])),
        "noise_median": float(np.median([one.noise_high - 1 for one in found])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--repeats", type=int, default=100, help="of the model against itself")
    parser.add_argument("--planted", type=int, default=40, help="repeats of each planted slow-down")
    parser.add_argument("--duration", type=float, default=3.0, help="seconds of each model in each repeat")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    path, images = args.model or bundled_model(), of_source(DEFAULT)
    result: dict[str, Any] = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": available_cores()},
        "model": path.name,
        "duration_s": args.duration,
    }
    for name, spin_s, duration in (("spinning", SPIN_S, args.duration / 3), ("model", 0.0, args.duration)):
        for factor in PLANTED:
            found = [
                once(lambda: OnnxRuntimeSession(path), factor, spin_s, images, duration)
                for _ in range(args.repeats if factor == 1 else args.planted)
            ]
            result[f"{name}, slower by {factor - 1:.0%}"] = summed_up(found)
            print(name, factor, json.dumps(summed_up(found)), flush=True)
    for name, spin_s in (("spinning", SPIN_S), ("model", 0.0)):
        session = Slower(OnnxRuntimeSession(path), 1.0, spin_s)
        seen = overhead(session, images)
        session.close()
        result[f"{name}, overhead"] = {"ratio": seen.ratio, "low": seen.low, "high": seen.high, "blocks": BLOCKS}
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
